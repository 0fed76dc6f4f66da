"""MotionMLP: contract, a plain loop as oracle, levels of noise on the condition, measured sizes of the condition."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from kinema.errors import DataError
from kinema.models.motion_mlp import MotionMLP
from kinema.testing import check_model
from tests.models import oracle


def small(**changes: Any) -> dict[str, Any]:
    values = {
        "kept_coeffs": 5, "num_features": 12, "condition_frames": 4, "dim": 16, "time_dim": 6, "depth": 2,
        "dropout": 0.0,
    }  # fmt: skip
    return {**values, **changes}


CASES = (
    small(),
    small(kept_coeffs=3, num_features=7, condition_frames=3, dim=10, time_dim=5, depth=1),
    small(kept_coeffs=1, condition_frames=9, dim=12, depth=3, dropout=0.3),
)


def scattered(**changes: Any) -> MotionMLP:
    model = MotionMLP(**small(**changes)).double().eval()
    oracle.scatter(model)
    return model


def test_keeps_the_model_contract() -> None:
    check_model(MotionMLP, *CASES)


@pytest.mark.slow
def test_compiles() -> None:
    check_model(MotionMLP, small(), compile_backend="inductor")


def plain(x: Tensor, t: float, condition: Tensor | None, level: float, model: MotionMLP) -> Tensor:
    """One sample, layer by layer."""
    state, part, linear, norm = model.state_dict(), oracle.part, oracle.linear, oracle.norm

    def silu(value: Tensor) -> Tensor:
        return value * torch.sigmoid(value)

    def embedded(name: str, value: float) -> Tensor:
        width = model.arguments["time_dim"]
        angles = [value * math.exp(-math.log(10000) * j / (width // 2)) for j in range(width // 2)]
        wave = [math.cos(a) for a in angles] + [math.sin(a) for a in angles] + [0.0] * (width % 2)
        inner = silu(linear(torch.tensor(wave, dtype=x.dtype), part(state, f"{name}.0")))
        return linear(inner, part(state, f"{name}.2"))

    hidden, style = linear(x.reshape(-1), part(state, "motion_embed")), embedded("time_embed", t)
    if condition is not None:
        hidden = hidden + linear(condition.reshape(-1), part(state, "condition_embed"))
        style = style + embedded("level_embed", 1000 * level)
    style = silu(style)
    for number in range(model.arguments["depth"]):
        inner = part(state, f"blocks.{number}")
        told = linear(style, part(inner, "style"))
        scale, shift = told[: len(hidden)], told[len(hidden) :]
        value = norm(hidden, part(inner, "norm"), 1e-5) * (1 + scale) + shift
        hidden = hidden + linear(silu(linear(value, part(inner, "linear1"))), part(inner, "linear2"))
    return linear(silu(norm(hidden, part(state, "norm"), 1e-5)), part(state, "out")).reshape(x.shape)


@pytest.mark.parametrize("time_dim", [6, 7])
def test_equals_the_plain_network(time_dim: int) -> None:
    model = scattered(time_dim=time_dim)
    x, t, condition = (one.double() if one.is_floating_point() else one for one in model.signature.example(3))
    level = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    with torch.no_grad():
        seen, unseen = model(x, t, condition, level=level), model(x, t)
    for row in range(3):
        time = float(t[row])
        torch.testing.assert_close(seen[row], plain(x[row], time, condition[row], float(level[row]), model))
        torch.testing.assert_close(unseen[row], plain(x[row], time, None, 0.0, model))


def test_a_fresh_network_gives_zeros() -> None:
    model = MotionMLP(**small()).eval()
    assert not model(*model.signature.example(2)).any()


def test_the_size_of_a_condition_is_measured_and_stays_with_the_weights() -> None:
    conditions = 3 + 2 * torch.randn(500, 4, 12, generator=torch.Generator().manual_seed(0))
    conditions[:, 1] *= 5
    conditions[:, 2] = 7.0  # a row that never changes
    model = MotionMLP(**small())
    model.calibrate(conditions)
    seen = model.standardised(conditions)
    assert seen.mean(0).abs().max() < 1e-5
    torch.testing.assert_close(seen.square().mean((0, 2))[[0, 1, 3]], torch.ones(3))
    assert torch.isfinite(seen).all()
    other = MotionMLP(**small())
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other.standardised(conditions[None]), seen[None])


def test_another_number_of_rows_is_refused() -> None:
    model = MotionMLP(**small())
    x, t, condition = model.signature.example(2)
    with pytest.raises(DataError, match="condition"):
        model(x, t, condition[:, 1:])
