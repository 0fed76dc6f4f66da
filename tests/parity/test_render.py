"""Pictures: what VideoPose3D hands to its drawing routine, and the array it exports."""

from __future__ import annotations

import argparse
import shlex
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from kinema.checkpoints.load import load
from kinema.core.camera import to_pixels
from kinema.core.skeleton import skeleton
from kinema.core.spec import DataSpec
from kinema.data.readers import videopose3d
from kinema.data.safe_pickle import load_npz
from kinema.data.transforms import Draws, pose
from kinema.modes.render import choose, exported, predict, prepared
from kinema.tasks.lifting import LiftingTask
from tests.parity.golden import Case, cases

pytestmark = pytest.mark.parity

_TOLERANCE = 1e-5


def _options(cli: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    for flag, default in (("-arc", None), ("-ch", None), ("-d", "h36m"), ("-k", None), ("--viz-subject", None),
                          ("--viz-action", None), ("--viz-camera", "0")):  # fmt: skip
        parser.add_argument(flag, default=default, dest=flag.lstrip("-").replace("-", "_"))
    words: list[str] = []
    for word in shlex.split(cli):
        # Names of actions ("Walking 1") stand unquoted in the recorded command line.
        if words and not word.startswith("-") and len(words) > 1 and not words[-1].startswith("-"):
            words[-1] += f" {word}"
        else:
            words.append(word)
    return parser.parse_args(words)


def _sequences(case: Case, options: argparse.Namespace) -> Any:
    custom = options.d == "custom"
    name = f"data_2d_{options.d}_{options.k}.npz"
    # The repository keeps only the keypoints of the custom videos, in a folder that is no case of its own.
    root = next(folder for folder in map(case.sibling, ("dataset", "videos")) if (folder / name).is_file())
    stored = load_npz(root / name, ["metadata"])
    layout = stored["metadata"].get("layout_name", "h36m")
    return videopose3d.read(
        root,
        dataset=options.d,
        keypoints=options.k,
        cameras=options.d,
        skeleton="h36m17",
        skeleton2d={"h36m": "h36m17", "coco": "coco17"}[layout],
        source_skeleton=None if custom else "h36m32",
        has_3d=not custom,
    )


def _task(weights: str, case: Case, sequences: Any) -> LiftingTask:
    folder, _, without = weights.partition(" without ")
    model = load(case.sibling(folder) / "ckpt.bin", part="model_pos" if without == "model_traj" else None)
    task = LiftingTask(
        model, torch.optim.SGD, losses={"mpjpe": 1.0}, target="root_relative", flip_average=True, mask_invalid=False,
        chunk=4096, protocol="videopose3d", objective="val/mpjpe", objective_mode="min",
    )  # fmt: skip
    task.describe(spec=_spec(sequences).to_dict(), config={})
    return task.eval()


def _spec(sequences: Any) -> DataSpec:
    return DataSpec(
        skeleton=skeleton("h36m17"), skeleton2d=sequences.skeleton2d, in_channels=2, unit="m", space="camera",
        preprocess="videopose3d", fps=None, has_3d="pose3d" in sequences.arrays, tasks=frozenset(),
    )  # fmt: skip


def _transform(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return pose(batch, Draws(0, 0, torch.zeros(1), torch.zeros(1)), channels=2, confidence=False)


@cases("poseformer", "render")
def test_render(case: Case) -> None:
    for name, config in case.json().items():
        arrays = case.arrays(f"{name}.npz")
        options = _options(config["cli"])
        sequences = _sequences(case, options)
        row = choose(sequences, np.arange(len(sequences)), options.viz_subject, options.viz_action, options.viz_camera)
        task = _task(config["weights"], case, sequences)
        data = SimpleNamespace(spec=_spec(sequences), transform=_transform)
        prediction = predict(task, data, sequences, row)
        if name != "h36m":
            assert (prediction.path is not None) == config.get("trajectory_model_used", False)
        clip = prepared(sequences, row, prediction, "videopose3d", relative=True)
        case.close(f"{name} export", exported(sequences, row, prediction), arrays["export"], atol=_TOLERANCE)
        drawn = {"pose_" + title.replace(" ", "_"): value for title, value in clip.poses.items()}
        assert set(arrays.names("pose_")) == set(drawn)
        for key, value in drawn.items():
            case.close(f"{name} {key}", value, arrays[key], atol=_TOLERANCE)
        case.close(f"{name} keypoints", clip.keypoints, arrays["keypoints_px"], atol=_TOLERANCE)
        case.close(f"{name} azimuth", clip.azimuth, arrays["azim"], atol=_TOLERANCE)
        case.close(f"{name} viewport", clip.viewport, arrays["viewport"])
        case.close(f"{name} fps", -1 if clip.fps is None else clip.fps, arrays["fps"])
        with case.check(f"{name} normalised"):
            view = sequences.sequence(row)["pose2d"]
            again = to_pixels(view.astype(np.float64), *clip.viewport)
            np.testing.assert_allclose(again, arrays["keypoints_px"], atol=_TOLERANCE)
    case.finish()
