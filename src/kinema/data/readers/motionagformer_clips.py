"""Reader of the clips that MotionAGFormer's preprocessing leaves: `H36M-<n>/{train,test}/%08d.pkl`, one per file.

A clip holds `data_input` (n, 17, 3) and `data_label` (n, 17, 3) in network units, and nothing else. What evaluation
needs (millimetres, image sizes, actions) stands in the pickle the clips were cut from: with it the test clips are cut
anew, which gives the same ones. Every training clip becomes a sequence of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from kinema.core.skeleton import skeleton
from kinema.data import raw
from kinema.data.readers import motionbert_h36m
from kinema.data.safe_pickle import load_pickle
from kinema.data.sequences import ArrayStore, Sequences
from kinema.errors import DataError

# Raised when the result of `read` changes: part of the cache's key.
VERSION = 1

_AGAIN = "Cut the clips again, or read the pickle they come from: dataset=h36m_sh."


@dataclass(frozen=True)
class Options:
    """Options of this reader, as in `dataset.reader_options`.

    Attributes:
        clips: name of the folder that holds `train` and `test`.
        file: name of the pickle the clips were cut from, for evaluation; None = the test clips as they are, which
            serve for prediction only.
        skeleton: of the joints.
        preprocess: way from pixels to network units that the clips went.
        fps: frames per second.
        source: the sentence that says where the files come from.
    """

    clips: str = "H36M-243"
    file: str | None = "h36m_sh_conf_cam_source_final.pkl"
    skeleton: str = "h36m17"
    preprocess: str = "motionbert"
    fps: float = 50
    source: str = ""

    @classmethod
    def parse(cls, options: Mapping[str, Any]) -> Options:
        """Check names and values."""
        raw.known_options("motionagformer_clips", options, {entry.name: entry for entry in fields(cls)})
        return cls(**options)


def describe() -> str:
    """One paragraph about the format."""
    return (
        "Human3.6M clips as MotionAGFormer's preprocessing leaves them: train/ and test/ of one pickle per clip, "
        "data_input (x, y, score) and data_label (x, y, depth) in network units; judged by the pickle they are from."
    )


def files(root: Path, **options: Any) -> list[Path]:
    """Raw files that `read` opens, the training clips first.

    Raises:
        DataError: the folder has no training clips, or the pickle is not there.
    """
    chosen = Options.parse(options)
    clips = _clips(Path(root), chosen, "train")
    if chosen.file is None:
        return [*clips, *_clips(Path(root), chosen, "test")]
    return [*clips, *motionbert_h36m.files(root, **_of_pickle(chosen))]


def read(root: Path, **options: Any) -> Sequences:
    """Read the training clips, and the test videos or clips.

    Args:
        root: the data set's folder.
        options: see `Options`.

    Returns:
        A store in image space with `pose2d` (N, 17, 3) and `pose3d` (N, 17, 3) as the clips have them and, with the
        pickle, the test videos and what `motionbert_h36m.read` gives beside these (NaN in the training rows).
    """
    chosen = Options.parse(options)
    train = _store(_clips(Path(root), chosen, "train"), "train", chosen)
    if chosen.file is None:
        return _joined(train, _store(_clips(Path(root), chosen, "test"), "test", chosen))
    test = motionbert_h36m.read(root, **_of_pickle(chosen))
    return _joined(train, _rows_of(test, "test"))


def _of_pickle(options: Options) -> dict[str, Any]:
    return {entry.name: getattr(options, entry.name) for entry in fields(motionbert_h36m.Options)}


def _clips(root: Path, options: Options, split: str) -> list[Path]:
    """Files of a split in the order of their numbers; the folder may also lie beside the data set's."""
    for folder in (root, root.parent):
        found = sorted((folder / options.clips / split).glob("*.pkl"))
        if found:
            return found
    raise DataError(
        f"{options.clips}/{split}/*.pkl not found in {root} (nor in {root.parent}). {options.source} "
        "If it is elsewhere: paths.data_dir=/where/it/is; for other clips: dataset.reader_options.clips=H36M-81."
    )


def _store(paths: list[Path], split: str, options: Options) -> Sequences:
    """One sequence per clip."""
    frame = skeleton(options.skeleton)
    arrays: dict[str, np.ndarray] = {}
    for number, path in enumerate(paths):
        clip = load_pickle(path)
        for name, key in (("pose2d", "data_input"), ("pose3d", "data_label")):
            if not isinstance(clip, dict) or not isinstance(clip.get(key), np.ndarray):
                raise DataError(f"{path} holds no {key}. {_AGAIN}")
            value = clip[key]
            if value.ndim != 3 or value.shape[1:] != (len(frame), 3):
                raise DataError(f"{path}, {key}: shape {value.shape}, expected (frames, {len(frame)}, 3). {_AGAIN}")
            if name not in arrays:
                arrays[name] = np.empty((len(paths), *value.shape), np.float32)
            if value.shape != arrays[name].shape[1:]:
                raise DataError(f"{path}, {key}: {len(value)} frames, but {arrays[name].shape[1]} before. {_AGAIN}")
            arrays[name][number] = value
    count, length = len(paths), arrays["pose2d"].shape[1]
    if arrays["pose3d"].shape[1] != length:
        raise DataError(
            f"{paths[0]}: {length} frames of data_input, {arrays['pose3d'].shape[1]} of data_label. {_AGAIN}"
        )
    names = np.asarray([f"clip_{path.stem}" for path in paths])
    table = {
        "start": np.arange(count) * length,
        "length": np.full(count, length, np.int64),
        "subject": np.full(count, ""),
        "action": np.full(count, ""),
        "trial": names,
        "camera": np.full(count, ""),
        "source": names,
        "split": np.full(count, split),
        "fps": np.full(count, float(options.fps)),
        "width": np.zeros(count, np.int64),
        "height": np.zeros(count, np.int64),
    }
    return Sequences(
        ArrayStore(count * length, {name: array.reshape(-1, *array.shape[2:]) for name, array in arrays.items()}),
        table,
        skeleton=frame,
        skeleton2d=frame,
        space="image",
        meta={"actions": [], "preprocess": options.preprocess},
    )


def _rows_of(sequences: Sequences, split: str) -> Sequences:
    """One split of a store whose sequences stand one after another, without the frames of the other one."""
    part = sequences.select(sequences.table["split"] == split)
    if not len(part):
        raise DataError(f"The pickle has no {split} videos. Use the file of the MotionBERT authors.")
    first, count = int(part.table["start"][0]), part.num_frames
    arrays = {name: array[first : first + count] for name, array in part.arrays.items()}
    table = {**part.table, "start": part.table["start"] - first}
    return part.replace(arrays=ArrayStore(count, arrays), table=table)


def _joined(train: Sequences, test: Sequences) -> Sequences:
    """One store of both; what only the test rows have is NaN, or -1, in the training rows."""
    frames = train.arrays.rows
    arrays = {}
    for name, array in test.arrays.items():
        missing = np.nan if array.dtype.kind == "f" else -1
        before = (
            train.arrays[name] if name in train.arrays else np.full((frames, *array.shape[1:]), missing, array.dtype)
        )
        arrays[name] = np.concatenate([before, array])
    table = {name: np.concatenate([train.table[name], test.table[name]]) for name in test.table}
    table["start"][len(train) :] += frames
    return test.replace(arrays=ArrayStore(frames + test.arrays.rows, arrays), table=table)
