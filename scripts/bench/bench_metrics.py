"""Procrustes on many frames, and both evaluations from predictions to the report."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kinema.core import pose_errors
from kinema.core.align import root_relative
from kinema.data.windows import Windows
from kinema.protocols.motionbert import MotionBERTProtocol
from kinema.protocols.videopose3d import VideoPose3DProtocol
from scripts.bench import reference_metrics as reference
from scripts.bench.measure import Pair
from scripts.bench.rows import bench
from scripts.bench.stores import BODY, as_after_a_network, batches, camera_space, distance, disturbed, image_space


def build_p_mpjpe(*, frames: int) -> Pair:
    """Noisy poses, of which some are mirrored; the hard cases are near-zero, flat, equal and single poses."""
    generator = torch.Generator().manual_seed(0)
    target = 0.3 * torch.randn(frames, 17, 3, generator=generator, dtype=torch.float64)
    pred = disturbed(target, scale=0.05)
    flat = pred * torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    hard = [
        (target * torch.tensor([-1.0, 1, 1], dtype=torch.float64), target),  # all mirrored
        (target + 1e-9 * torch.randn(target.shape, generator=generator, dtype=torch.float64), target),
        (1e-6 * pred, target),
        (pred + 1000, target),
        (flat, target),
        (target.clone(), target),
        (pred[:1], target[:1]),
    ]

    def plain(x: Tensor, y: Tensor) -> Tensor:
        return torch.from_numpy(reference.p_mpjpe_per_frame(x.numpy(), y.numpy()))

    def difference() -> float:
        return distance(*((pose_errors.p_mpjpe(x, y), plain(x, y)) for x, y in [(pred, target), *hard]))

    arrays = pred.numpy(), target.numpy()
    return Pair(lambda: reference.p_mpjpe_per_frame(*arrays), lambda: pose_errors.p_mpjpe(pred, target), difference)


bench(
    build_p_mpjpe,
    "p_mpjpe",
    operation="P-MPJPE, 10 000 frames, float64",
    reference="published function per frame",
    sizes={"frames": 10_000},
    small={"frames": 300},
    bound=20,
    goal=26,
    tolerance=1e-9,
    rounds=7,
)


def build_evaluation_videopose3d(*, sequences: int, length: int) -> Pair:
    """Predictions of whole sequences, one after another, to the report. The last sequence is short, the first frames
    of each are mirrored."""
    store = camera_space([length] * (sequences - 1) + [length // 2])
    windows = Windows.whole(store, keys=("pose3d",))
    rows = batches(windows, 1)
    targets = [root_relative(row["pose3d"], BODY) for row in rows]
    predictions = [disturbed(target) for target in targets]
    pairs, actions = list(zip(predictions, targets, strict=True)), [str(a) for a in store.table["action"]]
    protocol = VideoPose3DProtocol(windows)
    as_after_a_network()

    def ours() -> dict[str, float]:
        protocol.reset()
        for prediction, row in zip(predictions, rows, strict=True):
            protocol.update(prediction, row)
        return protocol.compute().scalars

    def difference() -> float:
        return _scalars_differ(ours(), reference.videopose3d(pairs, actions))

    return Pair(lambda: reference.videopose3d(pairs, actions), ours, difference)


bench(
    build_evaluation_videopose3d,
    "evaluation_videopose3d",
    operation="VideoPose3D evaluation, 40 sequences of 250 frames",
    reference="per sequence, each number fetched",
    sizes={"sequences": 40, "length": 250},
    small={"sequences": 5, "length": 9},
    bound=1.5,
    goal=1.8,
    tolerance=1e-6,
    rounds=9,
)


def build_evaluation_motionbert(*, sequences: int, clips: int, frames: int) -> Pair:
    """Predictions of clips in batches of 32 to the report. One sequence is shorter than a clip, one is blocked."""
    stride = frames // 3
    whole = frames + (clips - 1) * stride
    store = image_space([whole, frames - 2] + [whole] * (sequences - 1))
    store.table["trial"] = np.array([f"video {number}" for number in range(len(store))])
    keys = ("pose2d", "pose3d", "pose3d_eval", "factor", "size")
    windows = Windows.strided(store, frames, stride, random=np.random.RandomState(0), keys=keys)
    rows = batches(windows, 32)
    predictions = [0.5 * disturbed(row["pose3d"], scale=0.05) for row in rows]
    arrays = [
        {
            "prediction": prediction[item].numpy(),
            "sequence": windows.table[int(row["index"][item]), 0],
            **{key: row[key][item].numpy() for key in ("pose3d_eval", "factor", "size", "frames")},
        }
        for prediction, row in zip(predictions, rows, strict=True)
        for item in range(len(prediction))
    ]
    names = list(dict.fromkeys(store.table["action"].tolist()))
    numbers = np.array([names.index(action) for action in store.table["action"]])
    actions = np.repeat(numbers, store.table["length"])
    blocked = store.table["trial"] == "video 2"
    protocol = MotionBERTProtocol(windows, blocked=["video 2"])
    as_after_a_network()

    def ours() -> dict[str, float]:
        protocol.reset()
        for prediction, row in zip(predictions, rows, strict=True):
            protocol.update(prediction, row)
        return protocol.compute().scalars

    def plain() -> dict[str, float]:
        return reference.motionbert(arrays, actions, blocked, BODY)

    return Pair(plain, ours, lambda: _scalars_differ(ours(), plain()))


bench(
    build_evaluation_motionbert,
    "evaluation_motionbert",
    operation="MotionBERT evaluation, 120 overlapping clips of 243 frames",
    reference="per clip, scattered into frame arrays",
    sizes={"sequences": 6, "clips": 20, "frames": 243},
    small={"sequences": 3, "clips": 3, "frames": 9},
    bound=1.3,
    goal=1.5,
    tolerance=1e-6,
)


def _scalars_differ(found: dict[str, float], expected: dict[str, float]) -> float:
    """Largest relative difference of the numbers that both report."""
    return max(abs(found[name] - value) / abs(value) for name, value in expected.items())
