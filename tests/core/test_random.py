"""The counter-based generator: known answers, independence of batches, statistics."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kinema.core import random
from kinema.core.random import deterministic_random, normal, uniform

few = settings(max_examples=25, deadline=None)
DRAWS = [pytest.param(uniform, id="uniform"), pytest.param(normal, id="normal")]


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_known_answers_of_random123(
    counter: tuple[int, ...], key: tuple[int, int], expected: tuple[int, ...]
) -> None:
    a, b, c, d = (torch.tensor([lane]) for lane in counter)
    assert tuple(int(lane) for lane in random._philox((a, b, c, d), key)) == expected


@pytest.mark.parametrize("function", DRAWS)
@few
@given(
    st.integers(0, 2**63),
    st.integers(0, 10**4),
    st.lists(st.integers(0, 2**40), min_size=1, max_size=9),
    st.lists(st.integers(1, 5), max_size=3),
)
def test_a_sample_does_not_depend_on_its_batch(
    function: object, seed: int, epoch: int, draws: list[int], shape: list[int]
) -> None:
    draw = torch.tensor(draws)
    # Uniforms to the bit; a normal's logarithm may round differently with its place in a vector register.
    close = {"rtol": 0.0, "atol": 0.0} if function is uniform else {"rtol": 1e-6, "atol": 1e-6}
    whole = function(seed, epoch, draw, "noise", shape)  # type: ignore[operator]
    assert whole.shape == (len(draws), *shape)
    assert whole.dtype == torch.float32
    single = [function(seed, epoch, draw[i : i + 1], "noise", shape) for i in range(len(draws))]  # type: ignore[operator]
    torch.testing.assert_close(torch.cat(single), whole, **close)
    backwards = function(seed, epoch, draw.flip(0), "noise", shape)  # type: ignore[operator]
    torch.testing.assert_close(backwards.flip(0), whole, **close)
    epochs = function(seed, torch.full((len(draws),), epoch), draw, "noise", shape)  # type: ignore[operator]
    torch.testing.assert_close(epochs, whole, **close)


@pytest.mark.parametrize("function", DRAWS)
def test_a_longer_shape_begins_with_the_values_of_a_shorter_one(function: object) -> None:
    draw = torch.arange(6)
    long = function(1, 2, draw, "x", (23,))  # type: ignore[operator]
    for size in range(24):
        assert torch.equal(function(1, 2, draw, "x", (size,)), long[:, :size])  # type: ignore[operator]


def test_every_part_of_the_key_changes_the_values() -> None:
    draw = torch.arange(1000)
    base = uniform(1, 2, draw, "flip")
    others = {
        "seed": uniform(2, 2, draw, "flip"),
        "epoch": uniform(1, 3, draw, "flip"),
        "name": uniform(1, 2, draw, "mask"),
        "draw": uniform(1, 2, draw + 1000, "flip"),
        "draw beyond 32 bits": uniform(1, 2, draw + 2**32, "flip"),
    }
    for what, other in others.items():
        # Of 1000 pairs of 24-bit numbers none or one is equal; correlation has a spread of 0.03.
        assert (other == base).sum() <= 1, what
        assert abs(torch.corrcoef(torch.stack([base, other]))[0, 1]) < 0.15, what


def test_uniforms_are_uniform() -> None:
    x = uniform(0, 0, torch.arange(2000), "statistics", (50,)).flatten().double()
    assert x.min() >= 0
    assert x.max() < 1
    # The largest distance of 100 000 values from the diagonal exceeds 2 / sqrt(n) once in 1500 seeds.
    distance = (x.sort().values - torch.arange(1, len(x) + 1) / len(x)).abs().max()
    assert distance < 2 / math.sqrt(len(x))
    pairs = x.reshape(-1, 2).T
    assert abs(torch.corrcoef(pairs)[0, 1]) < 4 / math.sqrt(len(x) / 2)


def test_normals_are_normal() -> None:
    x = normal(0, 0, torch.arange(2000), "statistics", (51,)).flatten().double()
    n = len(x)
    assert x.isfinite().all()
    # Four standard errors of each moment.
    assert abs(x.mean()) < 4 / math.sqrt(n)
    assert abs(x.square().mean() - 1) < 4 * math.sqrt(2 / n)
    assert abs((x**3).mean()) < 4 * math.sqrt(15 / n)
    assert abs((x**4).mean() - 3) < 4 * math.sqrt(96 / n)
    distance = (torch.special.ndtr(x.sort().values) - torch.arange(1, n + 1) / n).abs().max()
    assert distance < 2 / math.sqrt(n)


def test_values_are_fixed_for_good() -> None:
    """Changing them would change every augmented training run that is repeated from its seed."""
    draw = torch.tensor([0, 7])
    expected = [[12167218, 13792667, 4792097], [2033751, 565815, 6027837]]
    assert (uniform(1, 2, draw, "flip", (3,)) * 2**24).tolist() == expected


@pytest.mark.gpu
def test_a_gpu_draws_the_same_numbers() -> None:
    draw = torch.arange(300)
    found = uniform(1, 2, draw.cuda(), "x", (243, 17)).cpu()
    assert torch.equal(found, uniform(1, 2, draw, "x", (243, 17)))
    torch.testing.assert_close(normal(1, 2, draw.cuda(), "x", (51,)).cpu(), normal(1, 2, draw, "x", (51,)))


@few
@given(st.integers(-5, 5), st.integers(0, 1000), st.text(max_size=8))
def test_deterministic_random_stays_in_its_range(low: int, width: int, text: str) -> None:
    assert low <= deterministic_random(low, low + width, text) <= low + width
    assert deterministic_random(low, low + width, text) == deterministic_random(low, low + width, text)
