"""HumanMAC: contract, published sizes and counts, plain loops as oracle."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from kinema.composition import create
from kinema.errors import ConfigError
from kinema.inference.complexity import count_macs, count_parameters
from kinema.inference.denoise import denoiser
from kinema.models.humanmac import HumanMAC
from kinema.models.smrnet import SMRNet
from kinema.testing import check_model
from tests.models import oracle
from tests.models.configs import arguments
from tests.models.test_smrnet import gelu, heads_of, inputs
from tests.models.test_smrnet import small as small_smrnet


def small(**changes: Any) -> dict[str, Any]:
    values = {"kept_coeffs": 5, "num_features": 12, "dim": 16, "ff_dim": 10, "depth": 4, "num_heads": 4, "dropout": 0.0}
    return {**values, **changes}


CASES = (
    small(),
    small(kept_coeffs=3, num_features=7, dim=12, ff_dim=20, num_heads=3, depth=2),
    small(kept_coeffs=1, dim=9, num_heads=1, depth=6, dropout=0.3),
)


def scattered(**changes: Any) -> HumanMAC:
    model = HumanMAC(**small(**changes)).double().eval()
    oracle.scatter(model)
    return model


def test_keeps_the_model_contract() -> None:
    check_model(HumanMAC, *CASES)


@pytest.mark.slow
def test_compiles() -> None:
    check_model(HumanMAC, small(depth=2), compile_backend="inductor")


@pytest.mark.parametrize(
    ("name", "parameters", "macs"), [("humanmac", 28_401_712, 391.15), ("humanmac_humaneva", 14_451_754, 100.15)]
)
def test_has_the_published_size_and_products(name: str, parameters: int, macs: float) -> None:
    with torch.device("meta"):
        model = create(name)
    assert count_parameters(model) == parameters
    assert count_macs(model).total / 1e6 == pytest.approx(macs, abs=0.005)


def plain(x: Tensor, t: int, condition: Tensor | None, model: HumanMAC) -> Tensor:
    """One sample from the text of the notes on the published code."""
    state, heads, dim = model.state_dict(), model.arguments["num_heads"], model.arguments["dim"]
    part, linear, norm = oracle.part, oracle.linear, oracle.norm
    half = dim // 2
    angles = [t * math.exp(-math.log(10000) * j / half) for j in range(half)]
    wave = [math.cos(a) for a in angles] + [math.sin(a) for a in angles] + [0.0] * (dim % 2)
    time = linear(torch.tensor(wave, dtype=x.dtype), part(state, "time_embed.0"))
    style = linear(time * torch.sigmoid(time), part(state, "time_embed.2"))
    if condition is not None:
        style = style + linear(condition.reshape(-1), part(state, "cond_embed"))

    def styled(h: Tensor, inner: dict[str, Tensor]) -> Tensor:
        told = linear(style * torch.sigmoid(style), part(inner, "emb_layers.1"))
        h = norm(h, part(inner, "norm"), 1e-5) * (1 + told[:dim]) + told[dim:]
        return linear(h * torch.sigmoid(h), part(inner, "out_layers.2"))

    h = linear(x, part(state, "joint_embed")) + state["sequence_embedding"]
    stack = []
    for level in range(model.arguments["depth"]):
        block = part(state, f"temporal_decoder_blocks.{level}")
        if level < model.arguments["depth"] // 2:
            stack.append(h)
        att, ffn = part(block, "sa_block"), part(block, "ffn")
        y = norm(h, part(att, "norm"), 1e-5)
        query, key, value = (linear(y, part(att, name)) for name in ("query", "key", "value"))
        h = h + styled(heads_of(query, key, value, heads), part(att, "proj_out"))
        inner = linear(gelu(linear(h, part(ffn, "linear1"))), part(ffn, "linear2"))
        h = h + styled(inner, part(ffn, "proj_out"))
        if level >= model.arguments["depth"] // 2:
            h = h + stack.pop()
    return linear(h, part(state, "out"))


@pytest.mark.parametrize("changes", [{}, {"dim": 9, "num_heads": 3, "kept_coeffs": 2, "depth": 2}])
def test_equals_a_plain_loop(changes: dict[str, Any]) -> None:
    model = scattered(**changes)
    x, t, condition = inputs(model, 3)
    for given in (condition, None):
        wanted = [plain(x[i], int(t[i]), None if given is None else given[i], model) for i in range(3)]
        torch.testing.assert_close(model(x, t, given), torch.stack(wanted), rtol=1e-9, atol=1e-9)


def test_starts_from_zero_noise_and_blocks_that_do_nothing() -> None:
    model = HumanMAC(**small())
    assert not model(*model.signature.example(2)).any()
    x = torch.randn(2, 5, 16)
    assert torch.equal(model.temporal_decoder_blocks[0](x, torch.randn(2, 1, 16)), x)
    assert not model.temporal_decoder_blocks[0].ffn.linear2.weight.any()


def test_released_size_is_shared_in_single_precision() -> None:
    torch.manual_seed(0)
    model = HumanMAC(**{**arguments("humanmac"), "depth": 2}).eval()
    oracle.scatter(model, 0.02)
    x, _, condition = model.signature.example(6)
    x, steps = x.view(2, 3, *x.shape[1:]), torch.tensor([991, 1])
    shared, plain_form = (denoiser(model, condition[:2], steps, 2, plain=choice) for choice in (False, True))
    for step in range(2):
        expected = plain_form(x, step)
        torch.testing.assert_close(shared(x, step), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize(("depth", "remedy"), [(1, 2), (3, 2), (7, 6), (0, 2)])
def test_an_odd_depth_is_refused_with_one_that_works(depth: int, remedy: int) -> None:
    with pytest.raises(ConfigError, match=rf"long skips .*{depth} blocks.*Use model\.depth={remedy}\.$"):
        HumanMAC(**small(depth=depth))


def test_is_told_from_smrnet() -> None:
    mine = {name: tuple(tensor.shape) for name, tensor in HumanMAC(**small()).state_dict().items()}
    other = {name: tuple(tensor.shape) for name, tensor in SMRNet(**small_smrnet()).state_dict().items()}
    assert HumanMAC.recognise(other) is None and SMRNet.recognise(mine) is None
    found = HumanMAC.recognise(mine)
    assert found == {name: value for name, value in small().items() if name not in ("num_heads", "dropout")}
