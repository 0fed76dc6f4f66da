"""The MotionAGFormer protocol against the published loop: numpy arrays per frame, one clip after another."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kinema.data.sequences import Sequences
from kinema.data.windows import Windows
from kinema.errors import ConfigError
from kinema.protocols.image_space import BLOCKED
from kinema.protocols.motionagformer import MotionAGFormerProtocol
from kinema.protocols.motionbert import MotionBERTProtocol
from tests.protocols.stores import batches, picks, procrustes, store
from tests.protocols.test_motionbert import ACTIONS, clips, image_store, prediction

MEASURES = ("mpjpe", "p_mpjpe", "acceleration", "mpjve")


def published(sequences: Sequences, windows: Windows, relative: bool) -> dict[str, dict[str, float]]:
    """Means per action. Adding to repeated indices is numpy's: the last of them stays."""
    total = sequences.num_frames
    sums = {name: np.zeros(total) for name in MEASURES}
    count = np.zeros(total)
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
        aligned = np.stack([procrustes(p, t) for p, t in zip(pred, target, strict=True)])
        second = [x[2:] - 2 * x[1:-1] + x[:-2] for x in (pred, target)]
        velocity = np.linalg.norm(np.diff(pred, axis=0) - np.diff(target, axis=0), axis=-1).mean()
        sums["mpjpe"][frames] += np.linalg.norm(pred - target, axis=-1).mean(-1)
        sums["p_mpjpe"][frames] += np.linalg.norm(aligned - target, axis=-1).mean(-1)
        sums["acceleration"][frames[:-2]] += np.linalg.norm(second[0] - second[1], axis=-1).mean(-1)
        sums["mpjve"][frames] += velocity
        count[frames] += 1
    owner = np.repeat(np.arange(len(sequences)), sequences.table["length"])
    by_action = {}
    for action in ACTIONS:
        used = (sums["mpjpe"] > 0) & (sequences.table["action"][owner] == action)
        if used.any():
            by_action[action] = {name: (sums[name][used] / count[used]).mean() for name in MEASURES}
    return by_action


@given(st.lists(st.integers(3, 14), min_size=2, max_size=5), st.integers(1, 6), st.booleans())
@settings(max_examples=15, deadline=None)
def test_equals_the_published_loop(lengths: list[int], stride: int, relative: bool) -> None:
    # The short sequences are resampled at random, so that clips repeat frames; the last sequence is long enough.
    sequences = image_store([*lengths, 8], blocked=(1,))
    windows = clips(sequences, 6, stride)
    expected = published(sequences, windows, relative)
    protocol = MotionAGFormerProtocol(windows, **MotionAGFormerProtocol.root_options(relative))
    for batch in batches(windows):
        protocol.update(prediction(batch), batch)
    report = protocol.compute()
    rows = {row["action"]: row for row in report.tables["action"]}
    assert rows.keys() == expected.keys()
    for action, values in expected.items():
        assert {name: rows[action][name] for name in MEASURES} == pytest.approx(values, rel=1e-5)
    for name in MEASURES:
        mean = np.mean([values[name] for values in expected.values()])
        assert report.scalars[name] == pytest.approx(mean, rel=1e-5)


def test_published_acceleration_is_the_corrected_one_times_its_share_of_frames() -> None:
    windows = clips(image_store([12, 12]), 6, 6)
    protocol = MotionAGFormerProtocol(windows)
    for batch in batches(windows):
        protocol.update(prediction(batch), batch)
    scalars = protocol.compute().scalars
    for end in ("", "_frames"):
        share = scalars[f"acceleration{end}"] / scalars[f"acceleration_corrected{end}"]
        assert share == pytest.approx(4 / 6, rel=1e-9)


def test_corrected_acceleration_is_that_of_motionbert_where_a_clip_repeats_frames() -> None:
    windows = clips(image_store([4, 6, 13]), 6, 3)  # the first is resampled to a clip of 6
    one, other = MotionAGFormerProtocol(windows), MotionBERTProtocol(windows)
    for batch in batches(windows):
        one.update(prediction(batch), batch)
        other.update(prediction(batch), batch)
    ours, theirs = one.compute(), other.compute()
    assert ours.scalars["acceleration_corrected"] == pytest.approx(theirs.scalars["acceleration"], rel=1e-12)
    for name in ("mpjpe", "p_mpjpe", "n_mpjpe", "pck", "auc", "mpjpe_frames"):
        assert ours.scalars[name] == theirs.scalars[name]
    assert ours.tables["joint"] == theirs.tables["joint"]


def test_batching_and_fillers_do_not_change_the_numbers() -> None:
    windows = clips(image_store([9, 20, 5, 7], blocked=(1,)), 6, 2)
    one, many = MotionAGFormerProtocol(windows), MotionAGFormerProtocol(windows)
    for batch in batches(windows):
        one.update(prediction(batch), batch)
    rows = torch.randperm(len(windows), generator=torch.Generator().manual_seed(1)).tolist()
    for part in (rows[:3], [*rows[3:], -1, -1]):
        batch = windows[picks(part)]
        pred = prediction(batch)
        pred[batch["index"] < 0] = torch.nan
        many.update(pred, batch)
    assert many.compute().scalars == pytest.approx(one.compute().scalars, rel=1e-10)


def test_frames_that_do_not_count_leave_no_trace() -> None:
    windows = clips(image_store([6, 6]), 6, 6)
    batch = windows[picks([0, 1])]
    pred, spoilt = prediction(batch), prediction(batch)
    batch["valid"][0, 4:] = False
    spoilt[0, 4:] = torch.nan
    scalars = []
    for values in (pred, spoilt):
        protocol = MotionAGFormerProtocol(windows)
        protocol.update(values, batch)
        scalars.append(protocol.compute().scalars)
    assert scalars[0] == scalars[1]
    assert np.isfinite(list(scalars[1].values())).all()


@pytest.mark.parametrize("frames", [1, 2])
def test_clips_too_short_for_differences_have_none(frames: int) -> None:
    windows = clips(image_store([4, 4]), frames, frames)
    protocol = MotionAGFormerProtocol(windows)
    for batch in batches(windows):
        protocol.update(prediction(batch), batch)
    scalars = protocol.compute().scalars
    assert scalars["acceleration"] == 0
    assert "acceleration_corrected" not in scalars
    assert (scalars["mpjve"] > 0) == (frames == 2)


def test_scalars_are_those_the_class_names() -> None:
    windows = clips(image_store([6, 9]), 6, 3)
    protocol = MotionAGFormerProtocol(windows)
    for batch in batches(windows):
        protocol.update(prediction(batch), batch)
    assert set(protocol.compute().scalars) == set(MotionAGFormerProtocol.scalars)


def test_data_without_2_5d_targets_is_refused_with_an_override() -> None:
    with pytest.raises(ConfigError, match=r"motionagformer protocol .*pose3d_eval.*task.protocol=videopose3d"):
        MotionAGFormerProtocol(Windows.whole(store([4])))
