"""The space of diffusion: published arithmetic by default, round trips and invariances of every option."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kinema.core.dct import orthonormal_dct_matrix
from kinema.core.diffusion import PADDINGS, padded
from kinema.core.heading import heading, turn
from kinema.core.motion_space import RESIDUALS, MotionSpace, measured_scale
from kinema.errors import ConfigError, DataError

few = settings(max_examples=25, deadline=None)
HISTORY, HORIZON, FEATURES = 3, 6, 12
FRAMES = HISTORY + HORIZON
HIPS = (0, 2)


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def space(kept: int = FRAMES, **options: Any) -> MotionSpace:
    return MotionSpace(HISTORY, HORIZON, kept, hips=HIPS, **options)


def positive(size: int) -> st.SearchStrategy[tuple[float, ...]]:
    return st.lists(st.floats(0.05, 20), min_size=size, max_size=size).map(tuple)


@st.composite
def spaces(draw: st.DrawFn, kept: int = FRAMES) -> MotionSpace:
    return space(
        kept,
        padding=draw(st.sampled_from(PADDINGS)),
        heading=draw(st.booleans()),
        residual=draw(st.sampled_from(RESIDUALS)),
        scale=draw(st.none() | positive(kept)),
        condition_scale=draw(st.none() | positive(kept)),
        compat_padding=draw(st.booleans()),
    )


@few
@given(st.integers(1, FRAMES), st.sampled_from(PADDINGS), st.integers(0, 99))
def test_by_default_it_is_the_published_arithmetic(kept: int, padding: str, seed: int) -> None:
    motion, dct = drawn(seed, 2, FRAMES, FEATURES), orthonormal_dct_matrix(FRAMES, kept)
    encoded = space(kept, padding=padding).encode(motion)
    known = torch.stack([dct @ one for one in padded(motion, HISTORY, padding)])
    torch.testing.assert_close(encoded.coeffs, torch.stack([dct @ one for one in motion]))
    torch.testing.assert_close(encoded.condition, known)
    torch.testing.assert_close(encoded.known, known)
    assert (encoded.angle, encoded.offset) == (None, None)
    samples = drawn(seed + 1, 2, 4, kept, FEATURES)
    torch.testing.assert_close(space(kept).decode(samples, encoded)[1, 3], dct.T @ samples[1, 3])


@few
@given(spaces(), st.integers(0, 99))
def test_all_coefficients_give_the_motion_back(one: MotionSpace, seed: int) -> None:
    motion = drawn(seed, 3, FRAMES, FEATURES)
    encoded = one.encode(motion)
    assert encoded.coeffs is not None
    torch.testing.assert_close(one.decode(encoded.coeffs, encoded), motion, rtol=1e-6, atol=1e-8)
    # Samples of one motion share what was done to it.
    samples = torch.stack([encoded.coeffs, encoded.known], dim=1)
    found = one.decode(samples, encoded)
    torch.testing.assert_close(found[:, 0], motion, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(one.project(found[:, 1], encoded), encoded.known, rtol=1e-6, atol=1e-8)


@few
@given(spaces(), st.integers(0, 99))
def test_what_is_held_is_the_padded_history(one: MotionSpace, seed: int) -> None:
    motion = drawn(seed, 2, FRAMES, FEATURES)
    encoded = one.encode_history(motion)
    expected = padded(motion, HISTORY, one.padding, compat=one.compat_padding)
    torch.testing.assert_close(one.decode(encoded.known, encoded), expected, rtol=1e-6, atol=1e-8)


@few
@given(spaces(4), st.integers(0, 99))
def test_the_future_is_never_read(one: MotionSpace, seed: int) -> None:
    motion = drawn(seed, 2, FRAMES, FEATURES)
    whole, alone = one.encode(motion), one.encode_history(motion[:, :HISTORY])
    other = one.encode_history(torch.cat([motion[:, :HISTORY], drawn(seed + 1, 2, HORIZON, FEATURES)], dim=1))
    for field in ("condition", "known", "angle", "offset"):
        for found in (alone, other):
            torch.testing.assert_close(getattr(found, field), getattr(whole, field), rtol=0, atol=0)
    assert alone.coeffs is None


@few
@given(spaces(4), st.floats(-3, 3), st.integers(0, 99))
def test_with_headings_a_turned_motion_looks_the_same(one: MotionSpace, by: float, seed: int) -> None:
    motion = drawn(seed, 2, FRAMES, FEATURES)
    turned = turn(motion, torch.full((2,), by, dtype=torch.float64))
    encoded, other = one.encode(motion), one.encode(turned)
    if one.heading:
        torch.testing.assert_close(other.coeffs, encoded.coeffs, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(other.condition, encoded.condition, rtol=1e-6, atol=1e-6)
    samples = drawn(seed + 1, 2, 3, 4, FEATURES)
    found, expected = one.decode(samples, other), one.decode(samples, encoded)
    by_each = torch.full((2,), by, dtype=torch.float64)
    if one.heading:
        torch.testing.assert_close(found, turn(expected, by_each), rtol=1e-6, atol=1e-6)


def test_the_last_observed_hips_lie_along_x() -> None:
    motion = drawn(0, 3, FRAMES, FEATURES)
    one = space(heading=True)
    encoded = one.encode(motion)
    assert encoded.coeffs is not None
    seen = one.decode(encoded.coeffs, encoded.__class__(encoded.condition, encoded.known))  # not turned back
    pose = seen[:, HISTORY - 1].unflatten(-1, (-1, 3))
    torch.testing.assert_close(heading(pose, HIPS), torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize(("residual", "frames"), [("last_pose", 1), ("padded", FRAMES)])
def test_residuals_are_differences_to_the_history(residual: str, frames: int) -> None:
    motion = drawn(0, 2, FRAMES, FEATURES)
    encoded = space(residual=residual).encode(motion)
    assert encoded.offset is not None
    assert encoded.offset.shape == (2, frames, FEATURES)
    reference = motion[:, HISTORY - 1 : HISTORY] if residual == "last_pose" else padded(motion, HISTORY)
    torch.testing.assert_close(encoded.coeffs, orthonormal_dct_matrix(FRAMES) @ (motion - reference))
    if residual == "padded":
        assert (encoded.known == 0).all()


def test_scales_divide_their_coefficients() -> None:
    motion, plain = drawn(0, 5, FRAMES, FEATURES), space(3)
    wide = plain.encode(motion)
    assert wide.coeffs is not None
    scale = measured_scale(wide.coeffs)
    slow = [math.sqrt(float(wide.coeffs[:, k].square().sum()) / (5 * FEATURES)) for k in range(3)]
    assert scale == pytest.approx(slow)
    encoded = space(3, scale=scale, condition_scale=(1.0, 2.0, 4.0)).encode(motion)
    assert encoded.coeffs is not None
    torch.testing.assert_close(encoded.coeffs.square().mean((0, 2)), torch.ones(3, dtype=torch.float64))
    for k in range(3):
        torch.testing.assert_close(encoded.known[:, k], wide.known[:, k] / scale[k])
        torch.testing.assert_close(encoded.condition[:, k], wide.condition[:, k] / 2**k)


def test_a_coefficient_that_never_differs_from_zero_still_has_a_size() -> None:
    assert measured_scale(torch.zeros(2, 1, 3)) == (1e-6,)


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({"kept": 10}, r"model\.kept_coeffs=9"),
        ({"kept": 0}, r"model\.kept_coeffs=9"),
        ({"residual": "first"}, r"task\.residual=none or last_pose or padded"),
        ({"padding": "mirror"}, r"task\.padding=last_frame"),
        ({"scale": (1.0,)}, r"task\.coeff_scale=null"),
        ({"condition_scale": (1.0,)}, r"task\.condition_scale=null"),
    ],
)
def test_impossible_spaces_are_refused(options: dict[str, Any], remedy: str) -> None:
    with pytest.raises(ConfigError, match=remedy):
        space(**options)


def test_headings_need_hips() -> None:
    with pytest.raises(ConfigError, match=r"task\.heading=false"):
        MotionSpace(HISTORY, HORIZON, 4, heading=True)


def test_motions_of_another_length_are_refused() -> None:
    one = space()
    with pytest.raises(DataError, match="N=9"):
        one.encode(torch.zeros(1, FRAMES + 1, FEATURES))
    with pytest.raises(DataError, match="3 frames or more"):
        one.encode_history(torch.zeros(1, HISTORY - 1, FEATURES))
    with pytest.raises(DataError, match="3 frames or more"):
        one.encode_history(torch.zeros(HISTORY, FEATURES))
