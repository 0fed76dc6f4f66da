"""The built-in motion for prediction: the people of `synthetic`, longer, in world metres, at a drifting tempo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from kinema.data import motion_rows, raw
from kinema.data.readers.synthetic import SUBJECTS, generator, refuse_unknown
from kinema.data.sequences import Sequences
from kinema.data.synthetic.actions import ACTIONS, perform
from kinema.data.synthetic.skeleton import SKELETON, Body
from kinema.errors import ConfigError

# Raised when the result of `read` changes: part of the cache's key.
VERSION = 1


@dataclass(frozen=True)
class Options:
    """Options of this reader, as in `dataset.reader_options`.

    Attributes:
        skeleton, unit: of what is made; h36m17 and "m".
        fps: frames per second.
        drop: takes to leave out, as subject/trial.
        seed: of bodies and motion; the run's own seed leaves the data alone.
        actions: names to perform; None = all.
        takes: of every action by every subject.
        frames: per take.
        tempo: drift of the tempo within a take, relative standard deviation.
    """

    skeleton: motion_rows.Body = SKELETON.name
    unit: str = "m"
    fps: float | None = 50.0
    drop: Sequence[str] = ()
    seed: int = 0
    actions: Sequence[str] | None = None
    takes: int = 1
    frames: int = 300
    tempo: float = 0.15

    @classmethod
    def parse(cls, options: Mapping[str, Any]) -> Options:
        """Check names and values."""
        raw.known_options("synthetic_motion", options, {entry.name: entry for entry in fields(cls)})
        made = cls(**options)
        refuse_unknown(made.names)
        for key, value in (("skeleton", SKELETON.name), ("unit", "m")):
            if getattr(made, key) != value:
                raise ConfigError(f"Synthetic motion has dataset.{key}={value}. Use dataset.{key}={value}.")
        if made.fps is None:
            raise ConfigError("Synthetic motion needs a frame rate. Use dataset.fps=50.")
        for option, number, least in (("takes", made.takes, 1), ("frames", made.frames, 2), ("fps", made.fps, 1)):
            if number < least:
                where = "dataset.fps" if option == "fps" else f"dataset.reader_options.{option}"
                raise ConfigError(f"{where}={number}: synthetic motion needs at least {least}.")
        if not 0 <= made.tempo <= 0.4:
            raise ConfigError(
                f"dataset.reader_options.tempo={made.tempo} is no drift between 0 (even) and 0.4. "
                "Use dataset.reader_options.tempo=0.15."
            )
        return made

    @property
    def names(self) -> tuple[str, ...]:
        """The actions."""
        return tuple(ACTIONS) if self.actions is None else tuple(self.actions)


def files(root: Path, **options: Any) -> list[Path]:
    """No raw files: everything is computed. Unknown options are refused here, before anything is."""
    Options.parse(options)
    return []


def describe() -> str:
    """One paragraph for --info and the doctor."""
    return (
        "Synthetic motion for prediction: seven people of different sizes do each action for some seconds, at a tempo "
        "that drifts, in world metres with z up. Nothing to download; the same seed gives the same motion."
    )


def read(root: Path, **options: Any) -> Sequences:
    """Make every take.

    Args:
        root: not read.
        options: see `Options`.
    """
    chosen = Options.parse(options)
    fps = float(chosen.fps or 0)
    rows = []
    for subject in SUBJECTS:
        body = Body.draw(generator(chosen.seed, subject, "body"))
        for action in chosen.names:
            for take in range(chosen.takes):
                # Takes are named as in Human3.6M: "walk", "walk 1", ...
                trial = f"{action} {take}" if take else action
                if f"{subject}/{trial}" in chosen.drop:
                    continue
                draw = generator(chosen.seed, subject, trial, "motion")
                pose = perform(action, body, draw, chosen.frames, fps, tempo=chosen.tempo)
                rows.append(
                    {
                        "pose3d": pose.astype(np.float32),
                        "subject": subject,
                        "action": action,
                        "trial": trial,
                        "fps": fps,
                    }
                )
    return motion_rows.store(rows, SKELETON, meta={})
