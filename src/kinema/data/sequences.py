"""Sequences: named arrays with one row per frame and a small table with one row per sequence, mapped from disk."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kinema.core.random import deterministic_random
from kinema.core.skeleton import Skeleton
from kinema.data import mirror
from kinema.errors import DataError

log = logging.getLogger(__name__)

# Raised when the layout of a stored folder changes: part of every cache key.
LAYOUT = 1

CAMERA_KEYS = ("intrinsics", "orientation", "translation", "azimuth")

# Columns every table has, and what stands there when a reader gives nothing; `trial` is then the action.
_COLUMNS: dict[str, Any] = {
    "subject": "", "action": "", "camera": "0", "split": "", "fps": np.nan, "width": 0, "height": 0,
}  # fmt: skip


class ArrayStore(Mapping[str, np.ndarray]):
    """Named arrays of N rows, in memory or as .npy files that every process maps when it first reads them.

    An array may be stored with its mirrored copy behind it (2N rows, `both`); it still reads as N rows here.
    Pickled, a store on disk is a path.

    Args:
        rows: N.
        arrays: the arrays in memory, or None for files.
        folder: where the files <name>.npy lie, or None for memory.
        names: names of the files.
        doubled: names of the arrays that have 2N rows.
    """

    def __init__(
        self,
        rows: int,
        arrays: dict[str, np.ndarray] | None = None,
        *,
        folder: Path | None = None,
        names: Iterable[str] = (),
        doubled: Iterable[str] = (),
    ) -> None:
        self.rows = rows
        self.folder = folder
        self.doubled = frozenset(doubled)
        self._names = tuple(arrays) if arrays is not None else tuple(names)
        self._opened: dict[str, np.ndarray] = dict(arrays or {})

    def both(self, name: str) -> np.ndarray:
        """The whole stored array: N rows, or 2N where the mirrored copy follows."""
        if name not in self._opened:
            if name not in self._names or self.folder is None:
                raise KeyError(name)
            # A plain view: indexing a np.memmap object costs a Python call for every result.
            self._opened[name] = np.asarray(np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False))
        return self._opened[name]

    def __getitem__(self, name: str) -> np.ndarray:
        return self.both(name)[: self.rows]

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": {} if self.folder is not None else self._opened}


class Sequences:
    """Motion of one data set: frames in arrays, sequences in a table.

    Attributes:
        arrays: (N, ...) each: `pose2d` (N, J2, 2 or 3) in network units, the third channel being the detector's score;
            `pose3d` (N, J, 3), and what a benchmark needs beside. Mapped read-only where they come from disk.
        table: one row per sequence: start, length (int64, in frames of this view), subject, action, trial, camera,
            split (str), fps, width, height, and a reader's own columns.
        cameras: one row per sequence, empty where unknown: intrinsics (S, 9) in normalised units, orientation (S, 4),
            translation (S, 3) metres, azimuth (S,) degrees.
        skeleton, skeleton2d: of `pose3d` and of `pose2d`.
        space: "world", "camera" (metres, root not subtracted) or "image" (normalised image units).
        step: every how many stored frames this view takes one.
        meta: plain values a reader wants to keep.
    """

    def __init__(
        self,
        arrays: ArrayStore,
        table: dict[str, np.ndarray],
        *,
        cameras: dict[str, np.ndarray] | None = None,
        skeleton: Skeleton | None = None,
        skeleton2d: Skeleton | None = None,
        space: str = "camera",
        step: int = 1,
        meta: dict[str, Any] | None = None,
    ) -> None:
        self.arrays = arrays
        self.table = table
        self.cameras = cameras or {}
        self.skeleton = skeleton
        self.skeleton2d = skeleton2d
        self.space = space
        self.step = step
        self.meta = meta or {}

    def __len__(self) -> int:
        return len(self.table["start"])

    @property
    def num_frames(self) -> int:
        """Frames of the sequences in this view, not of the store behind it."""
        return int(self.table["length"].sum())

    def label(self, row: int) -> str:
        """Name of a sequence for messages: subject/trial/camera."""
        parts = (str(self.table[column][row]) for column in ("subject", "trial", "camera"))
        return "/".join(part for part in parts if part)

    def sequence(self, row: int) -> dict[str, np.ndarray]:
        """Views of every array, cut to one sequence."""
        start, length = int(self.table["start"][row]), int(self.table["length"][row])
        cut = slice(start, start + length * self.step, self.step)
        return {name: array[cut] for name, array in self.arrays.items()}

    def select(self, rows: np.ndarray | Sequence[int]) -> Sequences:
        """Return the sequences of a boolean mask or of row numbers, in their order, over the same arrays."""
        picked = np.asarray(rows)
        if picked.size == 0:
            picked = picked.astype(np.int64)
        return self.replace(
            table={name: column[picked] for name, column in self.table.items()},
            cameras={name: column[picked] for name, column in self.cameras.items()},
        )

    def thin(self, *, subset: float = 1.0, step: int = 1) -> Sequences:
        """Return a view with a fraction of every sequence and every `step`-th frame of it.

        The stretch begins where VideoPose3D's --subset puts it: at a frame drawn from a hash of the length.
        """
        if self.step != 1:
            raise ValueError("This view was thinned before.")
        table = dict(self.table)
        length = table["length"]
        if subset < 1:
            kept = (np.rint(length // step * subset) * step).astype(np.int64)
            drawn = [deterministic_random(0, int(n - k) + 1, str(n)) for n, k in zip(length, kept, strict=True)]
            table["start"] = table["start"] + np.asarray(drawn, dtype=np.int64)
            length = kept
        table["length"] = -(-length // step)
        table["fps"] = table["fps"] / step
        return self.replace(table=table, step=step)

    def replace(self, **changes: Any) -> Sequences:
        """Return this view with other attributes."""
        return Sequences(**{**self.__dict__, **changes})

    @classmethod
    def from_arrays(
        cls,
        items: Sequence[Mapping[str, Any]],
        *,
        skeleton: Skeleton | None = None,
        skeleton2d: Skeleton | None = None,
        space: str = "camera",
        meta: dict[str, Any] | None = None,
    ) -> Sequences:
        """Build a store in memory from one mapping per sequence.

        Args:
            items: arrays (their first axis is time and equally long), `intrinsics`, `orientation`, `translation` and
                `azimuth` of its camera, and plain values for the table; the same names in every mapping.
            skeleton, skeleton2d, space, meta: as the attributes.

        Raises:
            DataError: where the arrays of a sequence differ in length.
        """
        if not items:
            raise DataError("A store needs at least one sequence.")
        names = [key for key, value in items[0].items() if key not in CAMERA_KEYS and np.ndim(value) > 0]
        columns = [key for key, value in items[0].items() if key not in CAMERA_KEYS and np.ndim(value) == 0]
        lengths = np.asarray([len(item[names[0]]) for item in items], dtype=np.int64)
        table = {"start": np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64), "length": lengths}
        for column in columns:
            table[column] = np.asarray([item[column] for item in items])
        for column, default in _COLUMNS.items():
            table.setdefault(column, np.full(len(items), default))
        table.setdefault("trial", table["action"])
        made = cls(
            ArrayStore(int(lengths.sum()), {name: np.concatenate([item[name] for item in items]) for name in names}),
            table,
            cameras={
                key: np.stack([np.asarray(item[key]) for item in items]) for key in CAMERA_KEYS if key in items[0]
            },
            skeleton=skeleton,
            skeleton2d=skeleton2d,
            space=space,
            meta=meta,
        )
        for row, item in enumerate(items):
            uneven = {name: len(item[name]) for name in names if len(item[name]) != lengths[row]}
            if uneven:
                raise DataError(f"{made.label(row)}: {names[0]} has {lengths[row]} frames, but {uneven}.")
        return made

    def with_mirror(self) -> Sequences:
        """Return the store with a mirrored copy behind every array that has left and right: memory for speed."""
        arrays = {name: self.arrays.both(name) for name in self.arrays}
        doubled = set(self.arrays.doubled)
        for name in arrays:
            how = mirror.rule(self, name)
            if how is not None and name not in doubled:
                copy = mirror.mirrored(arrays[name], how[0], negate=how[1], axis=1)
                arrays[name] = np.concatenate([arrays[name], copy])
                doubled.add(name)
        return self.replace(arrays=ArrayStore(self.arrays.rows, arrays, doubled=doubled))

    def save(self, folder: str | Path) -> None:
        """Write the store: one .npy per array, table.npz and store.json, each flushed to the disk."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        shapes = {}
        for name in self.arrays:
            array = np.ascontiguousarray(self.arrays.both(name))
            shapes[name] = [list(array.shape), str(array.dtype)]
            with (folder / f"{name}.npy").open("wb") as file:
                np.save(file, array, allow_pickle=False)
                _flush(file)
        columns = {f"table.{name}": column for name, column in self.table.items()}
        columns |= {f"cameras.{name}": column for name, column in self.cameras.items()}
        with (folder / "table.npz").open("wb") as file:
            np.savez(file, **columns)  # type: ignore[arg-type]
            _flush(file)
        head = {
            "layout": LAYOUT,
            "rows": self.arrays.rows,
            "arrays": shapes,
            "doubled": sorted(self.arrays.doubled),
            "skeleton": self.skeleton.to_dict() if self.skeleton else None,
            "skeleton2d": self.skeleton2d.to_dict() if self.skeleton2d else None,
            "space": self.space,
            "step": self.step,
            "meta": self.meta,
        }
        with (folder / "store.json").open("w") as file:
            json.dump(head, file, indent=1)
            _flush(file)

    @classmethod
    def open(cls, folder: str | Path) -> Sequences:
        """Map a saved store.

        Raises:
            DataError: where a file is missing, shorter than it should be, or does not belong to the others.
        """
        folder = Path(folder)
        try:
            head = json.loads((folder / "store.json").read_text())
            with np.load(folder / "table.npz", allow_pickle=False) as file:
                columns = {name: file[name] for name in file.files}
            store = ArrayStore(head["rows"], folder=folder, names=head["arrays"], doubled=head["doubled"])
            for name, (shape, dtype) in head["arrays"].items():
                array = store.both(name)  # fails where the file is shorter than its header says
                if list(array.shape) != shape or str(array.dtype) != dtype:
                    raise ValueError(f"{name}.npy holds {array.dtype} {array.shape}, expected {dtype} {tuple(shape)}")
            table = {name[6:]: column for name, column in columns.items() if name.startswith("table.")}
            ends = table["start"] + table["length"] * head["step"] - (head["step"] - 1)
            if len(ends) and int(ends.max()) > head["rows"]:
                raise ValueError(f"the table ends at frame {int(ends.max())}, the arrays at {head['rows']}")
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise DataError(f"{folder} is no intact store of sequences: {error}.") from error
        return cls(
            store,
            table,
            cameras={name[8:]: column for name, column in columns.items() if name.startswith("cameras.")},
            skeleton=Skeleton.from_dict(head["skeleton"]) if head["skeleton"] else None,
            skeleton2d=Skeleton.from_dict(head["skeleton2d"]) if head["skeleton2d"] else None,
            space=head["space"],
            step=head["step"],
            meta=head["meta"],
        )

    @classmethod
    def cached(cls, cache_dir: str | Path, key: str, build: Callable[[], Sequences]) -> Sequences:
        """Open the store `cache_dir/key`, building it first where it is missing or damaged.

        It is written into a temporary folder and renamed when complete, so a half-written store is never seen; of two
        processes that build at once the first to finish wins and the other opens that result.
        """
        folder = Path(cache_dir) / key
        if folder.is_dir():
            try:
                return cls.open(folder)
            except DataError as error:
                log.warning("%s It is built again.", error)
                _set_aside(folder)
        started = time.monotonic()
        made = build()
        folder.parent.mkdir(parents=True, exist_ok=True)
        _sweep(folder.parent)
        temporary = folder.parent / f".building-{uuid.uuid4().hex}"
        try:
            made.save(temporary)
            _flush_folder(temporary)
            temporary.rename(folder)
        except OSError:
            if not folder.is_dir():  # not merely the other process having been first
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        _flush_folder(folder.parent)
        log.info("Built %s in %.1f s: %d frames in %d sequences.", folder, time.monotonic() - started,
                 made.num_frames, len(made))  # fmt: skip
        return cls.open(folder)


def cache_key(name: str, files: Sequence[Path], cache_dir: str | Path, **parts: Any) -> str:
    """Name of a store: the data set's name and a hash of the raw files' bytes and of everything that shaped it.

    Args:
        name: readable beginning of the key.
        files: raw files; their contents count and their names below the folder that holds them all, not where it lies.
        cache_dir: where the hashes of files seen before are remembered.
        parts: plain values: reader, version, options, preprocess.
    """
    # A clip may be told from another, or labelled, by its folder alone.
    places = [path.absolute() for path in files]
    drives = len({path.anchor for path in places}) > 1
    top = "" if drives or not places else os.path.commonpath([path.parent for path in places])
    names = [path.relative_to(top).as_posix() if top else path.as_posix() for path in places]
    contents = sorted(zip(names, hash_files(files, cache_dir), strict=True))
    text = json.dumps([LAYOUT, contents, parts], sort_keys=True, default=str)
    return f"{name}-{hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}"


def hash_files(files: Sequence[Path], cache_dir: str | Path) -> list[str]:
    """Hash the bytes of files; a file whose size and time did not change since the last call is not read again."""
    memory = Path(cache_dir) / "hashes.json"
    try:
        known = json.loads(memory.read_text())
    except (OSError, ValueError):
        known = {}
    digests, learnt = [], False
    for path in files:
        state = path.stat()
        entry = known.get(str(path.resolve()))
        if entry is None or entry[:2] != [state.st_size, state.st_mtime_ns]:
            entry = [state.st_size, state.st_mtime_ns, _hash_bytes(path)]
            # A file touched this very moment may change again within the clock's grain: not remembered yet.
            if time.time_ns() - state.st_mtime_ns > 2_000_000_000:
                known[str(path.resolve())] = entry
                learnt = True
        digests.append(entry[2])
    if learnt:
        memory.parent.mkdir(parents=True, exist_ok=True)
        temporary = memory.with_name(f".hashes-{uuid.uuid4().hex}")
        temporary.write_text(json.dumps(known))
        temporary.replace(memory)
    return digests


def _hash_bytes(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()


def _flush(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders; the rename is then as durable as the file system makes it
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _set_aside(folder: Path) -> None:
    trash = folder.parent / f".damaged-{uuid.uuid4().hex}"
    try:
        folder.rename(trash)
    except OSError:  # another process was quicker
        return
    shutil.rmtree(trash, ignore_errors=True)


def _sweep(cache_dir: Path) -> None:
    """Remove what killed processes left behind a day ago or earlier."""
    for left in cache_dir.glob(".building-*"):
        with contextlib.suppress(OSError):  # finished by its owner at this moment
            if time.time() - left.stat().st_mtime > 86_400:
                shutil.rmtree(left, ignore_errors=True)
