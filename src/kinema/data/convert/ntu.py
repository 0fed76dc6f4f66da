"""The raw .skeleton files of NTU RGB+D to ntu60_3danno.pkl and ntu120_3danno.pkl, the containers the reader takes."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import pickle
import shutil
import zipfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kinema.data import ntu
from kinema.data.convert.command import tracked
from kinema.data.convert.files import AGAIN, BROKEN, existing_sources, incomplete
from kinema.data.convert.ntu_files import JOINTS, Entry, entries, listed_names, parse, persons, without_skeleton
from kinema.data.ntu import ClipName
from kinema.errors import DataError

# File, its benchmarks, its classes, and clips with a skeleton.
CONTAINERS: tuple[tuple[str, tuple[str, ...], int, int], ...] = (
    ("ntu60_3danno.pkl", ("xsub", "xview"), ntu.CLASSES, 56_578),
    ("ntu120_3danno.pkl", ("xsub", "xset"), 2 * ntu.CLASSES, 113_945),
)

# Files that one task of a process converts, and that one finished part on disk holds.
_PART = 1024
# Raised when the content of a part changes.
_VERSION = 1


@dataclass(frozen=True)
class _Part:
    """Some files to convert, and where the result is kept until all are done.

    Attributes:
        entries: the files.
        path: of the result without suffix: .npy holds the frames of all persons, .json what they are.
    """

    entries: tuple[Entry, ...]
    path: Path

    @property
    def key(self) -> str:
        """Changes with the files."""
        facts = [[entry.name, entry.size, entry.stamp] for entry in self.entries]
        return hashlib.blake2b(json.dumps([_VERSION, facts]).encode(), digest_size=8).hexdigest()

    def finished(self) -> dict[str, Any] | None:
        """What an earlier run found out about exactly these files, None where there was none or it failed."""
        try:
            head: dict[str, Any] = json.loads(self.path.with_suffix(".json").read_text())
        except (OSError, ValueError):
            return None
        return head if head["key"] == self.key and not head["damaged"] else None


def convert(
    sources: Sequence[Path],
    output: Path,
    *,
    missing: Path | None = None,
    workers: int | None = None,
    partial: bool = False,
    overwrite: bool = False,
) -> str:
    """Convert every .skeleton file, then write the containers; a conversion that was stopped goes on where it was.

    Args:
        sources: folders and zip archives with .skeleton files.
        output: folder of the result.
        missing: the owners' list of clips without usable skeleton; None = the list of 535 clips that comes with Kinema.
        workers: processes; None = one for each core.
        partial: accept fewer clips than the data sets have, and leave damaged files out.
        overwrite: replace results that are there.

    Returns:
        A summary for the user.

    Raises:
        DataError: something is missing or damaged, or is no NTU RGB+D.
    """
    existing_sources([*sources, *([missing] if missing else [])])
    left_out = listed_names(missing) if missing else without_skeleton()
    found = entries(sources)
    used = [entry for entry in found if entry.name not in left_out]
    wanted = _containers([entry.name for entry in used], output, partial=partial, overwrite=overwrite)
    folder = output / ".ntu-parts"
    folder.mkdir(parents=True, exist_ok=True)
    parts = [
        _Part(tuple(used[start : start + _PART]), folder / f"{start // _PART:05}")
        for start in range(0, len(used), _PART)
    ]
    heads = _converted(parts, workers or os.cpu_count() or 1)
    damaged = [sentence for head in heads for sentence in head["damaged"]]
    if damaged and not partial:
        raise DataError(
            f"{len(damaged)} files are damaged, the first: {damaged[0]} To go on without them: --partial. "
            "What is done is kept: the next run goes on from here."
        )
    lines = [f"{len(found)} files, {len(found) - len(used)} of them known to have no usable skeleton."]
    lines += [f"left out, damaged: {sentence}" for sentence in damaged[:5]]
    empty = [name for head in heads for name in head["empty"]]
    if empty:
        lines.append(f"left out, no track can be a person: {len(empty)} clips ({', '.join(empty[:5])})")
    for name, benchmarks, classes, _ in wanted:
        lines.append(_write(output / name, parts, heads, benchmarks, classes))
    shutil.rmtree(folder)
    return "\n".join(lines)


def _containers(
    names: Sequence[str], output: Path, *, partial: bool, overwrite: bool
) -> list[tuple[str, tuple[str, ...], int, int]]:
    """Which containers the clips give.

    Raises:
        DataError: a name that is none, a container that is there already, or fewer clips than it should have.
    """
    actions = np.array([ClipName.parse(name).action for name in names])
    small, large = CONTAINERS
    wanted = [small] * bool((actions <= ntu.CLASSES).any()) + [large] * bool((actions > ntu.CLASSES).any())
    for name, _, classes, expected in wanted:
        if (output / name).exists() and not overwrite:
            raise DataError(f"{output / name} is there already. Use --overwrite, or another --output.")
        count = int((actions <= classes).sum())
        if count < expected:
            incomplete(f"{name} takes {expected} clips, {count} are here.", partial=partial)
    return wanted


def _converted(parts: Sequence[_Part], workers: int) -> list[dict[str, Any]]:
    """Convert what earlier runs did not; returns what each part holds."""
    heads = {part.path: part.finished() for part in parts}
    left = [part for part in parts if heads[part.path] is None]
    if min(workers, len(left)) <= 1:
        for part in tracked(left, "skeletons", len(left)):
            heads[part.path] = _convert_part(part)
    else:
        # A fresh process: one that is forked could inherit a lock of the progress bar.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(workers, len(left)), mp_context=context) as pool:
            tasks = {pool.submit(_convert_part, part): part for part in left}
            for task in tracked(as_completed(tasks), "skeletons", len(left)):
                heads[tasks[task].path] = task.result()
    return [head for part in parts if (head := heads[part.path]) is not None]


def _convert_part(part: _Part) -> dict[str, Any]:
    """Read the files of a part and write its frames; what it holds is written last, so a part is whole or not there."""
    clips: dict[str, tuple[int, int]] = {}
    frames: list[np.ndarray] = []
    damaged: list[str] = []
    empty: list[str] = []
    for entry in part.entries:
        try:
            chosen = persons(parse(entry.read(), entry.name))
        except DataError as error:
            damaged.append(str(error))
        except (zipfile.BadZipFile, *BROKEN) as error:
            damaged.append(f"{entry.name} cannot be read ({error}). {AGAIN}")
        else:
            if chosen is None:
                empty.append(entry.name)
            else:
                clips[entry.name] = (chosen.shape[0], chosen.shape[1])
                frames.append(chosen.reshape(-1, JOINTS, 3).astype(np.float16))
    head = {"key": part.key, "clips": clips, "empty": empty, "damaged": damaged}
    part.path.with_suffix(".json").unlink(missing_ok=True)
    np.save(part.path.with_suffix(".npy"), np.concatenate(frames or [np.empty((0, JOINTS, 3), np.float16)]))
    temporary = part.path.with_suffix(".tmp")
    temporary.write_text(json.dumps(head))
    temporary.replace(part.path.with_suffix(".json"))
    return head


def _write(
    path: Path, parts: Sequence[_Part], heads: Sequence[dict[str, Any]], benchmarks: Sequence[str], classes: int
) -> str:
    """Write one container from the finished parts; returns a line for the user."""
    annotations = []
    for part, head in zip(parts, heads, strict=True):
        # Mapped: the memory holds one clip at a time. A plain view, which is pickled as an array.
        points = np.asarray(np.load(part.path.with_suffix(".npy"), mmap_mode="r"))
        start = 0
        for name, (count, length) in head["clips"].items():
            keypoint = points[start : start + count * length].reshape(count, length, JOINTS, 3)
            start += count * length
            label = ClipName.parse(name).label
            if label < classes:
                annotations.append({"frame_dir": name, "label": label, "keypoint": keypoint, "total_frames": length})
    splits = ntu.published_splits([each["frame_dir"] for each in annotations], benchmarks)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        pickler = pickle.Pickler(file, protocol=4)
        pickler.fast = True  # no memory of what was written: it would keep the bytes of every array
        pickler.dump({"split": splits, "annotations": annotations})
    temporary.replace(path)
    counts = ", ".join(f"{split} {len(members)}" for split, members in splits.items())
    return f"wrote {path}: {len(annotations)} clips ({counts})"
