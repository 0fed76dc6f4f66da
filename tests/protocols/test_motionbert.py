"""The MotionBERT protocol against the published loop: arrays per frame, one clip after another."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kinema.data.sequences import Sequences
from kinema.data.windows import Windows
from kinema.errors import ConfigError
from kinema.protocols.image_space import BLOCKED
from kinema.protocols.motionbert import MotionBERTProtocol
from tests.protocols.stores import JOINTS, SKELETON, batches, picks, procrustes, store

KEYS = ("pose2d", "pose3d", "pose3d_eval", "factor", "size")
ACTIONS = ("Walk", "Sitting")


def image_store(lengths: list[int], *, blocked: tuple[int, ...] = ()) -> Sequences:
    """Image-space sequences of two cameras with 2.5D targets."""
    random = np.random.default_rng(3)
    items = []
    for number, length in enumerate(lengths):
        items.append(
            {
                "pose3d": random.uniform(-1, 1, (length, JOINTS, 3)).astype(np.float32),
                "pose2d": random.uniform(-1, 1, (length, JOINTS, 3)).astype(np.float32),
                "pose3d_eval": (random.normal(size=(length, JOINTS, 3)) * 300).astype(np.float32),
                "factor": random.uniform(3, 4, length).astype(np.float32),
                "size": np.tile(np.float32([1000, 1002 if number % 2 else 1000]), (length, 1)),
                "subject": "S9",
                "action": ACTIONS[number % 2],
                "trial": BLOCKED[0] if number in blocked else f"video {number}",
            }
        )
    return Sequences.from_arrays(items, skeleton=SKELETON, skeleton2d=SKELETON, space="image")


def clips(sequences: Sequences, frames: int, stride: int) -> Windows:
    random = np.random.RandomState(5)
    return Windows.strided(sequences, frames, stride, random=random, keys=KEYS)


def prediction(batch: dict[str, Tensor], seed: int = 0) -> Tensor:
    """Values that depend on the clip and the frame."""
    out = np.stack([np.random.default_rng([seed, row]).normal(size=(batch["frames"].shape[1], JOINTS, 3))
                    for row in batch["index"].clamp_min(0).tolist()])  # fmt: skip
    return torch.from_numpy(out.astype(np.float32))


def published(sequences: Sequences, windows: Windows, relative: bool) -> tuple[dict[str, list[float]], np.ndarray]:
    """P1 and P2 per action, and P1 per frame (0 = unused), clip after clip with numpy."""
    total = sequences.num_frames
    e1, e2, count = np.zeros(total), np.zeros(total), np.zeros(total)
    for batch in batches(windows):
        row = int(windows.table[int(batch["index"][0]), 0])
        if sequences.table["trial"][row] in BLOCKED:
            continue
        pred = prediction(batch)[0].numpy().astype(np.float64)
        if relative:
            pred[:, 0] = 0
        width, height = batch["size"][0, 0].numpy()
        pred[..., :2] = (pred[..., :2] + np.array([1, height / width])) * width / 2
        pred[..., 2:] = pred[..., 2:] * width / 2
        pred *= batch["factor"][0].numpy()[:, None, None]
        target = batch["pose3d_eval"][0].numpy().astype(np.float64)
        pred, target = pred - pred[:, :1], target - target[:, :1]
        frames = batch["frames"][0].numpy()
        first = np.linalg.norm(pred - target, axis=-1).mean(-1)
        aligned = np.stack([procrustes(p, t) for p, t in zip(pred, target, strict=True)])
        e1[frames] += first
        e2[frames] += np.linalg.norm(aligned - target, axis=-1).mean(-1)
        count[frames] += 1
    by_action: dict[str, list[float]] = {}
    owner = np.repeat(np.arange(len(sequences)), sequences.table["length"])
    for action in ACTIONS:
        used = (e1 > 0) & (sequences.table["action"][owner] == action)
        if used.any():
            by_action[action] = [(e1[used] / count[used]).mean(), (e2[used] / count[used]).mean()]
    return by_action, e1 / np.maximum(count, 1)


@given(st.lists(st.integers(3, 14), min_size=2, max_size=5), st.integers(1, 6), st.booleans())
@settings(max_examples=15, deadline=None)
def test_equals_the_published_loop(lengths: list[int], stride: int, relative: bool) -> None:
    # The short sequences are resampled at random, so that clips repeat frames; the last sequence is long enough.
    sequences = image_store([*lengths, 8], blocked=(1,))
    windows = clips(sequences, 6, stride)
    expected, per_frame = published(sequences, windows, relative)
    protocol = MotionBERTProtocol(windows, root_relative=relative)
    for batch in batches(windows):
        protocol.update(prediction(batch), batch)
    report = protocol.compute()
    rows = {row["action"]: [row["mpjpe"], row["p_mpjpe"]] for row in report.tables["action"]}
    assert rows.keys() == expected.keys()
    for action, values in expected.items():
        assert rows[action] == pytest.approx(values, rel=1e-5)
    assert report.scalars["mpjpe"] == pytest.approx(np.mean([values[0] for values in expected.values()]), rel=1e-5)
    assert report.scalars["mpjpe_frames"] == pytest.approx(per_frame[per_frame > 0].mean(), rel=1e-5)
    np.testing.assert_array_equal(report.arrays["frame"], np.flatnonzero(per_frame))


def test_batching_and_fillers_do_not_change_the_numbers() -> None:
    windows = clips(image_store([9, 20, 7]), 6, 2)
    one, many = MotionBERTProtocol(windows), MotionBERTProtocol(windows)
    for batch in batches(windows):
        one.update(prediction(batch), batch)
    rows = torch.randperm(len(windows), generator=torch.Generator().manual_seed(1)).tolist()
    for part in (rows[:3], [*rows[3:], -1, -1]):
        batch = windows[picks(part)]
        pred = prediction(batch)
        pred[batch["index"] < 0] = torch.nan
        many.update(pred, batch)
    assert many.compute().scalars == pytest.approx(one.compute().scalars, rel=1e-10)


def test_frames_without_error_are_left_out() -> None:
    sequences = image_store([6, 6])
    windows = clips(sequences, 6, 6)
    batch = windows[picks([0, 1])]
    protocol = MotionBERTProtocol(windows)
    # with factor 0 every prediction of that frame is 0, as its target
    batch["pose3d_eval"][0, 2] = 0
    batch["factor"][0, 2] = 0
    protocol.update(prediction(batch), batch)
    report = protocol.compute()
    assert sum(row["frames"] for row in report.tables["action"]) == 11
    assert 2 not in report.arrays["frame"]


def test_velocity_compares_neighbouring_frames_only() -> None:
    sequences = image_store([3, 6])  # the first is resampled to a clip of 6 that repeats frames
    windows = clips(sequences, 6, 6)
    protocol = MotionBERTProtocol(windows, root_relative=False)
    steps, accelerations = [], []
    for batch in batches(windows):
        pred = prediction(batch)
        protocol.update(pred, batch)
        mm = protocol.millimetres(pred, batch)[0].double().numpy()
        target = batch["pose3d_eval"][0].numpy().astype(np.float64)
        error = (mm - mm[:, :1]) - (target - target[:, :1])
        frames = batch["frames"][0].numpy()
        for t in range(len(frames) - 1):
            if frames[t + 1] == frames[t] + 1:
                steps.append((frames[t], np.linalg.norm(error[t + 1] - error[t], axis=-1).mean()))
                if t + 2 < len(frames) and frames[t + 2] == frames[t] + 2:
                    second = error[t + 2] - 2 * error[t + 1] + error[t]
                    accelerations.append(np.linalg.norm(second, axis=-1).mean())
    report = protocol.compute()
    assert any(frame < 3 for frame, _ in steps)
    assert report.scalars["mpjve_frames"] == pytest.approx(np.mean([value for _, value in steps]), rel=1e-5)
    assert report.scalars["acceleration_frames"] == pytest.approx(np.mean(accelerations), rel=1e-5)


def test_ground_truth_2d_replaces_x_and_y() -> None:
    windows = clips(image_store([6, 6]), 6, 6)
    batch = windows[picks([0, 1])]
    batch["pose"] = batch["pose2d"]
    pred = prediction(batch)
    values = MotionBERTProtocol(windows, gt_2d=True).millimetres(pred, batch)
    by_hand = torch.cat([batch["pose2d"][..., :2], pred[..., 2:]], dim=-1)
    by_hand[:, :, 0, 2] = 0
    expected = MotionBERTProtocol(windows, root_relative=False).millimetres(by_hand, batch)
    torch.testing.assert_close(values, expected)


def test_other_sequences_can_be_blocked() -> None:
    windows = clips(image_store([6, 6, 6]), 6, 6)
    batch = windows[picks([0, 1, 2])]
    protocol = MotionBERTProtocol(windows, blocked=["video 1"])
    protocol.update(prediction(batch), batch)
    assert [row["action"] for row in protocol.compute().tables["action"]] == ["Walk"]


def test_data_without_2_5d_targets_is_refused_with_an_override() -> None:
    with pytest.raises(ConfigError, match=r"pose3d_eval.*task.protocol=videopose3d"):
        MotionBERTProtocol(Windows.whole(store([4])))
