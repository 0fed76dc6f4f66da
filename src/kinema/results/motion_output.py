"""Sampled motions into files: arrays of every window, and pictures of several windows side by side."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from kinema.core.skeleton import Skeleton
from kinema.errors import ConfigError
from kinema.inference.motion_modes import Sampled
from kinema.viz.clip import check_format, ffmpeg
from kinema.viz.motion_grid import Cell, MotionGrid, write

FORMATS = ("png", "gif", "mp4")


@dataclass(frozen=True)
class Look:
    """How pictures are drawn.

    Attributes:
        formats: endings of the files, without dot; None = all that can be written.
        columns: samples of each window.
        size: inches of a cell.
        azimuth: of the viewer, degrees; None = almost from the front.
        bitrate: of an .mp4, kbit/s.
    """

    formats: Sequence[str] | None
    columns: int
    size: float
    azimuth: float | None
    bitrate: int

    def __post_init__(self) -> None:
        for ending in self.formats or ():
            if ending not in FORMATS:
                raise ConfigError(f"motion.formats={list(self.formats or ())}: use some of {', '.join(FORMATS)}.")
            check_format(Path(f"picture.{ending}"))

    def endings(self) -> list[str]:
        """Endings of the files to be written."""
        if self.formats is None:
            return [one for one in FORMATS if one != "mp4" or ffmpeg()]
        return list(self.formats)


def stem(name: str) -> str:
    """A name as a file's."""
    return re.sub(r"[^\w.+-]+", "_", name).strip("_") or "motion"


def write_arrays(
    folder: Path, results: Sequence[Sampled], body: Skeleton, history: int, fps: float | None, meta: Mapping[str, Any]
) -> list[Path]:
    """One .npz for each window, complete or not at all.

    Args:
        folder: of the files; they are called as the windows.
        results: of the windows.
        body: skeleton.
        history: H.
        fps: frames per second; None = unknown.
        meta: plain values about the run.

    Returns:
        The files, each with samples (K, N, J, 3) and history (H, J, 3), truth (N, J, 3) where it is known, target
        (N, J, 3) and given where something was given, joints, parents, fps, and meta, a text of JSON.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for one in results:
        frames = one.samples.shape[1]
        arrays: dict[str, Any] = {
            "samples": one.samples,
            "history": one.window.pose[:history],
            "joints": np.array(body.joints),
            "parents": np.array(body.parents, np.int64),
            "fps": np.float64(np.nan if fps is None else fps),
        }
        if len(one.window.pose) == frames:
            arrays["truth"] = one.window.pose
        if one.target is not None:
            arrays["target"] = one.target
        if one.given:
            arrays["given"] = np.array([body.joints[joint] for joint in one.given])
        facts = {
            "recording": one.window.recording, "start": one.window.start, "action": one.window.action,
            "history": history, "horizon": frames - history, "end_frames": one.end_frames,
            "unit": "metres", "axes": "z up", "origin": "root", **meta,
        }  # fmt: skip
        arrays["meta"] = np.array(json.dumps(facts))
        path = folder / f"{stem(one.window.label)}.npz"
        temporary = folder / f".{path.name}.writing"
        try:
            with temporary.open("wb") as file:
                np.savez_compressed(file, **arrays)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        written.append(path)
    return written


def draw(
    folder: Path, name: str, results: Sequence[Sampled], body: Skeleton, history: int, fps: float | None, look: Look
) -> list[Path]:
    """Pictures of some windows: what was observed, what is true or aimed at, and samples.

    Returns:
        The files.
    """
    paths = [folder / f"{stem(name)}.{ending}" for ending in look.endings()]
    write(paths, grid_of(name, results, body, history, fps, look), size=look.size, bitrate=look.bitrate)
    return paths


def grid_of(
    name: str, results: Sequence[Sampled], body: Skeleton, history: int, fps: float | None, look: Look
) -> MotionGrid:
    """What is drawn of some windows; all have as many columns, so that a truth that one lacks is left out of all."""
    frames, ends = results[0].samples.shape[1], results[0].end_frames
    truth = all(len(one.window.pose) == frames for one in results)
    rows = []
    for one in results:
        past = np.concatenate(
            [one.window.pose[:history], np.repeat(one.window.pose[history - 1 : history], frames - history, 0)]
        )
        row = [Cell(past, "context", frozen=True)]
        if one.target is not None:
            row.append(Cell(one.target, "target", truth=True))
        elif truth:
            row.append(Cell(one.window.pose, "truth", truth=True))
        samples = one.samples[: max(1, look.columns)]
        row += [Cell(sample, f"sample {k + 1}", given=one.given) for k, sample in enumerate(samples)]
        rows.append(row)
    return MotionGrid(
        rows, body, history, fps, [one.window.label for one in results], look.azimuth,
        switched=frames - ends if ends else None, name=name,
    )  # fmt: skip


def table_of(results: Sequence[Sampled], history: int, pictures: Sequence[str] | None = None) -> Table:
    """What came out, a line for each window: nearest sample to the truth, distance from what was given.

    Args:
        results: of the windows.
        history: H.
        pictures: of each window the picture it is in, where one window is in several.
    """
    table = Table(title="sampled motions", title_justify="left")
    columns = [*(["picture"] if pictures is not None else []), "window", "samples"]
    known = any(len(one.window.pose) == one.samples.shape[1] and one.target is None for one in results)
    reached = any(one.reached is not None for one in results)
    columns += ["ADE (m)", "FDE (m)"] if known else []
    columns += ["from the given (mm)"] if reached else []
    for column in columns:
        table.add_column(column, justify="left" if column in ("picture", "window") else "right")
    for number, one in enumerate(results):
        cells = [] if pictures is None else [pictures[number]]
        cells += [one.window.label, str(len(one.samples))]
        if known:
            cells += [f"{error:.3f}" for error in errors(one, history)] or ["-", "-"]
        if reached:
            cells.append("-" if one.reached is None else f"{1000 * float(one.reached.mean()):.0f}")
        table.add_row(*cells)
    return table


def errors(one: Sampled, history: int) -> tuple[float, ...]:
    """ADE and FDE of the nearest sample, metres of the whole feature vector; nothing where the future is not known."""
    if len(one.window.pose) != one.samples.shape[1] or one.target is not None:
        return ()
    apart = (one.samples - one.window.pose)[:, history:].astype(np.float64)
    far = np.sqrt(np.square(apart).sum((-2, -1)))  # (K, P)
    return float(far.mean(1).min()), float(far[:, -1].min())
