"""What a diffusion network of motions sees: DCT coefficients of root-relative motions, and the way back.

With the defaults it is exactly the published arithmetic. The options help where data are few: one heading for all
histories, a residual instead of the motion, coefficients of one size.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from kinema.core.dct import orthonormal_dct_matrix
from kinema.core.diffusion import PADDINGS, from_coeffs, padded, to_coeffs
from kinema.core.heading import heading, turn
from kinema.core.shapes import expect
from kinema.errors import ConfigError, DataError

RESIDUALS = ("none", "last_pose", "padded")
CONDITIONS = ("coeffs", "history")


@dataclass(frozen=True)
class Encoded:
    """Motions, or their histories alone, as the network sees them.

    Attributes:
        condition: (B, n, F) coefficients of the padded history, or (B, m, F) its own frames.
        known: (B, n, F) the same in the units of `coeffs`: what completion holds in the observed frames.
        coeffs: (B, n, F) of the whole motion, what is diffused; None where only the history is known.
        angle: (B,) heading by which the motions were turned, radians; None where they were not.
        offset: (B, 1 or N, F) what was subtracted from the motions; None for nothing.
    """

    condition: Tensor
    known: Tensor
    coeffs: Tensor | None = None
    angle: Tensor | None = None
    offset: Tensor | None = None


@dataclass(frozen=True)
class MotionSpace:
    """The way from motions (B, N, F) in metres, without the root, to coefficients (B, n, F) and back.

    Attributes:
        history: H observed frames.
        horizon: P frames to predict; N = H + P.
        kept_coeffs: n, the lowest frequencies.
        padding: how the future is filled for the condition: last_frame, repeat or zero.
        heading: turn every motion so that the hips of its last observed frame lie along x.
        residual: what is subtracted before the transform: none, last_pose (the last observed one), or padded (the
            padded history; then only the future is diffused).
        hips: joints of the right and the left hip, counted without the root; needed for `heading`.
        scale: of each coefficient, by which it is divided; None = 1.
        condition_scale: the same for the condition.
        condition: what the network is told: coeffs (of the padded history, published), or history (the last observed
            pose, and the differences to it of every `condition_stride`-th frame before).
        condition_stride: frames between the rows of a history.
        compat_padding: zero as published, see `core.diffusion.padded`.
    """

    history: int
    horizon: int
    kept_coeffs: int
    padding: str = "last_frame"
    heading: bool = False
    residual: str = "none"
    hips: tuple[int, int] | None = None
    scale: tuple[float, ...] | None = None
    condition_scale: tuple[float, ...] | None = None
    condition: str = "coeffs"
    condition_stride: int = 3
    compat_padding: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.kept_coeffs <= self.frames:
            raise ConfigError(
                f"kept_coeffs={self.kept_coeffs}, but a motion of {self.frames} frames has as many coefficients. Use "
                f"model.kept_coeffs={min(20, self.frames)}."
            )
        if self.residual not in RESIDUALS:
            raise ConfigError(f"No residual is called {self.residual!r}. Use task.residual={' or '.join(RESIDUALS)}.")
        if self.condition not in CONDITIONS:
            raise ConfigError(f"No condition is called {self.condition!r}. Use task.condition={CONDITIONS[0]}.")
        if self.condition_stride < 1:
            raise ConfigError(f"No stride is {self.condition_stride} frames long. Use task.condition_stride=1.")
        if self.condition == "history" and self.condition_scale is not None:
            raise ConfigError("task.condition_scale is one of coefficients. Use task.condition_scale=null.")
        if self.padding not in PADDINGS:
            raise ConfigError(f"No padding of the history is called {self.padding!r}. Use task.padding={PADDINGS[0]}.")
        if self.heading and self.hips is None:
            raise ConfigError("heading=true turns motions by their hips, and none are named. Use task.heading=false.")
        for key, scale in (("coeff_scale", self.scale), ("condition_scale", self.condition_scale)):
            if scale is not None and (len(scale) != self.kept_coeffs or min(scale) <= 0):
                raise ConfigError(
                    f"task.{key} must be {self.kept_coeffs} numbers above 0, one for each coefficient. Use "
                    f"task.{key}=null."
                )

    @property
    def frames(self) -> int:
        """N of a whole motion."""
        return self.history + self.horizon

    @property
    def condition_rows(self) -> int:
        """m, rows of the condition."""
        return self.kept_coeffs if self.condition == "coeffs" else 1 + (self.history - 1) // self.condition_stride

    def encode(self, motion: Tensor) -> Encoded:
        """Coefficients of whole motions (B, N, F) and of their padded histories."""
        expect(motion, "B N F", "motion", N=self.frames)
        encoded = self.encode_history(motion)
        return Encoded(encoded.condition, encoded.known, self.project(motion, encoded), encoded.angle, encoded.offset)

    def encode_history(self, history: Tensor) -> Encoded:
        """The same without the target, from motions (B, T, F) whose first H frames are read."""
        if history.dim() != 3 or history.shape[1] < self.history:
            raise DataError(
                f"A history has shape {tuple(history.shape)}, expected (B, T, F) with {self.history} frames or more."
            )
        angle = offset = None
        if self.heading:
            assert self.hips is not None
            angle = heading(history[:, self.history - 1].unflatten(-1, (-1, 3)), self.hips)
            history = turn(history[:, : self.history], -angle)
        full = padded(history, self.history, self.padding, frames=self.frames, compat=self.compat_padding)
        coeffs = self._coeffs(full)
        known = coeffs
        if self.residual != "none":
            offset = full if self.residual == "padded" else history[:, self.history - 1 : self.history]
            known = self._coeffs(full - offset)
        condition = _divided(coeffs, self.condition_scale)
        if self.condition == "history":
            rows = history[:, : self.history].flip(1)[:, :: self.condition_stride]
            condition = torch.cat([rows[:, :1], rows[:, 1:] - rows[:, :1]], dim=1)
        return Encoded(condition, _divided(known, self.scale), None, angle, offset)

    def project(self, motion: Tensor, encoded: Encoded) -> Tensor:
        """Coefficients, in the units of `coeffs`, of other motions (B, N, F) in the frame of encoded ones."""
        if encoded.angle is not None:
            motion = turn(motion, -encoded.angle)
        if encoded.offset is not None:
            motion = motion - encoded.offset
        return _divided(self._coeffs(motion), self.scale)

    def decode(self, coeffs: Tensor, encoded: Encoded) -> Tensor:
        """Motions of coefficients, in their original heading.

        Args:
            coeffs: (B, ..., n, F), such as several samples of each history.
            encoded: of the B histories.

        Returns:
            (B, ..., N, F).
        """
        if self.scale is not None:
            coeffs = coeffs * coeffs.new_tensor(self.scale)[:, None]
        motion = from_coeffs(coeffs, self._dct(coeffs))
        if encoded.offset is not None:
            middle = [1] * (motion.dim() - 3)
            motion = motion + encoded.offset.reshape(len(motion), *middle, *encoded.offset.shape[1:])
        return motion if encoded.angle is None else turn(motion, encoded.angle)

    def _coeffs(self, motion: Tensor) -> Tensor:
        return to_coeffs(motion, self._dct(motion))

    def _dct(self, like: Tensor) -> Tensor:
        return _matrix(self.frames, self.kept_coeffs, like.dtype, like.device)


@lru_cache(maxsize=16)
def _matrix(frames: int, kept: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return orthonormal_dct_matrix(frames, kept).to(device, dtype)


def _divided(coeffs: Tensor, scale: tuple[float, ...] | None) -> Tensor:
    return coeffs if scale is None else coeffs / coeffs.new_tensor(scale)[:, None]


def measured_scale(coeffs: Tensor) -> tuple[float, ...]:
    """Root mean square of each coefficient over motions and features: (B, n, F) to n numbers, none of them 0."""
    return tuple(coeffs.double().square().mean((0, 2)).sqrt().clamp_min(1e-6).tolist())
