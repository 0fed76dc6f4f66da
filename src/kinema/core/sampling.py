"""Sampling by DDIM with known parts of the motion held (DCT completion): any denoiser, any masks, every step yielded.

The known parts are those of which something is seen: the history, body parts, an end pose. After each step they are put
in their places in time. For coefficients x and known coefficients k that is x + A (k - x), with the constant matrix
A = C diag(mask) C^T of the kept rows C of the transform: the same as two inverse transforms, a mask and a transform.

Source: HumanMAC, models/diffusion.py (sample_ddim), and this project for the samplers with a name of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kinema.core.dct import orthonormal_dct_matrix
from kinema.core.diffusion import levels, q_sample, to_noise, to_start
from kinema.errors import ConfigError

# Output of the network for x (..., n, F) at the visited step of a number, 0 for the first one.
Denoise = Callable[[Tensor, int], Tensor]
# Standard normal noise of a shape, for (number of the visited step, number of the known part).
Noise = Callable[[int, int, tuple[int, ...]], Tensor]

# ddim is the published sampler. The others give other numbers and are reported under their names.
SAMPLERS = ("ddim", "fixed_known", "dpm_solver_pp_2m")


@dataclass(frozen=True)
class Known:
    """A part of the motion that the samples are to have.

    Attributes:
        coefficients: (..., n, F) of a motion, of which the masked part is read; broadcast to the samples.
        mask: bool, (N,) frames or (N, F) frames and features.
        until: the part is held while the loop index, S - 1 at the first step and 0 at the last, is at least this.
        shared: draw one noise for everything that the coefficients are broadcast to, as published for body parts,
            and not one for each sample.
    """

    coefficients: Tensor
    mask: Tensor
    until: int = 0
    shared: bool = False


def completion_matrix(mask: Tensor, kept: int, scale: Tensor | None = None) -> Tensor:
    """Matrix A of completion, x + A (known - x), for a mask of frames.

    Args:
        mask: (N,) bool.
        kept: n.
        scale: (n,) what the coefficients were divided by, None = 1.

    Returns:
        (n, n) float64 on the CPU.
    """
    dct = orthonormal_dct_matrix(len(mask), kept)
    matrix = (dct * mask.to("cpu", torch.float64)) @ dct.T
    if scale is None:
        return matrix
    scale = scale.to("cpu", torch.float64)
    return matrix * scale / scale[:, None]


class Completion:
    """Puts known parts into samples; later parts lie over earlier ones.

    The matrices are made once. A part whose mask depends on features has one for each group of features with equal
    columns.

    Args:
        known: the parts, in order.
        kept: n.
        scale: (n,) what the coefficients were divided by, None = 1.
    """

    def __init__(self, known: Sequence[Known], kept: int, scale: Tensor | None = None) -> None:
        self.known, self.kept, self.scale = tuple(known), kept, scale
        self._made: dict[tuple[object, ...], list[list[tuple[Tensor | None, Tensor]]]] = {}

    def active(self, index: int) -> tuple[int, ...]:
        """Numbers of the parts that are held at a loop index."""
        return tuple(number for number, part in enumerate(self.known) if index >= part.until)

    def __call__(self, x: Tensor, noisy: Sequence[Tensor], index: int) -> Tensor:
        """Complete samples.

        Args:
            x: (..., n, F).
            noisy: of each active part the coefficients at the noise level of x, broadcast to x.
            index: of the loop.
        """
        result = x
        for matrices, part in zip(self._matrices(self.active(index), x), noisy, strict=True):
            result = _add(result, matrices, part - x)
        return result

    def of(self, x: Tensor, index: int) -> Tensor:
        """What completion would replace: (..., n, F) to the same, the sum of A x over the active parts."""
        result = torch.zeros_like(x)
        for matrices in self._matrices(self.active(index), x):
            result = _add(result, matrices, x)
        return result

    def _matrices(self, active: tuple[int, ...], like: Tensor) -> list[list[tuple[Tensor | None, Tensor]]]:
        """Per active part a list of (features, None = all; their matrix), later ones over earlier ones."""
        key = (active, like.device, like.dtype)
        if key not in self._made:
            self._made[key] = [
                [
                    (None if features is None else features.to(like.device), matrix.to(like))
                    for features, matrix in self._grouped(mask)
                ]
                for mask in _uncovered([self.known[number].mask for number in active])
            ]
        return self._made[key]

    def _grouped(self, mask: Tensor) -> list[tuple[Tensor | None, Tensor]]:
        if mask.dim() == 1:
            return [(None, completion_matrix(mask, self.kept, self.scale))]
        columns, group = torch.unique(mask, dim=1, return_inverse=True)
        if columns.shape[1] == 1:
            return [(None, completion_matrix(columns[:, 0], self.kept, self.scale))]
        made: list[tuple[Tensor | None, Tensor]] = [
            (torch.nonzero(group == number).flatten(), completion_matrix(column, self.kept, self.scale))
            for number, column in sorted(enumerate(columns.T), key=lambda one: -int((group == one[0]).sum()))
            if column.any()
        ]
        if len(made) == columns.shape[1]:
            # All are known at some time: one product with the matrix of most of them, the others replace theirs.
            made[0] = (None, made[0][1])
        return made


def _uncovered(masks: Sequence[Tensor]) -> list[Tensor]:
    """Masks without what later ones cover, on the CPU."""
    masks = [mask.to("cpu", torch.bool) for mask in masks]
    if any(mask.dim() == 2 for mask in masks):
        masks = [mask if mask.dim() == 2 else mask[:, None] for mask in masks]
        masks = [mask.expand(-1, max(other.shape[1] for other in masks)) for mask in masks]
    left = []
    for number, mask in enumerate(masks):
        for later in masks[number + 1 :]:
            mask = mask & ~later
        left.append(mask)
    return left


def _add(x: Tensor, matrices: list[tuple[Tensor | None, Tensor]], change: Tensor) -> Tensor:
    """X plus, group by group of features, matrix times change; later groups replace what earlier ones gave."""
    result = x
    for features, matrix in matrices:
        if features is None:
            result = _plus_product(x, matrix, change)
        else:
            some = _plus_product(x.index_select(-1, features), matrix, change.index_select(-1, features))
            result = result.index_copy(-1, features, some)
    return result


def _plus_product(x: Tensor, matrix: Tensor, change: Tensor) -> Tensor:
    # A broadcast product copies the matrix for every sample; this call reads one.
    flat = x.reshape(-1, *x.shape[-2:])
    change = change.expand_as(x).reshape(flat.shape)
    with torch.autocast(x.device.type, enabled=False):
        return torch.baddbmm(flat, matrix.expand(len(flat), *matrix.shape), change).reshape(x.shape)


@torch.no_grad()
def sample(
    denoise: Denoise,
    x: Tensor,
    steps: Tensor,
    alpha_hat: Tensor,
    *,
    prediction: str = "noise",
    known: Sequence[Known] = (),
    noise: Noise | None = None,
    sampler: str = "ddim",
    scale: Tensor | None = None,
) -> Iterator[Tensor]:
    """Go from noise to motion coefficients and yield them after every step; the last ones are the samples.

    Those carry noise of level sqrt(1 - alpha_hat[0]), as published.

    Samplers: `ddim` (eta 0) draws new noise for the known parts at every step, as published. `fixed_known` draws it
    once for the whole way, which makes that a smooth one. `dpm_solver_pp_2m` extrapolates x0 of the unknown part from
    the last two steps (DPM-Solver++, second order multistep) and treats the known part as `ddim` does.

    Args:
        denoise: (x, number of the step) to the network's output.
        x: (..., n, F) standard normal.
        steps: (S, 2) as `visited` gives them.
        alpha_hat: (T,) on any device.
        prediction: what the network gives: noise, x0 or v.
        known: parts that are held.
        noise: source of the noise of known parts, called as (step, number of the part, shape); None = torch's own.
        sampler: one of `SAMPLERS`.
        scale: (n,) what the coefficients were divided by, None = 1.

    Yields:
        (..., n, F), S times.
    """
    if sampler not in SAMPLERS:
        raise ConfigError(f"No sampler is called {sampler!r}. Use one of {', '.join(SAMPLERS)}.")
    alpha_hat = alpha_hat.to(x.device)
    completion = Completion(known, x.shape[-2], scale)
    draw = _source(noise, x) if sampler != "fixed_known" else _fixed(_source(noise, x))
    solver = _Multistep(alpha_hat) if sampler == "dpm_solver_pp_2m" else None
    for number, (t, after) in enumerate(steps.tolist()):
        index = len(steps) - 1 - number
        output = denoise(x, number).to(x.dtype)
        start = to_start(prediction, output, x, t, alpha_hat)
        if solver is None:
            x = q_sample(start, after, to_noise(prediction, output, x, t, alpha_hat), alpha_hat)
        else:
            x = solver.step(x, start, t, after, completion, index)
        x = completion(x, _noisy(completion, index, number, after, alpha_hat, x, draw), index)
        yield x


def _noisy(
    completion: Completion, index: int, number: int, level: int, alpha_hat: Tensor, x: Tensor, draw: Noise
) -> list[Tensor]:
    """Coefficients of each active part at a noise level."""
    signal, spread = levels(alpha_hat, level, x)
    parts = []
    for part in completion.active(index):
        known = completion.known[part]
        coefficients = known.coefficients.to(x)
        shape = tuple(coefficients.shape if known.shared else x.shape)
        parts.append(signal * coefficients + spread * draw(number, part, shape))
    return parts


def _source(noise: Noise | None, like: Tensor) -> Noise:
    if noise is not None:
        return noise
    return lambda step, part, shape: torch.randn(shape, dtype=like.dtype, device=like.device)


def _fixed(draw: Noise) -> Noise:
    """The noise of the first step in which a part is held, at every step."""
    drawn: dict[int, Tensor] = {}

    def fixed(step: int, part: int, shape: tuple[int, ...]) -> Tensor:
        if part not in drawn:
            drawn[part] = draw(0, part, shape)
        return drawn[part]

    return fixed


class _Multistep:
    """DPM-Solver++(2M) between noise levels of a table, with limited extrapolation.

    x0 is extrapolated half a step ahead, in terms of half the logarithm of the ratio of signal and noise. Even steps in
    t grow in these terms towards the end, where x0 hardly changes any more: half of a long step from a short one
    overshoots (with 20 steps and normal motions the result is then worse than that of `ddim`), so half of the last step
    is the limit.

    Source: Lu et al. 2022, algorithm 2; the limit is ours.
    """

    def __init__(self, alpha_hat: Tensor) -> None:
        self.alpha_hat = alpha_hat.double().cpu()
        self._last: tuple[Tensor, float] | None = None  # x0 of the step before, and how far it went

    def step(self, x: Tensor, start: Tensor, t: int, after: int, completion: Completion, index: int) -> Tensor:
        """From level t to `after`, extrapolating what completion will not replace."""
        here, there = float(self.alpha_hat[t]), float(self.alpha_hat[after])
        way = (math.log(there / (1 - there)) - math.log(here / (1 - here))) / 2
        reached = start
        if self._last is not None:
            before, last_way = self._last
            change = start - before
            reached = start + (change - completion.of(change, index)) * min(way / (2 * last_way), 0.5)
        self._last = (start, way)
        shrink = math.sqrt((1 - there) / (1 - here))
        return shrink * x - math.sqrt(there) * math.expm1(-way) * reached
