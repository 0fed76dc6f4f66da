"""The built-in clips of actions: stretches of the people of `synthetic`, with what they do as class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kinema.data.clip_rows import ClipOptions, clip_rows, clip_store
from kinema.data.raw import Report, raise_fault
from kinema.data.readers.synthetic import SUBJECTS, generator
from kinema.data.sequences import Sequences
from kinema.data.synthetic.actions import perform
from kinema.data.synthetic.skeleton import Body
from kinema.errors import ConfigError

# Raised when the result of `read` changes: part of the cache's key.
VERSION = 1

_TESTED = ("S9", "S11")


@dataclass(frozen=True)
class Options(ClipOptions):
    """Options of this reader, as in `dataset.reader_options`, beside those of every reader of clips.

    Attributes:
        seed: of bodies and motion; the run's own seed leaves the data alone.
        takes: clips of every action by every subject.
        frames: shortest and longest clip.
        fps: frames per second.
    """

    seed: int = 0
    takes: int = 2
    frames: tuple[int, int] = (40, 120)
    fps: float = 50.0

    @classmethod
    def checked(cls, options: Mapping[str, Any]) -> Options:
        """Check names and values."""
        made = cls.parse("synthetic_clips", options)
        low, high = made.frames
        if made.takes < 1 or not 2 <= low <= high:
            raise ConfigError(
                f"dataset.reader_options: takes={made.takes} and frames={[low, high]} make no clips. "
                "Use dataset.reader_options.takes=2 'dataset.reader_options.frames=[40,120]'."
            )
        return made


def files(root: Path, **options: Any) -> list[Path]:
    """No raw files: everything is computed. Unknown options are refused here, before anything is."""
    Options.checked(options)
    return []


def describe() -> str:
    """One paragraph for --info and the doctor."""
    return (
        "Synthetic clips: seven people of different sizes do each action a few times, in world metres with z up; "
        "S9 and S11 are the test split. Nothing to download; the same seed gives the same clips."
    )


def read(root: Path, *, report: Report = raise_fault, **options: Any) -> Sequences:
    """Make every clip.

    Args:
        root: not read.
        report: takes faults; by default the first one stops.
        options: see `Options`.

    Raises:
        ConfigError: for a class that is no synthetic action, with the nearest one.
    """
    chosen = Options.checked(options)
    rows: list[dict[str, Any]] = []
    for subject in SUBJECTS:
        body = Body.draw(generator(chosen.seed, subject, "body"))
        for label, action in enumerate(chosen.class_list.names):
            for take in range(chosen.takes):
                draw = generator(chosen.seed, subject, action, take)
                # Half a second more, so that clips do not all begin with the first movement.
                length = int(draw.integers(chosen.frames[0], chosen.frames[1] + 1))
                first = int(draw.integers(0, round(chosen.fps / 2) + 1))
                motion = perform(action, body, draw, first + length, chosen.fps)[first:]
                rows += clip_rows(
                    clip=f"{subject}_{action}_{take}",
                    keypoints=motion[None].astype(np.float32),
                    label=label,
                    split="test" if subject in _TESTED else "train",
                    options=chosen,
                    report=report,
                    subject=subject,
                    first=first,
                    fps=chosen.fps,
                )
    return clip_store(rows, chosen)
