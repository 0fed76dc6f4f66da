"""Pictures: what VideoPose3D hands to its drawing routine, and the array it exports."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from kinema.checkpoints.load import load
from kinema.core.camera import to_pixels
from kinema.core.spec import DataSpec
from kinema.data.transforms import Draws, pose
from kinema.modes.render import choose, exported, predict, prepared
from kinema.tasks.lifting import LiftingTask
from tests.parity.golden import Case, cases
from tests.parity.official import Peer, options_of, read

pytestmark = pytest.mark.parity

_TOLERANCE = 1e-5


def _peer(case: Case, weights: str, cli: str) -> Peer:
    options = options_of(cli)
    name = f"data_2d_{options.dataset}_{options.keypoints}.npz"
    # The repository keeps only the keypoints of the custom videos, in a folder that is no case of its own.
    data = next(folder for folder in map(case.sibling, ("dataset", "videos")) if (folder / name).is_file())
    return Peer(case.path.parent, data, weights, cli)


def _task(peer: Peer, sequences: Any) -> LiftingTask:
    model = load(peer.path, part="model_pos" if peer.without else None, **peer.arguments)
    task = LiftingTask(
        model, torch.optim.SGD, losses={"mpjpe": 1.0}, target="root_relative",
        flip_average=not peer.options.no_tta, mask_invalid=False, chunk=4096, protocol="videopose3d",
        objective="val/mpjpe", objective_mode="min",
    )  # fmt: skip
    task.describe(spec=_spec(sequences).to_dict(), config={})
    return task.eval()


def _spec(sequences: Any) -> DataSpec:
    return DataSpec(
        skeleton=sequences.skeleton, skeleton2d=sequences.skeleton2d, in_channels=2, unit="m", space="camera",
        preprocess="videopose3d", fps=None, has_3d="pose3d" in sequences.arrays, tasks=frozenset(),
    )  # fmt: skip


def _transform(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return pose(batch, Draws(0, 0, torch.zeros(1), torch.zeros(1)), channels=2, confidence=False)


@cases("poseformer", "render")
def test_render(case: Case) -> None:
    for name, config in case.json().items():
        arrays = case.arrays(f"{name}.npz")
        peer = _peer(case, config["weights"], config["cli"])
        options = peer.options
        sequences = read(peer.data, options.dataset, options.keypoints, peer.layout())
        asked = sequences.table["subject"] == options.viz_subject
        if not (asked & (sequences.table["trial"] == options.viz_action)).any():  # recorded in 2D alone
            sequences = read(peer.data, options.dataset, options.keypoints, peer.layout(), "dataset.has_3d=false")
        every = np.arange(len(sequences))
        row = choose(sequences, every, options.viz_subject, options.viz_action, options.viz_camera)
        task = _task(peer, sequences)
        data = SimpleNamespace(spec=_spec(sequences), transform=_transform)
        prediction = predict(task, data, sequences, row)
        with case.check(f"{name} trajectory network"):  # where the place is not known
            used = prediction.path is not None and "pose3d" not in sequences.arrays
            assert used == config.get("trajectory_model_used", False)
        clip = prepared(sequences, row, prediction, "videopose3d", relative=True)
        case.close(f"{name} export", exported(sequences, row, prediction), arrays["export"], atol=_TOLERANCE)
        drawn = {"pose_" + title.replace(" ", "_"): value for title, value in clip.poses.items()}
        if options.no_ground_truth:
            drawn.pop("pose_Ground_truth", None)
        with case.check(f"{name} what is drawn"):
            assert set(arrays.names("pose_")) == set(drawn)
        for key in set(arrays.names("pose_")) & set(drawn):
            case.close(f"{name} {key}", drawn[key], arrays[key], atol=_TOLERANCE)
        case.close(f"{name} keypoints", clip.keypoints, arrays["keypoints_px"], atol=_TOLERANCE)
        case.close(f"{name} azimuth", clip.azimuth, arrays["azim"], atol=_TOLERANCE)
        case.close(f"{name} viewport", clip.viewport, arrays["viewport"])
        case.close(f"{name} fps", -1 if clip.fps is None else clip.fps, arrays["fps"])
        with case.check(f"{name} normalised"):
            view = sequences.sequence(row)["pose2d"]
            again = to_pixels(view.astype(np.float64), *clip.viewport)
            np.testing.assert_allclose(again, arrays["keypoints_px"], atol=_TOLERANCE)
    case.finish()
