"""The transform against its formula, one value at a time, and its orthonormal form."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kinema.core.dct import dct_matrix, inverse_dct_matrix, orthonormal_dct_matrix, product

few = settings(max_examples=20, deadline=None)
lengths = st.integers(1, 40)


@few
@given(lengths, st.data())
def test_values_are_those_of_the_formula(length: int, data: st.DataObject) -> None:
    row, column = data.draw(st.integers(0, length - 1)), data.draw(st.integers(0, length - 1))
    angle = math.pi * row * (2 * column + 1) / (2 * length)
    weight = math.sqrt((1 if row == 0 else 2) / length)
    assert math.isclose(dct_matrix(length)[row, column], 2 * math.cos(angle), abs_tol=1e-12)
    assert math.isclose(orthonormal_dct_matrix(length)[row, column], weight * math.cos(angle), abs_tol=1e-12)


@few
@given(lengths)
def test_inverses_undo_the_transforms(length: int) -> None:
    whole = torch.eye(length, dtype=torch.float64)
    orthonormal = orthonormal_dct_matrix(length)
    torch.testing.assert_close(inverse_dct_matrix(length) @ dct_matrix(length), whole, rtol=0, atol=1e-12)
    torch.testing.assert_close(orthonormal.T @ orthonormal, whole, rtol=0, atol=1e-12)


@few
@given(st.integers(2, 40), st.data())
def test_fewer_coefficients_are_the_lowest(length: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, length))
    assert torch.equal(orthonormal_dct_matrix(length, count), orthonormal_dct_matrix(length)[:count])
    assert torch.equal(dct_matrix(length, count), dct_matrix(length)[:count])


def test_product_keeps_its_precision_under_autocast() -> None:
    matrix, x = orthonormal_dct_matrix(125, 20).float(), torch.randn(3, 125, 48, generator=torch.Generator())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = product(matrix, x)
        rounded = matrix @ x
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(found, matrix @ x, rtol=0, atol=0)
