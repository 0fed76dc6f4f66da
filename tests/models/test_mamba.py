"""Mamba blocks: against a plain loop, streaming, initial values, and what they state of their cost."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kinema.errors import ConfigError
from kinema.models.layers.mamba import BiMamba, Mamba
from tests.models import oracle

SIZES: dict[str, Any] = {"d_state": 3, "d_conv": 4, "expand": 2}
OPTIONS = ({}, {"bias": True, "conv_bias": False, "dt_rank": 2}, {"init_layer_scale": 0.1, "expand": 1, "d_conv": 1})


def scattered(made: nn.Module) -> Any:
    made = made.double()
    oracle.scatter(made)
    return made


@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "biases", "gamma"])
@pytest.mark.parametrize("kind", ["official", "v1", "v2"])
@pytest.mark.parametrize("divide", [False, True])
def test_equals_a_plain_loop(kind: str, divide: bool, options: dict[str, Any]) -> None:
    told = {**SIZES, **options}
    made = scattered(Mamba(6, **told) if kind == "official" else BiMamba(6, variant=kind, divide=divide, **told))
    x = torch.randn(2, 7, 6, dtype=torch.float64)
    expected = torch.stack([oracle.mamba(sequence, made.state_dict(), kind, divide) for sequence in x])
    torch.testing.assert_close(made(x), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "biases", "gamma"])
@pytest.mark.parametrize("parts", [(9,), (1, 2, 6), (1,) * 9], ids=str)
@torch.no_grad()
def test_parts_and_steps_continue_each_other(parts: tuple[int, ...], options: dict[str, Any]) -> None:
    made = scattered(Mamba(6, **{**SIZES, **options}))
    x = torch.randn(2, 9, 6, dtype=torch.float64)
    state, stepped = made.start(2), made.start(2)
    whole = made(x)
    outs = []
    for part in x.split(parts, dim=1):
        out, state = made(part, state)
        outs.append(out)
    torch.testing.assert_close(torch.cat(outs, 1), whole, rtol=1e-10, atol=1e-10)
    for t in range(9):
        out, stepped = made.step(x[:, t], stepped)
        torch.testing.assert_close(out, whole[:, t], rtol=1e-10, atol=1e-10)
    for left, right in zip(state, stepped, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-10, atol=1e-10)


def test_initial_values_are_the_published_ones() -> None:
    made = BiMamba(64, variant="v2", d_state=4, d_conv=4, expand=2, init_layer_scale=1e-5)
    for rates, skip, steps in ((made.A_log, made.D, made.dt_proj), (made.A_b_log, made.D_b, made.dt_proj_b)):
        torch.testing.assert_close(rates.exp(), torch.arange(1.0, 5.0).expand(128, 4))
        assert (skip == 1).all()
        sizes = F.softplus(steps.bias)
        assert 1e-3 * 0.99 <= sizes.min() < 3e-3 and 3e-2 < sizes.max() <= 1e-1 * 1.01
        assert steps.weight.abs().max() <= made.dt_rank**-0.5
    assert made.dt_rank == 4 == math.ceil(64 / 16)
    assert made.gamma is not None and (made.gamma == 1e-5).all()


def test_the_stated_cost_is_the_closed_form() -> None:
    # dbmambapose.md 1.2, per token: D * K, D * (R + 2 N), R * D and D * (3 N + 1) for each direction.
    dim, inner, states, taps, rank = 32, 64, 5, 3, 2
    sizes: dict[str, Any] = {"d_state": states, "d_conv": taps, "expand": 2}
    direction = inner * taps + inner * (rank + 2 * states) + rank * inner + inner * (3 * states + 1)
    both = dim * 2 * inner, inner * dim
    for made, directions in ((Mamba(dim, **sizes), 1), (BiMamba(dim, variant="v2", **sizes), 2)):
        assert sum(made.stated_macs(10).values()) == 10 * (sum(both) + directions * direction)
        assert made.visible_macs(10) == 10 * both[0]
    shared = BiMamba(dim, variant="v1", **sizes)  # scans twice what is convolved and projected once
    assert sum(shared.stated_macs(1).values()) == sum(both) + direction + inner * (3 * states + 1)


def test_half_precision_keeps_the_scan_in_float32() -> None:
    made = BiMamba(8, variant="v2", **SIZES)
    oracle.scatter(made)
    x = torch.randn(2, 30, 8)
    exact = made(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = made(x)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), exact, rtol=0.05, atol=0.05 * exact.abs().max().item())


def test_refuses_unknown_words_and_streams_one_way_only() -> None:
    with pytest.raises(ConfigError, match="'v1' or 'v2'"):
        BiMamba(8, variant="v3", **SIZES)
    with pytest.raises(ConfigError, match="backend"):
        Mamba(8, **SIZES, scan_backend="fast")
    with pytest.raises(ConfigError, match="mixer=official"):
        BiMamba(8, variant="v2", **SIZES).start(1)
