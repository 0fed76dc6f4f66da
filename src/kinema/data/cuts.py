"""How the sequences of a stage are cut into windows: what `windows` and `eval_windows` of a dataset's yaml mean."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kinema.data import checks
from kinema.data.sequences import Sequences
from kinema.data.windows import Windows
from kinema.errors import ConfigError

log = logging.getLogger(__name__)

_TRAINING = ("chunked", "tiled", "strided", "stretched")
_EVALUATION = ("whole", "centred", "tiled", "strided", "stretched")


@dataclass(frozen=True)
class Cuts:
    """Windows of every stage.

    Attributes:
        frames: input frames of a window; None where neither yaml nor a model says it.
        context: input frames before and after the targets.
        training: `kind`, `stride`, `both_views`; see MotionDataModule.
        evaluation: `kind`, `stride`.
        limit: at most so many training windows; None = all.
        seed: of what "strided" draws for short sequences.
    """

    frames: int | None
    context: tuple[int, int]
    training: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    limit: int | None
    seed: int

    def __post_init__(self) -> None:
        _check("windows", self.training, ("kind", "stride", "both_views"))
        _check("eval_windows", self.evaluation, ("kind", "stride"))
        if self.training["kind"] is not None:
            checks.refuse_other("windows.kind", self.training["kind"], _TRAINING)
        checks.refuse_other("eval_windows.kind", self.evaluation["kind"], _EVALUATION)

    def of(self, sequences: Sequences, stage: str) -> Windows:
        """Windows over the sequences of a stage.

        Raises:
            ConfigError: where model and options contradict each other.
        """
        if stage == "train":
            windows = self._training(sequences)
            return windows if self.limit is None else windows.evenly_spaced(self.limit)
        kind = self.evaluation["kind"]
        if kind == "whole" or stage == "predict":
            return Windows.whole(sequences, context=self.context)
        if kind == "centred":
            return Windows.centred(sequences, self._frames() - sum(self.context), context=self.context)
        self._refuse_context("eval_windows", kind, "whole")
        return self._clips(sequences, kind, self.evaluation["stride"] or self._frames(), both_views=False)

    def _training(self, sequences: Sequences) -> Windows:
        frames = self._frames()
        kind = self.training["kind"] or ("chunked" if self.context != (0, 0) else "tiled")
        both_views = self.training["both_views"]
        if kind == "chunked":
            targets, stride = frames - sum(self.context), self.training["stride"] or None
            return Windows.chunked(sequences, targets, context=self.context, stride=stride, both_views=both_views)
        self._refuse_context("windows", kind, "chunked")
        return self._clips(sequences, kind, self.training["stride"] or max(1, frames // 3), both_views=both_views)

    def _clips(self, sequences: Sequences, kind: str, stride: int, *, both_views: bool) -> Windows:
        if kind == "tiled":
            return Windows.tiled(sequences, self._frames(), stride, both_views=both_views)
        if kind == "stretched":
            return Windows.stretched(sequences, self._frames(), stride, both_views=both_views)
        if both_views:
            raise ConfigError(
                "Strided clips come in one view. Use dataset.windows.both_views=false with augment: flip."
            )
        lost = lost_video(sequences, self._frames())
        if lost is not None:
            log.warning("%s (published behaviour).", lost)
        return Windows.strided(sequences, self._frames(), stride, random=np.random.RandomState(self.seed))

    def _refuse_context(self, option: str, kind: str, remedy: str) -> None:
        if self.context != (0, 0):
            raise ConfigError(
                f"dataset.{option}.kind={kind} cuts clips, but the model uses up {sum(self.context)} frames of its "
                f"input around the output. Use dataset.{option}.kind={remedy}."
            )

    def _frames(self) -> int:
        if self.frames is None:
            raise ConfigError("dataset.frames is null and there is no model to follow. Use dataset.frames=81.")
        if self.frames <= sum(self.context):
            raise ConfigError(
                f"dataset.frames={self.frames} leaves no target between the {self.context[0]} frames before and the "
                f"{self.context[1]} frames after it. Use dataset.frames={sum(self.context) + 1}."
            )
        return self.frames


def lost_video(sequences: Sequences, frames: int) -> str | None:
    """What strided clips lose: the last video, if it is shorter than a clip; None where nothing is lost."""
    length = sequences.table["length"]
    if not len(length) or length[-1] >= frames:
        return None
    label = sequences.label(len(length) - 1)
    return f"{label} is left out: as the last video, with {length[-1]} of {frames} frames, it gives no clip"


def _check(option: str, values: Mapping[str, Any], keys: tuple[str, ...]) -> None:
    for key in keys:
        if key not in values:
            raise ConfigError(f"dataset.{option} lacks {key!r}. Use dataset.{option}.{key}=null for its default.")
    for key in values:
        if key not in keys:
            raise ConfigError(f"dataset.{option} has no key {key!r}. It has: {', '.join(keys)}.")
