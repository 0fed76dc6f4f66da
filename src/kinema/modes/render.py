"""mode=render: draw the 2D input beside the predicted pose and the truth, as PNG, GIF and MP4."""

from __future__ import annotations

import dataclasses
import difflib
import json
import logging
import re
from collections.abc import Mapping
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
from kinema.data.readers import detections
from kinema.data.sequences import Sequences
from kinema.data.windows import Windows
from kinema.errors import ConfigError, DataError
from kinema.inference.flip import flip_average
from kinema.inference.lifter import conversion_of, reading_of
from kinema.inference.slide import slide
from kinema.inference.trajectory import separated
from kinema.modes.predict import names
from kinema.modes.train import build
from kinema.viz import clip as clips
from kinema.viz import figures, prepare
from kinema.viz.prepare import Clip
from kinema.viz.video import Video
from kinema.viz.write import write

log = logging.getLogger(__name__)

# Shown where neither the data, the video nor the user says how fast a sequence is.
_FALLBACK_FPS = 25.0
# Pixels of a video are decoded for each that is drawn: the contact sheet shows the part around the person larger.
_SHARP = 2
# Two sizes, lengths or speeds that differ by less are taken for equal.
_ALIKE = 0.03
_SHORT = (
    "%s ends, or cannot be decoded, after %d of %d frames; the pictures end there too (%s draws as many in silence)"
)
_ROOT = Skeleton("root", ("root",), (-1,), (), ())


def run(config: DictConfig) -> None:
    """Draw one sequence of the data set, or of the keypoint file `input=`, as the network of `ckpt` sees it.

    Raises:
        ConfigError: without a checkpoint, for an unknown subject, action or camera, or a file that cannot be written.
        DataError: for a keypoint file, a video or a file of predictions that does not fit.
    """
    with runs.recorded(config):
        options = config.render
        if not config.ckpt:
            raise ConfigError("mode=render draws what a trained network predicts. Use ckpt=path/to/file.")
        if composition.task_name(config) == "action":
            raise ConfigError(
                "mode=render draws lifted poses; clips with the names of their actions are drawn by mode=predict. "
                f"Use mode=predict task=action ckpt={config.ckpt} input=CLIP predict.draw=true."
            )
        if config.input == "-":
            raise ConfigError("mode=render draws files, not a live stream. Use input=keypoints.npz, or mode=predict.")
        if options.output:
            clips.check_format(Path(options.output))
        video = Video(Path(options.video)) if options.video else None
        _, data, task = build(config)
        sequences, first = _sequences(config, data)
        row = choose(sequences, first, options.subject, options.action, options.camera)
        log.info("rendering %s: %d frames", sequences.label(row), sequences.table["length"][row])
        if not config.input:  # a keypoint file was looked at when it was read
            checks.refuse_nonfinite(sequences.select([row]))
        others = {
            title: read_prediction(Path(path), sequences, row) for title, path in (options.predictions or {}).items()
        }
        prediction = predict(task, data, sequences, row)
        if options.export:
            _export(Path(options.export), exported(sequences, row, prediction))
        clip = prepared(sequences, row, prediction, data.spec.preprocess, relative=task.target == "root_relative")
        clip = _with_others(clip, others, sequences, row, data.spec.preprocess, options.show_ground_truth)
        if video is not None:
            _compare(video, clip, sequences.step, sequences.table["width"][row] > 0)
        # A keypoint file's speed is only the data set's.
        own = None if config.input and video is not None and video.fps else clip.fps
        clip = dataclasses.replace(clip, fps=_speed(options.fps, own, video, sequences.step))
        clip = clip.cut(options.skip, options.limit, options.downsample)
        paths = _outputs(options.output, composition.output_dir(config), sequences.label(row))
        pictures = None
        if video is not None:
            largest = round(_SHARP * options.size * figures.DPI)
            pictures = video.pictures(
                skip=options.skip, step=sequences.step, downsample=options.downsample, largest=largest
            )
        drawn = write(paths, clip, data.spec.skeleton2d, data.spec.skeleton, options.size, options.bitrate, pictures)
        if drawn < len(clip):
            log.warning(_SHORT, options.video, drawn, len(clip), f"render.limit={drawn * options.downsample}")
        log.info("wrote %s: %d frames", ", ".join(map(str, paths)), drawn)


def _sequences(config: DictConfig, data: Any) -> tuple[Sequences, np.ndarray]:
    """What can be drawn, and the rows to take the first of where nothing is asked for."""
    if config.input:
        made = detections.read(Path(config.input), conversion_of(config, data), reading_of(config, data))
        return made, np.arange(len(made))
    sequences: Sequences = data.sequences if data.downsample == 1 else data.sequences.thin(step=data.downsample)
    return sequences, data.splits.rows(sequences, "predict")


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
    network, twin = separated(model) if task.target == "root_relative" else (model, None)
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
    known = width > 0 and height > 0
    seen = views["pose2d"]
    level = sequences.space == "image" or "orientation" not in cameras
    clip = Clip(
        # Without a size, keypoints were fitted into the square [-1, 1].
        keypoints=prepare.pixels(seen, preprocess(way), width, height) if known else 500.0 * (seen[..., :2] + 1.0),
        viewport=(int(width), int(height)) if known else (1000, 1000),
        azimuth=prepare.LEVEL_AZIMUTH if level else float(cameras["azimuth"][row]) if "azimuth" in cameras else 70.0,
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


def read_prediction(path: Path, sequences: Sequences, row: int) -> tuple[np.ndarray, bool]:
    """Predictions of another network for a sequence.

    Args:
        path: .npz of mode=predict, or .npy of `render.export`.
        sequences: the data.
        row: of the sequence.

    Returns:
        (T, J, 3) as a network gives it, and whether it is relative to the root.

    Raises:
        DataError: for a file without this sequence, or of another length.
    """
    label, length = sequences.label(row), int(sequences.table["length"][row])
    if not path.is_file():
        raise DataError(f"There is no file {path}. Correct render.predictions.")
    try:
        file = np.load(path, allow_pickle=False)
        if isinstance(file, np.ndarray):
            pose, relative = file, True
        else:
            with file:
                pose = file[names(sequences)[row]]
                relative = json.loads(str(file["meta"]))["origin"].startswith("root")
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be read. Use an .npz of mode=predict or an .npy of render.export.") from error
    except KeyError as error:
        raise DataError(
            f"{path} holds no prediction of {label}. Make it with mode=predict on the same data."
        ) from error
    if pose.ndim != 3 or pose.shape[::2] != (length, 3):
        raise DataError(f"{path}: shape {pose.shape}, ({length}, joints, 3) expected for {label}.")
    return pose, relative


def _with_others(
    clip: Clip,
    others: Mapping[str, tuple[np.ndarray, bool]],
    sequences: Sequences,
    row: int,
    way: str,
    show_truth: bool,
) -> Clip:
    """A clip with panels for other predictions before the truth, which may be left out."""
    (title, pose), *truth = clip.poses.items()
    poses = {title: pose}
    for name, (other, relative) in others.items():
        if other.shape != pose.shape:
            raise DataError(f"render.predictions: {name} has {other.shape[1]} joints, {pose.shape[1]} expected.")
        made = prepared(sequences, row, Prediction(other.astype(pose.dtype)), way, relative=relative)
        poses[str(name)] = made.poses[title]
    return dataclasses.replace(clip, poses={**poses, **(dict(truth) if show_truth else {})})


def _compare(video: Video, clip: Clip, step: int, sized: bool) -> None:
    """Warn where a video does not look like the one that keypoints were found in."""
    if not sized:
        raise ConfigError(
            "Where the keypoints lie in the video is not known without the size of its picture. "
            f"Use predict.width={video.size[0]} predict.height={video.size[1]}, or drop render.video."
        )
    (width, height), (own_width, own_height) = video.size, clip.viewport
    if abs(width * own_height / (height * own_width) - 1) > _ALIKE:
        log.warning(
            "%s is %d x %d pixels, the keypoints belong to %d x %d: it is stretched, and may be the wrong video",
            video.path, width, height, own_width, own_height,
        )  # fmt: skip
    if video.frames and abs(video.frames / step / len(clip) - 1) > _ALIKE and abs(video.frames / step - len(clip)) > 2:
        log.warning(
            "%s has about %d frames, the sequence %d: it may be the wrong video", video.path, video.frames, len(clip)
        )


def _speed(wanted: float | None, own: float | None, video: Video | None, step: int) -> float:
    """Frames per second that are drawn: as asked for, else the sequence's own, else the video's."""
    seen = video.fps / step if video is not None and video.fps else None
    if wanted:
        return float(wanted)
    if own and seen and abs(seen / own - 1) > _ALIKE:
        log.warning("the video has %g frames per second, the sequence %g, which is taken (render.fps)", seen, own)
    if own or seen:
        return float(own or seen or 0)
    log.info("the data does not say its frames per second; %g are assumed (render.fps)", _FALLBACK_FPS)
    return _FALLBACK_FPS


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
