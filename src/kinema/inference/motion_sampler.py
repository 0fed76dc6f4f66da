"""Samples of future motions from a diffusion network, in chunks whose size bounds the memory.

Noise is a function of (seed, window, sample, step) alone: a sample is the same in any batch, chunk and number of
samples. The published order of draws, in which everything depends on everything before, is kept as `published`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from kinema.core.condition_noise import mixed, spread_levels
from kinema.core.diffusion import alpha_hats, visited
from kinema.core.motion_space import Encoded, MotionSpace
from kinema.core.random import normal
from kinema.core.sampling import SAMPLERS, Denoise, Known, Noise, sample
from kinema.errors import ConfigError
from kinema.inference.denoise import denoiser

Item = TypeVar("Item")
# Step number of the noise that sampling starts from, and part number of the noise on the condition.
START, CONDITION = -1, -1


class NoiseSource(Protocol):
    """Standard normal noise for windows and samples, (W, K, *shape)."""

    def __call__(self, ids: Tensor, samples: Tensor, step: int, part: int, shape: tuple[int, ...]) -> Tensor:
        """Draw noise.

        Args:
            ids: (W,) int64 numbers of the windows.
            samples: (K,) int64 numbers of the samples.
            step: number of the visited step, `START` for the beginning.
            part: number of the known part that it is for, 0 at the beginning.
            shape: of one sample.
        """
        ...


@dataclass(frozen=True)
class KeyedNoise:
    """Noise that is a function of (seed, window, sample, step, part): independent of batches and chunks."""

    seed: int = 0

    def __call__(self, ids: Tensor, samples: Tensor, step: int, part: int, shape: tuple[int, ...]) -> Tensor:
        draws = (ids[:, None] << 32) | samples
        drawn = normal(self.seed, step - START, draws.flatten(), f"motion_noise/{part}", shape)
        return drawn.reshape(*draws.shape, *shape)


@dataclass(frozen=True)
class KnownMotion:
    """A motion of which samples are to have a part, besides the history.

    Attributes:
        mask: bool, (N,) frames or (N, F) frames and features (all three of a joint).
        motion: (W or 1, N, F) metres, without the root.
        until: it is held while the loop index (S - 1 at the first step, 0 at the last) is at least this.
        shared: one noise for all samples of a window, as published for body parts.
    """

    mask: Tensor
    motion: Tensor
    until: int = 0
    shared: bool = False


class MotionSampler:
    """Draws samples of motions for observed histories.

    Args:
        model: network whose signature has the output "noise".
        space: what it sees.
        schedule: of the noise: cosine, sqrt, sigmoid or linear.
        noise_steps: T it was trained with.
        ddim_timesteps: S steps that are visited.
        prediction: what the network gives: noise, x0 or v.
        completion: hold the history in every step.
        sampler: ddim, or another of `core.sampling.SAMPLERS`.
        compat_steps: the published list of steps where S does not divide T.
        chunk: sequences per call of the network (windows times samples).
        condition_noise: highest level of noise on the condition, from 0 on spread evenly over the samples; None = no
            noise. For networks that are told the level.
    """

    def __init__(
        self,
        model: nn.Module,
        space: MotionSpace,
        *,
        schedule: str = "cosine",
        noise_steps: int = 1000,
        ddim_timesteps: int = 100,
        prediction: str = "noise",
        completion: bool = True,
        sampler: str = "ddim",
        compat_steps: bool = False,
        chunk: int = 1000,
        condition_noise: float | None = None,
    ) -> None:
        if chunk < 1:
            raise ConfigError(f"A chunk of {chunk} sequences holds none. Use task.chunk=1000.")
        if sampler not in SAMPLERS:
            raise ConfigError(f"No sampler is called {sampler!r}. Use one of {', '.join(SAMPLERS)}.")
        self.model, self.space, self.prediction = model, space, prediction
        self.completion, self.sampler, self.chunk, self.condition_noise = completion, sampler, chunk, condition_noise
        self.timesteps = visited(noise_steps, ddim_timesteps, compat=compat_steps)
        self.alpha_hat = alpha_hats(schedule, noise_steps)

    @torch.no_grad()
    def __call__(
        self,
        history: Tensor,
        num_samples: int,
        *,
        conditioned: int | None = None,
        known: Sequence[KnownMotion] = (),
        noise: NoiseSource | None = None,
        ids: Tensor | None = None,
        seed: int = 0,
    ) -> Tensor:
        """Draw samples of whole motions.

        Args:
            history: (W, T, F) metres, without the root, of which the first H frames are read.
            num_samples: K.
            conditioned: how many of them see the condition, the first ones; None = all.
            known: further parts they are to have, later ones over earlier ones and all over the history.
            noise: where it comes from, None = `KeyedNoise(seed)`.
            ids: (W,) int64 numbers of the windows, None = 0, 1, ...
            seed: of the noise.

        Returns:
            (W, K, N, F). The first H frames are a smooth, slightly noisy copy of the history.
        """
        _check_conditioned(conditioned, num_samples)
        source, ids = noise or KeyedNoise(seed), _ids(history, ids)
        result = history.new_empty(len(history), num_samples, self.space.frames, history.shape[-1])
        windows, samples = self._block(num_samples)
        for first in range(0, len(history), windows):
            rows = slice(first, first + windows)
            for begin in range(0, num_samples, samples):
                chosen = torch.arange(begin, min(begin + samples, num_samples), device=history.device)
                part = [_rows(one, rows) for one in known]
                coeffs, encoded = _last(self._run(history[rows], chosen, conditioned, part, source, ids[rows]))
                result[rows, begin : begin + samples] = self.space.decode(coeffs, encoded)
        return result

    @torch.no_grad()
    def steps(
        self,
        history: Tensor,
        num_samples: int,
        *,
        conditioned: int | None = None,
        known: Sequence[KnownMotion] = (),
        noise: NoiseSource | None = None,
        ids: Tensor | None = None,
        seed: int = 0,
    ) -> Iterator[Tensor]:
        """Yield the motions (W, K, N, F) after every step, in one chunk; arguments as of a call."""
        _check_conditioned(conditioned, num_samples)
        source, ids = noise or KeyedNoise(seed), _ids(history, ids)
        chosen = torch.arange(num_samples, device=history.device)
        for coeffs, encoded in self._run(history, chosen, conditioned, known, source, ids):
            yield self.space.decode(coeffs, encoded)

    @torch.no_grad()
    def published(self, history: Tensor, num_samples: int, *, mod_test: float = 1.0) -> Tensor:
        """Draw samples in the published order of random numbers, for all windows of the evaluation at once.

        For each sample one `np.random.random()`, which drops the condition of the whole pass where it is above
        `mod_test`; then `torch.randn` on the CPU; then, for each step, `randn_like` on the device of the history.

        Args:
            history: (W, T, F), all windows.
            num_samples: K.
            mod_test: share of the passes that see the condition.

        Returns:
            (W, K, N, F).
        """
        encoded = self.space.encode_history(history)
        shape = encoded.known[:, None].shape
        result = history.new_empty(len(history), num_samples, self.space.frames, history.shape[-1])
        known = self._known(encoded, ())
        conditional, unconditional = (
            self._chunked(condition, len(history), history.device)
            for condition in (standardised(self.model, encoded.condition), None)
        )
        for number in range(num_samples):
            # published behaviour: the global generators, and one draw for all windows.
            denoise = unconditional if np.random.random() > mod_test else conditional
            start = torch.randn(shape).to(history)
            coeffs = _last(self._sample(denoise, start, known, None))
            result[:, number] = self.space.decode(coeffs, encoded)[:, 0]
        return result

    def _run(
        self,
        history: Tensor,
        samples: Tensor,
        conditioned: int | None,
        known: Sequence[KnownMotion],
        source: NoiseSource,
        ids: Tensor,
    ) -> Iterator[tuple[Tensor, Encoded]]:
        """Coefficients (W, K, n, F) of a chunk after every step."""
        encoded = self.space.encode_history(history)
        shape = tuple(encoded.known.shape[1:])
        held = self._known(encoded, known)
        # A noise that samples share is that of the first one, whichever of them are drawn here.
        drawn = [samples.new_zeros(1) if part.shared else samples for part in held]
        seen = None if conditioned is None else min(max(conditioned - int(samples[0]), 0), len(samples))

        def noise(step: int, part: int, _: tuple[int, ...]) -> Tensor:
            return source(ids, drawn[part], step, part, shape).to(history)

        x = source(ids, samples, START, 0, shape).to(history)
        steps = self.timesteps[:, 0].to(history.device)
        condition = standardised(self.model, encoded.condition)
        if self.condition_noise is None:
            denoise = denoiser(self.model, None if seen == 0 else condition, steps, seen)
        else:
            hidden = source(ids, samples, START, CONDITION, tuple(condition.shape[1:])).to(condition)
            denoise = self._told(condition, hidden, samples, steps)
        for coeffs in self._sample(denoise, x, held, noise):
            yield coeffs, encoded

    def _told(self, condition: Tensor, noise: Tensor, samples: Tensor, steps: Tensor) -> Denoise:
        """Denoiser of samples that see the condition (W, m, F) through noise (W, K, m, F) of a level of their own."""
        levels = spread_levels(samples, float(self.condition_noise or 0)).to(condition)
        level = levels.repeat(len(condition))
        each = condition.repeat_interleave(len(samples), dim=0)
        one = denoiser(self.model, mixed(each, noise.flatten(0, 1), level), steps, level=level)
        return lambda x, step: one(x.flatten(0, 1)[:, None], step).reshape(x.shape)

    def _sample(self, denoise: Denoise, x: Tensor, known: Sequence[Known], noise: Noise | None) -> Iterator[Tensor]:
        scale = None if self.space.scale is None else torch.tensor(self.space.scale, dtype=torch.float64)
        return sample(
            denoise, x, self.timesteps, self.alpha_hat,
            prediction=self.prediction, known=known, noise=noise, sampler=self.sampler, scale=scale,
        )  # fmt: skip

    def _known(self, encoded: Encoded, known: Sequence[KnownMotion]) -> list[Known]:
        """Parts that are held: the history, then those asked for, as coefficients (W, 1, n, F)."""
        held = []
        if self.completion:
            observed = torch.arange(self.space.frames) < self.space.history
            held.append(Known(encoded.known[:, None], observed))
        for part in known:
            motion = part.motion.to(encoded.known).expand(len(encoded.known), -1, -1)
            held.append(Known(self.space.project(motion, encoded)[:, None], part.mask, part.until, part.shared))
        return held

    def _block(self, num_samples: int) -> tuple[int, int]:
        """Windows and samples of a chunk."""
        return max(1, self.chunk // num_samples), min(self.chunk, num_samples)

    def _chunked(self, condition: Tensor | None, windows: int, device: torch.device) -> Denoise:
        """Denoiser of any number of windows with one sample each, chunk by chunk."""
        steps = self.timesteps[:, 0].to(device)
        blocks = [None] * -(-windows // self.chunk) if condition is None else condition.split(self.chunk)
        denoisers = [denoiser(self.model, block, steps) for block in blocks]

        def denoise(x: Tensor, step: int) -> Tensor:
            parts = x.split(self.chunk)
            return torch.cat([one(part, step) for one, part in zip(denoisers, parts, strict=True)])

        return denoise


def standardised(model: nn.Module, condition: Tensor) -> Tensor:
    """The condition as a network takes it: of unit size, where it has measured its own (`standardised`)."""
    ability = getattr(model, "standardised", None)
    return condition if ability is None else ability(condition)


def _last(steps: Iterator[Item]) -> Item:
    return deque(steps, maxlen=1).pop()


def _check_conditioned(conditioned: int | None, num_samples: int) -> None:
    if conditioned is not None and not 0 <= conditioned <= num_samples:
        raise ConfigError(f"{conditioned} of {num_samples} samples cannot see the history. Use 0 to {num_samples}.")


def _ids(history: Tensor, ids: Tensor | None) -> Tensor:
    return torch.arange(len(history), device=history.device) if ids is None else ids.to(history.device)


def _rows(known: KnownMotion, rows: slice) -> KnownMotion:
    """The part that belongs to some windows."""
    return known if len(known.motion) == 1 else replace(known, motion=known.motion[rows])
