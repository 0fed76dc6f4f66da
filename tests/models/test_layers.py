"""Attention, MLP and drop path."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from kinema.errors import ConfigError
from kinema.models.layers.attention import Attention, attend_in_parts
from kinema.models.layers.block import TransformerBlock
from kinema.models.layers.drop_path import DropPath, drop_path_rates
from kinema.models.layers.mlp import MLP
from tests.models import oracle


@pytest.mark.parametrize("qkv_bias", [True, False])
def test_attention_equals_a_plain_loop(qkv_bias: bool) -> None:
    layer = Attention(6, 3, qkv_bias=qkv_bias).double()
    oracle.scatter(layer)
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    expected = [[oracle.attention(tokens, layer.state_dict(), 3) for tokens in row] for row in x]
    torch.testing.assert_close(layer(x), torch.stack([torch.stack(row) for row in expected]))


def test_attention_along_another_axis_is_a_transposition() -> None:
    layer = Attention(8, 2)
    x = torch.randn(3, 7, 4, 8)
    expected = torch.stack([layer(x[:, :, joint]) for joint in range(4)], dim=2)
    torch.testing.assert_close(layer(x.transpose(1, 2)).transpose(1, 2), expected)


@pytest.mark.parametrize("size", [1, 2, 5, 9])
def test_attention_in_parts_equals_attention_at_once(size: int) -> None:
    query, key, value = torch.randn(3, 5, 2, 4, 6, dtype=torch.float64).unbind(0)
    whole = F.scaled_dot_product_attention(query, key, value)
    torch.testing.assert_close(attend_in_parts(query, key, value, 0.0, size), whole)


def test_attention_drops_weights_only_in_training() -> None:
    layer = Attention(8, 2, attn_dropout=0.5)
    x = torch.randn(2, 6, 8)
    assert torch.equal(layer.eval()(x), layer(x))
    assert not torch.equal(layer.train()(x), layer(x))


def test_block_is_prenorm_and_residual() -> None:
    block = TransformerBlock(6, 2, 9).double()
    oracle.scatter(block)
    state, x = block.state_dict(), torch.randn(5, 6, dtype=torch.float64)
    y = x + oracle.attention(oracle.norm(x, oracle.part(state, "norm1"), 1e-6), oracle.part(state, "attn"), 2)
    y = y + oracle.mlp(oracle.norm(y, oracle.part(state, "norm2"), 1e-6), oracle.part(state, "mlp"))
    torch.testing.assert_close(block(x[None])[0], y)


def test_mlp_drops_after_both_layers() -> None:
    layer = MLP(3, 4, dropout=0.5)
    calls: list[torch.Size] = []
    layer.dropout.register_forward_hook(lambda _, args, __: calls.append(args[0].shape))
    layer(torch.randn(2, 3))
    assert calls == [(2, 4), (2, 3)]


@pytest.mark.parametrize(("sample_axes", "shape"), [(1, (4000, 3, 2)), (2, (40, 100, 3, 2))])
def test_drop_path_drops_whole_samples_and_keeps_the_mean(sample_axes: int, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    out = DropPath(0.25, sample_axes=sample_axes)(torch.ones(shape)).flatten(0, sample_axes - 1).flatten(1)
    values = out.unique()
    torch.testing.assert_close(values, torch.tensor([0.0, 4 / 3]))
    assert torch.equal(out.amin(1), out.amax(1))  # a sample is dropped or kept as a whole
    assert abs(out.mean().item() - 1) < 0.05


def test_drop_path_mask_is_the_published_one() -> None:
    x = torch.randn(6, 5, 3, 2)
    torch.manual_seed(3)
    found = DropPath(0.4, sample_axes=2)(x)
    torch.manual_seed(3)
    mask = (0.6 + torch.rand(30, 1, 1)).floor()  # published code: first axis is batch times frames
    torch.testing.assert_close(found, (x.flatten(0, 1) / 0.6 * mask).unflatten(0, (6, 5)))


def test_drop_path_draws_nothing_where_it_does_nothing() -> None:
    x, state = torch.randn(4, 3), torch.get_rng_state()
    assert DropPath(0.0)(x) is x
    assert DropPath(0.5).eval()(x) is x
    assert torch.equal(torch.get_rng_state(), state)


def test_drop_path_keeps_the_rate_in_bfloat16() -> None:
    torch.manual_seed(0)
    out = DropPath(0.001)(torch.ones(20_000, 1, dtype=torch.bfloat16))
    assert out.dtype == torch.bfloat16
    assert 2 < (out == 0).sum() < 60  # 20 expected; 0.999 + U in bfloat16 never stays below 1


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5])
def test_drop_path_refuses_rates_that_are_none(rate: float) -> None:
    with pytest.raises(ConfigError, match="drop path"):
        DropPath(rate)


@pytest.mark.parametrize(("rate", "depth"), [(0.0, 3), (0.2, 1), (0.2, 4), (0.3, 5)])
def test_drop_path_rates_are_a_linspace(rate: float, depth: int) -> None:
    assert drop_path_rates(rate, depth) == pytest.approx(torch.linspace(0, rate, depth).tolist())
