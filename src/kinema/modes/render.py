"""mode=render: draw the 2D input beside the predicted pose and the truth, as PNG, GIF and MP4."""

from __future__ import annotations

import dataclasses
import difflib
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from kinema import composition, runs
from kinema.core.preprocess import preprocess
from kinema.core.skeleton import Skeleton
from kinema.data import checks
from kinema.data.sequences import Sequences
from kinema.data.windows import Windows
from kinema.errors import ConfigError
from kinema.inference.flip import flip_average
from kinema.inference.slide import slide
from kinema.inference.trajectory import separated
from kinema.modes.train import build
from kinema.viz import clip as clips
from kinema.viz import figures, prepare
from kinema.viz.prepare import Clip

log = logging.getLogger(__name__)

# Shown where neither the data, the video nor the user says how fast a sequence is.
_FALLBACK_FPS = 25.0
# GIFs of more frames per second are large and shown too slowly by many programs: frames are left out, the speed stays.
_GIF_FPS = 25.0
_ROOT = Skeleton("root", ("root",), (-1,), (), ())


def run(config: DictConfig) -> None:
    """Draw one sequence of the data set as the network of `ckpt` sees it.

    Raises:
        ConfigError: without a checkpoint, for an unknown subject, action or camera, or a file that cannot be written.
    """
    with runs.recorded(config):
        options = config.render
        if not config.ckpt:
            raise ConfigError("mode=render draws what a trained network predicts. Use ckpt=path/to/file.")
        if options.output:
            clips.check_format(Path(options.output))
        _, data, task = build(config)
        sequences: Sequences = data.sequences if data.downsample == 1 else data.sequences.thin(step=data.downsample)
        row = choose(sequences, data.splits.rows(sequences, "predict"), options.subject, options.action, options.camera)
        log.info("rendering %s: %d frames", sequences.label(row), sequences.table["length"][row])
        video = _Video(Path(options.video)) if options.video else None
        checks.refuse_nonfinite(sequences.select([row]))
        prediction = predict(task, data, sequences, row)
        if options.export:
            _export(Path(options.export), exported(sequences, row, prediction))
        clip = prepared(sequences, row, prediction, data.spec.preprocess, relative=task.target == "root_relative")
        if not options.show_ground_truth:
            clip = dataclasses.replace(clip, poses=dict(list(clip.poses.items())[:1]))
        fps = options.fps or clip.fps or (video.fps if video else None)
        if fps is None:
            log.info("the data does not say its frames per second; %g are assumed (render.fps)", _FALLBACK_FPS)
        clip = dataclasses.replace(clip, fps=fps or _FALLBACK_FPS).cut(options.skip, options.limit, options.downsample)
        folder = composition.output_dir(config)
        for path in _outputs(options.output, folder, sequences.label(row)):
            pictures = video.pictures(options.skip, options.downsample) if video else None
            draw(path, clip, data.spec.skeleton2d, data.spec.skeleton, options.size, options.bitrate, pictures)
            log.info("wrote %s", path)


def choose(sequences: Sequences, first: np.ndarray, subject: str | None, action: str | None, camera: int | str) -> int:
    """Row of the sequence asked for.

    Args:
        sequences: all there are.
        first: rows to prefer where nothing is asked for (the test split).
        subject: None = the first.
        action: full name such as "Walking 1", else a base name whose first take is meant; None = the first.
        camera: number.

    Raises:
        ConfigError: naming the nearest match and what there is.
    """
    table = sequences.table
    if subject is None:
        rows = first if len(first) else np.arange(len(sequences))
        rows = rows[table["subject"][rows] == table["subject"][rows][0]]
    else:
        rows = np.flatnonzero(_matching("subject", str(subject), table["subject"]))
    if action is not None:
        base = not (table["trial"][rows] == str(action)).any() and (table["action"][rows] == str(action)).any()
        rows = rows[_matching("action", str(action), table["action" if base else "trial"][rows])]
    rows = rows[table["trial"][rows] == table["trial"][rows][0]]
    rows = rows[_matching("camera", str(camera), table["camera"][rows])]
    return int(rows[0])


def _matching(what: str, wanted: str, column: np.ndarray) -> np.ndarray:
    found = column == wanted
    if found.any():
        return np.asarray(found)
    known = list(dict.fromkeys(str(value) for value in column))
    near = difflib.get_close_matches(wanted, known, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    shown = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
    raise ConfigError(f"render.{what}: there is no {what} {wanted!r} here. {hint}There is: {shown}.")


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a network says of one sequence.

    Attributes:
        pose: (T, J, 3) in the unit of the targets; where they are root-relative, the root joint as it was predicted.
        path: (T, 1, 3) metres, the root in camera space, from a network with a trajectory; else None.
    """

    pose: np.ndarray
    path: np.ndarray | None = None


def predict(task: Any, data: Any, sequences: Sequences, row: int) -> Prediction:
    """Predict a whole sequence, with flip averaging where the task has it; a nested trajectory network beside it."""
    signature = task.model.signature
    windows = Windows.whole(sequences.select([row]), context=signature.context, keys=("pose2d",))
    batch = data.transform(windows[torch.zeros(1, 3, dtype=torch.int64)])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = task.model.to(device).eval()
    batch = {key: value.to(device) for key, value in batch.items()}
    network, twin = separated(model)
    task.model = network
    try:
        with torch.inference_mode():
            pose = task.predict(batch)
            path = None if twin is None else _path(twin, batch["pose"], data.spec.skeleton2d, task)
    finally:
        task.model = model
    return Prediction(pose[0].cpu().numpy(), None if path is None else path[0].cpu().numpy())


def _path(twin: nn.Module, pose: Tensor, skeleton2d: Skeleton, task: Any) -> Tensor:
    def run(seen: Tensor) -> Tensor:
        return slide(twin, seen, chunk=task.chunk)

    return flip_average(run, pose, skeleton2d, _ROOT) if task.flip_average else run(pose)


def exported(sequences: Sequences, row: int, prediction: Prediction) -> np.ndarray:
    """The array of `render.export`: (T, J, 3) float32, camera space, root-relative.

    Published behaviour (--viz-export): with a trajectory network and without truth the trajectory is added.
    """
    pose = prediction.pose
    if prediction.path is not None and "pose3d" not in sequences.arrays:
        pose = pose + prediction.path
    return pose.astype(np.float32)


def prepared(sequences: Sequences, row: int, prediction: Prediction, way: str, *, relative: bool) -> Clip:
    """Everything that is drawn of one sequence: a function of arrays alone.

    Args:
        sequences: the data.
        row: of the sequence.
        prediction: of the whole sequence.
        way: name of the preprocessing that made `pose2d`.
        relative: whether predictions are relative to the root.
    """
    views, table, cameras = sequences.sequence(row), sequences.table, sequences.cameras
    width, height, fps = (float(table[key][row]) for key in ("width", "height", "fps"))
    clip = Clip(
        keypoints=prepare.pixels(views["pose2d"], preprocess(way), width, height),
        viewport=(int(width), int(height)),
        azimuth=float(cameras["azimuth"][row]) if "azimuth" in cameras else 70.0,
        fps=fps if np.isfinite(fps) and fps > 0 else None,
    )
    truth, pose = views.get("pose3d"), exported(sequences, row, prediction)
    skeleton = sequences.skeleton
    root = skeleton.root if skeleton is not None else 0
    if sequences.space == "image":
        return dataclasses.replace(clip, poses=_in_image(pose, truth, views["pose2d"], root, relative))
    orientation = cameras["orientation"][row] if "orientation" in cameras else None
    if truth is None or orientation is None:
        poses = prepare.unlabelled(pose, orientation)
        if truth is not None:
            poses |= {"Ground truth": prepare.on_floor(prepare.upright(truth - truth[:, root : root + 1]))}
        return dataclasses.replace(clip, poses=poses)
    placed = pose + truth[:, root : root + 1] if relative else pose
    return dataclasses.replace(clip, poses=prepare.in_world(placed, truth, orientation, cameras["translation"][row]))


def _in_image(
    pose: np.ndarray, truth: np.ndarray | None, pose2d: np.ndarray, root: int, relative: bool
) -> dict[str, np.ndarray]:
    """Poses of a network that predicts in image units, upright and in a person's size."""
    if relative:
        # Without truth the root is where it was seen, at an unknown depth.
        seen = np.concatenate((pose2d[:, root : root + 1, :2], np.zeros_like(pose2d[:, :1, :1])), -1)
        pose = pose + (seen if truth is None else truth[:, root : root + 1])
    poses = {"Reconstruction": pose}
    if truth is not None:
        poses["Ground truth"] = truth
    return prepare.from_image(poses)


def draw(
    path: Path,
    clip: Clip,
    skeleton2d: Skeleton,
    skeleton: Skeleton,
    size: float = 4.0,
    bitrate: int = 3000,
    pictures: Iterator[np.ndarray] | None = None,
) -> None:
    """Write a clip as a contact sheet (.png) or as a moving picture (.gif, .mp4), by the ending of the path."""
    if path.suffix.lower() == ".png":
        path.parent.mkdir(parents=True, exist_ok=True)
        figures.contact_sheet(clip, skeleton2d, skeleton).savefig(path)
        return
    assert clip.fps is not None
    every = max(1, round(clip.fps / _GIF_FPS)) if path.suffix.lower() == ".gif" else 1
    scene = figures.Scene(clip, skeleton2d, skeleton, size)
    colours = 255 if pictures is not None else 32
    clips.write_clip(path, scene.frames(clip, pictures, every), clip.fps / every, bitrate=bitrate, colours=colours)


class _Video:
    """The recording behind the keypoints."""

    def __init__(self, path: Path) -> None:
        self.path = path
        meta, opened = clips.read_video(path)
        opened.close()
        self.fps: float = meta["fps"]

    def pictures(self, skip: int, downsample: int) -> Iterator[np.ndarray]:
        """Frames without the first `skip`, the mean of every `downsample`; decoded as they are asked for."""
        _, frames = clips.read_video(self.path)
        for _ in range(skip):
            next(frames, None)
        while True:
            group = [frame for _, frame in zip(range(downsample), frames, strict=False)]
            if not group:
                return
            yield group[0] if downsample == 1 else np.mean(group, axis=0).astype(np.uint8)


def _outputs(output: str | None, folder: Path, label: str) -> list[Path]:
    if output:
        return [Path(output)]
    stem = re.sub(r"[^\w.-]+", "_", label)
    endings = [".png", ".gif", ".mp4"]
    if clips.ffmpeg() is None:
        log.info("no ffmpeg was found, so no .mp4 is written (pip install 'kinema[video]' brings one)")
        endings.remove(".mp4")
    return [folder / f"{stem}{ending}" for ending in endings]


def _export(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:  # np.save would add .npy to another ending
        np.save(file, array)
    log.info("wrote %s: %s", path, array.shape)
