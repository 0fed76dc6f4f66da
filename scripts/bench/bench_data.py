"""The data layer: clips, windows with flips, and the loader."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from kinema.data import orders
from kinema.data.sequences import Sequences
from kinema.data.transforms import Draws, resolve
from kinema.data.windows import Windows
from scripts.bench import reference_data as reference
from scripts.bench.measure import REPOSITORY, Pair
from scripts.bench.rows import bench
from scripts.bench.stores import BODY, camera_space, distance

_CLIPS = {"sequences": 20, "clips": 100, "frames": 243, "batch": 32}
_SMALL_CLIPS = {"sequences": 2, "clips": 5, "frames": 9, "batch": 4}
Batches = Callable[[], Iterator[tuple[Tensor, Tensor]]]


class Folder:
    """Clips on disk in both forms: one pickle per clip, and one mapped store. Beside the results, not in a tmpfs."""

    def __init__(self, sequences: int, clips: int, frames: int) -> None:
        parent = REPOSITORY / "bench" / "results"
        parent.mkdir(parents=True, exist_ok=True)
        self.path = Path(tempfile.mkdtemp(prefix=".clips-", dir=parent))
        self.frames, self.stride = frames, frames // 3
        made = camera_space([frames + (clips - 1) * self.stride] * sequences, channels=3)
        made.save(self.path / "store")
        (self.path / "clips").mkdir()
        windows = Windows.tiled(made, frames, self.stride)
        arrays = [made.sequence(row) for row in range(len(made))]
        cut = (
            (arrays[row]["pose2d"][start : start + frames].copy(), arrays[row]["pose3d"][start : start + frames].copy())
            for row, start in windows.table[:, :2]
        )
        self.pickles = reference.write_clips(self.path / "clips", cut)

    def open(self) -> Sequences:
        return Sequences.open(self.path / "store")

    def drop_cache(self) -> None:
        """Let the system forget the files. Needs no rights, but only unmapped, written pages go."""
        gc.collect()
        for file in [*self.pickles, *(self.path / "store").iterdir()]:
            descriptor = os.open(file, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def _run(batches: Batches) -> Callable[[], None]:
    def run() -> None:
        for _ in batches():
            pass

    return run


def _batches_differ(found: Batches, expected: Batches) -> float:
    """Largest difference of two streams of batches, which must be equally many."""
    return max(distance(*zip(ours, theirs, strict=True)) for ours, theirs in zip(found(), expected(), strict=True))


class Flips:
    """The training transforms of the MotionBERT recipe: a random flip, then the input of the network."""

    def __init__(self) -> None:
        given = {"skeleton": BODY, "skeleton2d": BODY, "channels": 3, "confidence": True}
        self.functions = resolve([{"flip": {"probability": 0.5}}, "pose"], "augment", **given)

    def __call__(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        draws = Draws(0, 0, batch["draw"], batch["draw"][:1])
        for function in self.functions:
            batch = function(batch, draws)
        return batch


def build_clips(*, sequences: int, clips: int, frames: int, batch: int, cold: bool) -> Pair:
    """A shuffled epoch of overlapping clips, each mirrored or not at random by the transform `flip`."""
    folder = Folder(sequences, clips, frames)
    flips = Flips()
    total = sequences * clips
    order = orders.seeded(total, 0)(0)
    kept: dict[str, Windows] = {}

    def ours() -> Iterator[tuple[Tensor, Tensor]]:
        if cold or not kept:
            kept["windows"] = Windows.tiled(folder.open(), frames, folder.stride)
        loader = DataLoader(kept["windows"], batch_size=None, sampler=orders.make("seeded", total, batch, seed=0))
        for gathered in loader:
            made = flips(gathered)
            yield made["pose"], made["pose3d"]
        if cold:
            kept.clear()  # a mapped page cannot be dropped

    drawn = Draws(0, 0, torch.arange(total), torch.zeros(1, dtype=torch.int64)).uniform("flip") < 0.5
    mirrored = np.zeros(total, dtype=bool)
    mirrored[order] = drawn.numpy()
    items = reference.PickledClips(folder.pickles, mirrored.tolist(), BODY)

    def plain() -> Iterator[tuple[Tensor, Tensor]]:
        yield from DataLoader(items, batch_size=batch, sampler=order.tolist())

    before = folder.drop_cache if cold else lambda: None
    return Pair(_run(plain), _run(ours), lambda: _batches_differ(ours, plain), before, folder.remove)


bench(
    build_clips,
    "clips_warm",
    operation="clips, warm, with flips",
    reference="pickle per clip",
    sizes={**_CLIPS, "cold": False},
    small=_SMALL_CLIPS,
    bound=2,
    goal=2.1,
    tolerance=0.0,
)
bench(
    build_clips,
    "clips_cold",
    operation="clips, cold, with flips",
    reference="pickle per clip",
    sizes={**_CLIPS, "cold": True},
    small=_SMALL_CLIPS,
    bound=2.5,
    goal=3.4,
    tolerance=0.0,
    clock="wall",
    rounds=3,
)


def build_clips_mirrored(*, sequences: int, clips: int, frames: int, batch: int) -> Pair:
    """A shuffled epoch over both views of every clip, with `store_mirrored`; as many clips as in `clips_warm`."""
    folder = Folder(sequences, clips, frames)
    windows = Windows.tiled(folder.open().with_mirror(), frames, folder.stride, both_views=True)
    total = sequences * clips
    rows = orders.seeded(len(windows), 0)(0)[:total]
    table = windows.table[rows]

    def ours() -> Iterator[tuple[Tensor, Tensor]]:
        for gathered in DataLoader(windows, batch_size=None, sampler=orders.Order(lambda epoch: rows, total, batch)):
            yield gathered["pose2d"], gathered["pose3d"]

    files = [folder.pickles[row * clips + start // folder.stride] for row, start in table[:, :2]]
    items = reference.PickledClips(files, table[:, 3].astype(bool).tolist(), BODY)

    def plain() -> Iterator[tuple[Tensor, Tensor]]:
        yield from DataLoader(items, batch_size=batch, sampler=range(total))

    return Pair(_run(plain), _run(ours), lambda: _batches_differ(ours, plain), close=folder.remove)


bench(
    build_clips_mirrored,
    "clips_warm_mirrored",
    operation="clips, warm, with flips, mirrored copy stored",
    reference="pickle per clip",
    sizes=_CLIPS,
    small=_SMALL_CLIPS,
    bound=2,
    goal=4.8,
    tolerance=0.0,
)


_WINDOWS = {"sequences": 100, "length": 1000, "frames": 81, "batch": 512, "batches": 20}
_SMALL_WINDOWS = {"sequences": 3, "length": 11, "frames": 9, "batch": 16, "batches": 5}


def build_windows(*, sequences: int, length: int, frames: int, batch: int, batches: int, stored: bool) -> Pair:
    """The first batches of a shuffled epoch in the order of VideoPose3D's running generator.

    Short sequences are padded on both sides; in the small case the last batch is uneven. The permutation is part of
    both forms.
    """
    store = camera_space([length] * (sequences - 1) + [1])
    arrays = [store.sequence(row) for row in range(len(store))]
    poses2d, poses3d = [one["pose2d"] for one in arrays], [one["pose3d"] for one in arrays]
    generator = reference.ChunkedGenerator(poses2d, poses3d, batch, frames, BODY)
    pad = (frames // 2, frames // 2)
    windows = Windows.chunked(store.with_mirror() if stored else store, 1, context=pad, both_views=True)
    visited = min(batches * batch, len(windows))

    def ours() -> Iterator[tuple[Tensor, Tensor]]:
        order = orders.Order(orders.legacy(len(windows), orders.LEGACY_SEED), visited, batch)
        for gathered in DataLoader(windows, batch_size=None, sampler=order):
            yield gathered["pose3d"], gathered["pose2d"]

    def plain() -> Iterator[tuple[Tensor, Tensor]]:
        return generator.epoch(-(-visited // batch))

    return Pair(_run(plain), _run(ours), lambda: _batches_differ(ours, plain))


bench(
    build_windows,
    "windows_flips",
    operation="81-frame windows with flips",
    reference="generator with edge padding",
    sizes={**_WINDOWS, "stored": False},
    small=_SMALL_WINDOWS,
    bound=2.2,
    goal=2.4,
    tolerance=0.0,
)
bench(
    build_windows,
    "windows_flips_mirrored",
    operation="81-frame windows with flips, mirrored copy stored",
    reference="generator with edge padding",
    sizes={**_WINDOWS, "stored": True},
    small=_SMALL_WINDOWS,
    bound=2.2,
    goal=10,
    tolerance=0.0,
)


def build_window_loader(*, sequences: int, length: int, frames: int, batch: int, batches: int) -> Pair:
    """The first batches of a shuffled epoch from a DataLoader without workers; one sequence is a single frame."""
    store = camera_space([length] * (sequences - 1) + [1])
    arrays = [store.sequence(row) for row in range(len(store))]
    windows = Windows.chunked(store, 1, context=(frames // 2, frames // 2))
    items = reference.WindowItems([one["pose2d"] for one in arrays], [one["pose3d"] for one in arrays], frames)
    visited = min(batches * batch, len(windows))
    rows = orders.seeded(len(windows), 0)

    def ours() -> Iterator[tuple[Tensor, Tensor]]:
        for gathered in DataLoader(windows, batch_size=None, sampler=orders.Order(rows, visited, batch)):
            yield gathered["pose2d"], gathered["pose3d"]

    def plain() -> Iterator[tuple[Tensor, Tensor]]:
        for gathered in DataLoader(items, batch_size=batch, sampler=rows(0)[:visited].tolist()):
            yield gathered["pose2d"], gathered["pose3d"]

    return Pair(_run(plain), _run(ours), lambda: _batches_differ(ours, plain))


bench(
    build_window_loader,
    "window_loader",
    operation="window loader",
    reference="per sample + collate",
    sizes=_WINDOWS,
    small=_SMALL_WINDOWS,
    bound=3,
    goal=5.6,
    tolerance=0.0,
)
