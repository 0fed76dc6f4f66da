"""Sampling: completion against inverse transform, mask and transform; DDIM against its formulas; order of samplers."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kinema.core.dct import orthonormal_dct_matrix
from kinema.core.diffusion import PREDICTIONS, alpha_hats, target, visited
from kinema.core.sampling import SAMPLERS, Completion, Denoise, Known, completion_matrix, sample
from kinema.errors import ConfigError

few = settings(max_examples=25, deadline=None)
FRAMES, KEPT, FEATURES = 12, 5, 6


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def masks(features: bool) -> st.SearchStrategy[Tensor]:
    size = FRAMES * FEATURES if features else FRAMES
    shape = (FRAMES, FEATURES) if features else (FRAMES,)
    return st.lists(st.booleans(), min_size=size, max_size=size).map(lambda bits: torch.tensor(bits).reshape(shape))


any_mask = st.booleans().flatmap(masks)


def slow_completion(x: Tensor, parts: list[tuple[Tensor, Tensor]], scale: Tensor | None = None) -> Tensor:
    """The published way: to frames, choose, and back; later parts over earlier ones."""
    dct = orthonormal_dct_matrix(FRAMES, KEPT)
    size = torch.ones(KEPT, dtype=torch.float64) if scale is None else scale
    motion = dct.T @ (x * size[:, None])
    for mask, noisy in parts:
        chosen = (mask if mask.dim() == 2 else mask[:, None]).expand(-1, x.shape[-1])
        motion = torch.where(chosen, dct.T @ (noisy * size[:, None]), motion)
    return (dct @ motion) / size[:, None]


@few
@given(st.lists(any_mask, min_size=0, max_size=3), st.integers(1, 3), st.booleans(), st.integers(0, 99))
def test_completion_is_inverse_transform_mask_and_transform(
    parts: list[Tensor], batch: int, scaled: bool, seed: int
) -> None:
    x = drawn(seed, batch, 2, KEPT, FEATURES)
    scale = drawn(seed + 1, KEPT).abs() + 0.1 if scaled else None
    # A known part of one window is the same for its samples.
    noisy = [drawn(seed + 2 + number, batch, 1, KEPT, FEATURES) for number in range(len(parts))]
    known = [Known(coeffs, mask) for coeffs, mask in zip(noisy, parts, strict=True)]
    found = Completion(known, KEPT, scale)(x, noisy, 0)
    expected = slow_completion(x, list(zip(parts, (one.expand_as(x) for one in noisy), strict=True)), scale)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@few
@given(st.lists(any_mask, min_size=1, max_size=3), st.integers(0, 99))
def test_the_known_part_of_a_change_is_what_completion_would_replace(parts: list[Tensor], seed: int) -> None:
    x = drawn(seed, 2, KEPT, FEATURES)
    zero = torch.zeros_like(x)
    completion = Completion([Known(zero, mask) for mask in parts], KEPT)
    # Completing with zeros leaves the rest.
    torch.testing.assert_close(x - completion.of(x, 0), completion(x, [zero] * len(parts), 0))


@pytest.mark.parametrize("width", [1, 3])
def test_a_mask_of_equal_columns_is_one_of_frames(width: int) -> None:
    mask = torch.arange(FRAMES) < 4
    completion = Completion([Known(torch.zeros(KEPT, width), mask[:, None].expand(-1, width))], KEPT)
    ((features, matrix),) = completion._grouped(completion.known[0].mask)
    assert features is None
    assert torch.equal(matrix, completion_matrix(mask, KEPT))


def test_samples_are_completed_in_the_type_and_layout_they_have() -> None:
    x = torch.randn(2, FEATURES, KEPT).transpose(1, 2)
    known = Known(torch.zeros(KEPT, FEATURES), torch.arange(FRAMES) < 4)
    completion = Completion([known], KEPT)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = completion(x, [known.coefficients], 0)
    assert found.dtype == torch.float32
    expected = slow_completion(x.double(), [(known.mask, torch.zeros(2, KEPT, FEATURES).double())])
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)


ALPHA_HAT = alpha_hats("cosine", 1000)


def network(prediction: str, seed: int = 3) -> tuple[Denoise, list[int]]:
    """A made-up network, a smooth function of its input, and the numbers of the steps at which it was called."""
    weight, calls = drawn(seed, KEPT, KEPT) / KEPT, []

    def denoise(x: Tensor, step: int) -> Tensor:
        calls.append(step)
        return torch.tanh(weight @ x + 0.1 * step)

    return denoise, calls


def slow_ddim(
    denoise: Denoise,
    x: Tensor,
    steps: list[list[int]],
    parts: list[Known],
    noise: Callable[[int, int, tuple[int, ...]], Tensor],
    prediction: str,
) -> list[Tensor]:
    """The formulas of the paper with plain numbers, step by step."""
    seen = []
    for number, (t, after) in enumerate(steps):
        share, later = float(ALPHA_HAT[t]), float(ALPHA_HAT[after])
        output = denoise(x, number)
        if prediction == "noise":
            eps, start = output, (x - math.sqrt(1 - share) * output) / math.sqrt(share)
        elif prediction == "x0":
            eps, start = (x - math.sqrt(share) * output) / math.sqrt(1 - share), output
        else:
            eps = math.sqrt(share) * output + math.sqrt(1 - share) * x
            start = math.sqrt(share) * x - math.sqrt(1 - share) * output
        x = math.sqrt(later) * start + math.sqrt(1 - later) * eps
        held = []
        for part, known in enumerate(parts):
            if len(steps) - 1 - number >= known.until:
                shape = known.coefficients.shape if known.shared else x.shape
                xi = noise(number, part, tuple(shape))
                noisy = math.sqrt(later) * known.coefficients + math.sqrt(1 - later) * xi
                held.append((known.mask, noisy.expand_as(x)))
        x = slow_completion(x, held)
        seen.append(x)
    return seen


@few
@given(
    st.sampled_from(PREDICTIONS),
    st.lists(st.tuples(any_mask, st.integers(0, 5), st.booleans()), max_size=2),
    st.integers(0, 99),
)
def test_every_step_is_that_of_the_plain_formulas(
    prediction: str, asked: list[tuple[Tensor, int, bool]], seed: int
) -> None:
    parts = [Known(drawn(seed + n, 1, KEPT, FEATURES), *one) for n, one in enumerate(asked)]
    steps, start = visited(1000, 5), drawn(seed, 3, KEPT, FEATURES)

    def noise(step: int, part: int, shape: tuple[int, ...]) -> Tensor:
        return drawn(1000 + 10 * step + part, *shape)

    denoise, calls = network(prediction)
    found = list(sample(denoise, start, steps, ALPHA_HAT, prediction=prediction, known=parts, noise=noise))
    assert calls == [0, 1, 2, 3, 4]
    expected = slow_ddim(network(prediction)[0], start, steps.tolist(), parts, noise, prediction)
    for one, other in zip(found, expected, strict=True):
        # The tables are float32.
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_network_that_knows_the_motion_ends_at_it(sampler: str, prediction: str) -> None:
    """Whatever the sampler and the kind of network: its x0 at the last step is the motion."""
    motion, steps = drawn(0, KEPT, FEATURES), visited(1000, 20)
    known = Known(motion, torch.arange(FRAMES) < 4)

    def denoise(x: Tensor, step: int) -> Tensor:
        t = int(steps[step, 0])
        share = ALPHA_HAT[t].double()
        noise = (x - share.sqrt() * motion) / (1 - share).sqrt()
        return target(prediction, motion.expand_as(x), noise, t, ALPHA_HAT)

    *_, last = sample(
        denoise, drawn(1, 4, KEPT, FEATURES), steps, ALPHA_HAT, prediction=prediction, known=[known], sampler=sampler
    )
    torch.testing.assert_close(last, motion.expand_as(last), rtol=0, atol=0.05)


def gaussian(spread: float, steps: Tensor) -> Denoise:
    """The perfect network for motions of independent normal coefficients of a spread: E[noise | x]."""

    def denoise(x: Tensor, step: int) -> Tensor:
        share = float(ALPHA_HAT[int(steps[step, 0])].double())
        return math.sqrt(1 - share) / (share * spread**2 + 1 - share) * x

    return denoise


def error(count: int, sampler: str, known: list[Known] | None = None) -> float:
    """Distance of the result from that of very many steps, which is known in closed form for `gaussian`."""
    steps, spread = visited(1000, count), 0.5
    start, top, end = drawn(5, 2, KEPT, FEATURES), int(steps[0, 0]), 0

    def width(t: int) -> float:
        share = float(ALPHA_HAT[t].double())
        return math.sqrt(share * spread**2 + 1 - share)

    *_, found = sample(gaussian(spread, steps), start, steps, ALPHA_HAT, known=known or [], sampler=sampler)
    return float((found - start * width(end) / width(top)).abs().max())


@pytest.mark.parametrize("count", [5, 10, 20, 50, 200])
def test_the_second_order_sampler_is_nearer_to_the_limit(count: int) -> None:
    assert error(count, "dpm_solver_pp_2m") < error(count, "ddim") / 2.5


def test_the_first_order_sampler_gains_in_proportion_to_its_steps() -> None:
    assert 3.5 < error(25, "ddim") / error(100, "ddim") < 4.5


def test_the_second_order_sampler_extrapolates_half_a_step() -> None:
    """Two steps by the formulas of the paper."""
    steps, start, denoise = visited(1000, 10), drawn(5, KEPT, FEATURES), network("x0")[0]
    found = list(sample(denoise, start, steps, ALPHA_HAT, prediction="x0", sampler="dpm_solver_pp_2m"))
    share = [float(ALPHA_HAT[t].double()) for t in (*steps[:3, 0].tolist(),)]
    signal, spread = ([math.sqrt(a) for a in shares] for shares in (share, [1 - a for a in share]))
    way = [math.log(signal[i + 1] / spread[i + 1]) - math.log(signal[i] / spread[i]) for i in range(2)]
    first = spread[1] / spread[0] * start - signal[1] * (math.exp(-way[0]) - 1) * denoise(start, 0)
    torch.testing.assert_close(found[0], first)
    ratio = way[0] / way[1]
    assert ratio > 1  # no limit applies
    ahead = (1 + 1 / (2 * ratio)) * denoise(first, 1) - 1 / (2 * ratio) * denoise(start, 0)
    second = spread[2] / spread[1] * first - signal[2] * (math.exp(-way[1]) - 1) * ahead
    torch.testing.assert_close(found[1], second)


def test_the_second_order_sampler_extrapolates_nothing_that_is_known() -> None:
    """Where everything is held, its network's outputs before the last do not matter: as with ddim."""
    steps = visited(1000, 4)
    known = Known(drawn(0, KEPT, FEATURES), torch.ones(FRAMES, dtype=torch.bool))
    runs = [
        list(sample(network("x0")[0], drawn(1, KEPT, FEATURES), steps, ALPHA_HAT, prediction="x0", known=[known],
                    noise=lambda step, part, shape: drawn(step, *shape), sampler=sampler))
        for sampler in ("ddim", "dpm_solver_pp_2m")
    ]  # fmt: skip
    torch.testing.assert_close(runs[0], runs[1])


def test_fixed_known_draws_its_noise_once_per_part() -> None:
    calls: list[tuple[int, int]] = []

    def noise(step: int, part: int, shape: tuple[int, ...]) -> Tensor:
        calls.append((step, part))
        return drawn(part, *shape)

    parts = [Known(drawn(7, KEPT, FEATURES), torch.arange(FRAMES) < 4), Known(drawn(8, KEPT, FEATURES),
             torch.arange(FRAMES) > 9, until=2)]  # fmt: skip
    steps, start = visited(1000, 4), drawn(1, 2, KEPT, FEATURES)
    fixed = list(sample(network("noise")[0], start, steps, ALPHA_HAT, known=parts, noise=noise, sampler="fixed_known"))
    assert calls == [(0, 0), (0, 1)]
    # The same numbers as ddim with a source that gives the same noise at every step.
    same = list(sample(network("noise")[0], start, steps, ALPHA_HAT, known=parts, noise=noise))
    assert len(calls) == 2 + 4 + 2
    torch.testing.assert_close(fixed, same)


def test_without_a_source_noise_is_torchs_own() -> None:
    steps, start = visited(1000, 4), drawn(1, 2, KEPT, FEATURES)
    known = [Known(drawn(0, KEPT, FEATURES), torch.arange(FRAMES) < 4)]
    runs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        runs.append(torch.stack(list(sample(network("noise")[0], start, steps, ALPHA_HAT, known=known))))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_an_unknown_sampler_is_refused() -> None:
    with pytest.raises(ConfigError, match="ddim, fixed_known, dpm_solver_pp_2m"):
        next(sample(network("noise")[0], drawn(0, KEPT, FEATURES), visited(10, 5), ALPHA_HAT, sampler="euler"))


def test_samples_carry_no_gradients() -> None:
    weight = torch.ones(1, requires_grad=True)
    *_, last = sample(lambda x, step: weight * x, torch.randn(KEPT, FEATURES), visited(1000, 2), ALPHA_HAT)
    assert not last.requires_grad
