"""SMRNet: contract, published sizes and counts, plain loops as oracle, samples that share windows."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter
from torch.utils.flop_counter import FlopCounterMode

from kinema.composition import create
from kinema.errors import ConfigError, DataError, KinemaError
from kinema.inference.complexity import count_macs, count_parameters
from kinema.inference.denoise import denoiser
from kinema.models.layers.noise import grouped, timestep_embedding, ungrouped
from kinema.models.smrnet import SMRNet
from kinema.testing import check_model
from tests.models import oracle
from tests.models.configs import arguments

State = dict[str, Tensor]


def small(**changes: Any) -> dict[str, Any]:
    values = {"kept_coeffs": 5, "num_features": 12, "dim": 16, "depth": 3, "num_heads": 4, "dropout": 0.0}
    return {**values, **changes}


CASES = (
    small(),
    small(kept_coeffs=3, num_features=7, dim=12, num_heads=3, depth=1),
    small(kept_coeffs=1, dim=9, num_heads=1, depth=2, dropout=0.3),
)


def scattered(**changes: Any) -> SMRNet:
    model = SMRNet(**small(**changes)).double().eval()
    oracle.scatter(model)
    return model


def inputs(model: Any, batch: int) -> tuple[Tensor, Tensor, Tensor]:
    x, t, condition = model.signature.example(batch)
    return x.double(), t, condition.double()


def test_keeps_the_model_contract() -> None:
    check_model(SMRNet, *CASES)


@pytest.mark.slow
def test_compiles() -> None:
    check_model(SMRNet, small(depth=2), compile_backend="inductor")


@pytest.mark.parametrize(
    ("name", "features", "parameters"), [("smrnet", 48, 25_318_052), ("smrnet_humaneva", 42, 13_732_748)]
)
def test_has_the_published_number_of_parameters(name: str, features: int, parameters: int) -> None:
    with torch.device("meta"):
        model = create(name)
    assert count_parameters(model) == parameters
    assert model.signature.num_features == features
    assert sum(model.get_parameter(unused).numel() for unused in model.unused_parameters) == 512 * 513


def published(n: int, dim: int, features: int, depth: int, tokens: int) -> int:
    """Products of the released code: 9 n D^2 + 4 n^2 D + 2 m D^2 + 2 n m D per block, m tokens of the condition."""
    block = 9 * n * dim**2 + 4 * n**2 * dim + 2 * tokens * dim**2 + 2 * n * tokens * dim
    encoder = n * features * dim + 3 * n * dim**2 + 2 * n**2 * dim + 3 * n * dim**2 + 2 * n**2 * dim
    outside = 2 * n * features * dim + 2 * dim**2
    return depth * block + outside + (encoder if tokens > 1 else 0)


@pytest.mark.parametrize(
    ("name", "with_it", "without"), [("smrnet", 505.48, 389.82), ("smrnet_humaneva", 133.68, 98.26)]
)
def test_counts_every_product_but_the_dead_one(name: str, with_it: float, without: float) -> None:
    values = arguments(name)
    with torch.device("meta"):
        model = SMRNet(**values)
    n, dim = values["kept_coeffs"], values["dim"]
    sizes = (n, dim, values["num_features"], values["depth"])
    assert published(*sizes, tokens=n) / 1e6 == pytest.approx(with_it, abs=0.005)
    # The notes leave out one of the two products with a lone token.
    one = values["depth"] * n * dim
    assert (published(*sizes, tokens=1) - one) / 1e6 == pytest.approx(without, abs=0.005)
    dead = n * dim**2  # lin3 of the last block
    assert count_macs(model).total == published(*sizes, tokens=n) - dead


def test_shared_samples_cost_two_thirds() -> None:
    """The number of smrnet.md 8.1 and performance.md 4: 346 M for each of 50 samples, and the last block less."""
    values = arguments("smrnet")
    n, dim, features, depth = (values[name] for name in ("kept_coeffs", "dim", "num_features", "depth"))
    with torch.device("meta"):
        model = SMRNet(**values).eval()
        condition, x = torch.empty(2, n, features), torch.empty(2, 50, n, features)
        call = denoiser(model, condition, torch.zeros(3, dtype=torch.int64))
        with (
            FlopCounterMode(display=False) as counter,
            torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
        ):
            call(x, 1)
    found = counter.get_total_flops() / 2 / 100
    block = 8 * n * dim**2 + n * dim * features + 4 * n**2 * dim + 2 * n**2 * dim
    own = depth * block + n * dim * features - 3 * n * dim**2 + 2 * n * dim * features
    shared = depth * 2 * dim**2 * n / 50  # keys and values of a window
    assert found == pytest.approx(own + shared, rel=1e-9)
    assert found / 505.48e6 < 0.68


def gcn(x: Tensor, state: State) -> Tensor:
    """Nodes (N, C): a sum over nodes with free weights of a product of each."""
    product = [x[j] @ state["weight"] for j in range(len(x))]
    rows = [sum(state["att"][i, j] * product[j] for j in range(len(x))) + state["bias"] for i in range(len(x))]
    return torch.stack(rows)


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def double_transpose(x: Tensor, state: State) -> Tensor:
    part = oracle.part
    x = gelu(gcn(x, part(state, "gcn1")))
    x = gelu(gcn(x.T, part(state, "gcn2"))).T
    return oracle.linear(x, part(state, "linear"))


def heads_of(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    size = query.shape[1] // heads
    out = torch.zeros_like(query)
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        for i in range(len(query)):
            logits = torch.stack([query[i, part] @ key[j, part] for j in range(len(key))]) / math.sqrt(size)
            shares = logits.exp() / logits.exp().sum()
            out[i, part] = sum(shares[j] * value[j, part] for j in range(len(value)))
    return out


def plain(x: Tensor, t: int, condition: Tensor | None, model: SMRNet) -> Tensor:
    """One sample from the text of the notes on the published code."""
    state, heads, dim = model.state_dict(), model.arguments["num_heads"], model.arguments["dim"]
    part, linear, norm = oracle.part, oracle.linear, oracle.norm
    half = dim // 2
    angles = [t * math.exp(-math.log(10000) * j / half) for j in range(half)]
    wave = [math.cos(a) for a in angles] + [math.sin(a) for a in angles] + [0.0] * (dim % 2)
    time = linear(torch.tensor(wave, dtype=x.dtype), part(state, "time_embed.0"))
    tokens = linear(time * torch.sigmoid(time), part(state, "time_embed.2"))[None]
    if condition is not None:
        inner = part(state, "obse_embed")
        u = gelu(linear(condition, part(inner, "lin1"))) + inner["sequence_embedding"]
        att = part(inner, "att")
        y = norm(u, part(att, "norm"), 1e-5)
        query, key, value = (linear(y, part(att, name)) for name in ("query", "key", "value"))
        u = norm(u + heads_of(query, key, value, heads), part(att, "norm2"), 1e-5)
        tokens = tokens + double_transpose(u, part(inner, "lin2")) + u
    h, z = linear(x, part(state, "joint_embed")), 0
    for level in range(model.arguments["depth"]):
        block = part(state, f"temporal_decoder_blocks.{level}")
        cross = part(block, "cross_attention")
        told = norm(tokens, part(cross, "text_norm"), 1e-5)
        query = linear(norm(h, part(cross, "norm"), 1e-5), part(cross, "query"))
        seen = heads_of(query, linear(told, part(cross, "key")), linear(told, part(cross, "value")), heads)
        q = norm(h + seen, part(cross, "norm2"), 1e-5)
        w = double_transpose(h, part(block, "lin1")) + double_transpose(q, part(block, "lin2")) + q
        h, z = h - linear(w, part(block, "lin3")), z + linear(w, part(block, "lin4"))
    return linear(z, part(state, "out"))


@pytest.mark.parametrize("changes", [{}, {"dim": 9, "num_heads": 3, "kept_coeffs": 2, "depth": 1}])
def test_equals_a_plain_loop(changes: dict[str, Any]) -> None:
    model = scattered(**changes)
    x, t, condition = inputs(model, 3)
    for given in (condition, None):
        wanted = [plain(x[i], int(t[i]), None if given is None else given[i], model) for i in range(3)]
        torch.testing.assert_close(model(x, t, given), torch.stack(wanted), rtol=1e-9, atol=1e-9)


def test_an_odd_width_ends_with_a_zero() -> None:
    found = timestep_embedding(torch.tensor([0, 7]), 5)
    assert found.shape == (2, 5) and not found[:, 4].any()
    torch.testing.assert_close(found[0, :4], torch.tensor([1.0, 1.0, 0.0, 0.0]))
    torch.testing.assert_close(found[1, 0], torch.tensor(7.0).cos())


def test_starts_from_zero_noise_and_small_adjacencies() -> None:
    torch.manual_seed(0)
    model = SMRNet(**small(dim=64, kept_coeffs=20))
    assert not model(*model.signature.example(2)).any()
    gcn1 = model.temporal_decoder_blocks[0].lin1.gcn1
    assert float(gcn1.weight.detach().std()) == pytest.approx(0.01, rel=0.1)
    assert float(gcn1.att.detach().std()) == pytest.approx(0.01, rel=0.2)
    assert not gcn1.bias.any()
    assert float(model.obse_embed.sequence_embedding.detach().std()) == pytest.approx(1, rel=0.1)


def test_the_history_gets_no_gradient_where_nobody_sees_it() -> None:
    model = scattered()
    x, t, condition = inputs(model, 2)
    model(x, t).sum().backward()
    assert all(p.grad is None for p in model.obse_embed.parameters())
    model.zero_grad()
    model(x, t, condition, torch.tensor([True, False])).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.obse_embed.parameters())


def test_dropout_treats_an_absent_history_as_one_token() -> None:
    """With one token, dropout takes or leaves whole heads: the mean over draws is the same, and so is the spread."""
    model = scattered(depth=1, dropout=0.5, num_heads=1).train()
    x, t, condition = (tensor[:1] for tensor in inputs(model, 1))
    cross = model.temporal_decoder_blocks[0].cross_attention
    seen: list[Tensor] = []
    cross.norm2.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    torch.manual_seed(0)
    for _ in range(60):
        model(x, t, condition, torch.tensor([False]))
    rows = torch.stack([one[0] for one in seen]) - model.joint_embed(x)[0]  # what attention added, (60, n, D)
    value = rows.abs().amax((0, 1))
    kept = rows.abs().amax(-1) > 0
    assert 0.3 < float(kept.double().mean()) < 0.7
    torch.testing.assert_close(rows[kept].abs(), value.expand(int(kept.sum()), -1))


@pytest.mark.parametrize("seeing", [0, 1, 3, 4])
def test_samples_are_grouped_and_put_back(seeing: int) -> None:
    x = torch.arange(3 * 4 * 2).view(3, 4, 2)
    flat = grouped(x, seeing)
    assert torch.equal(ungrouped(flat, 3, seeing), x)
    if 0 < seeing < 4:
        assert torch.equal(flat[: 3 * seeing], x[:, :seeing].reshape(-1, 2))


@pytest.mark.parametrize("plain_form", [False, True])
def test_a_window_is_sampled_alone_as_among_others(plain_form: bool) -> None:
    model = scattered()
    x, _, condition = inputs(model, 6)
    x, steps = x.view(3, 2, *x.shape[1:]), torch.tensor([9, 5])
    together = denoiser(model, condition[:3], steps, 1, plain=plain_form)(x, 1)
    for i in range(3):
        alone = denoiser(model, condition[i : i + 1], steps, 1, plain=plain_form)(x[i : i + 1], 1)
        torch.testing.assert_close(alone[0], together[i], rtol=1e-10, atol=1e-10)


def test_released_size_is_shared_in_single_precision() -> None:
    torch.manual_seed(0)
    model = SMRNet(**{**arguments("smrnet"), "depth": 2}).eval()
    oracle.scatter(model, 0.02)
    x, _, condition = model.signature.example(6)
    x, steps = x.view(2, 3, *x.shape[1:]), torch.tensor([991, 1])
    shared, plain_form = (denoiser(model, condition[:2], steps, plain=choice) for choice in (False, True))
    for step in range(2):
        expected = plain_form(x, step)
        scale = float(expected.abs().max())
        torch.testing.assert_close(shared(x, step), expected, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("seeing", [None, 1])
def test_two_graphs_serve_all_steps(seeing: int | None) -> None:
    """torch.compile takes the first step's number for a constant and the second's for any; no step more is compiled."""
    model = scattered(depth=2)
    x, _, condition = inputs(model, 6)
    x = x.view(3, 2, *x.shape[1:])
    shared = denoiser(model, condition[:3], torch.arange(6) * 7, seeing)
    torch.compiler.reset()
    counter = CompileCounter()
    compiled = torch.compile(shared, backend=counter, fullgraph=True)
    for step in range(6):
        torch.testing.assert_close(compiled(x, step), shared(x, step), rtol=1e-10, atol=1e-10)
    assert counter.frame_count <= 2


def test_weights_that_change_are_seen_by_the_next_denoiser() -> None:
    model = scattered()
    x, _, condition = inputs(model, 2)
    steps = torch.tensor([3])
    before = denoiser(model, condition, steps)(x[:, None], 0)
    for parameter in model.parameters():
        parameter.data.mul_(1.1)
    after = denoiser(model, condition, steps)(x[:, None], 0)
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, denoiser(model, condition, steps, plain=True)(x[:, None], 0))


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda m, x, t, c: m(x[:, :-1], t, c), DataError, "x has shape"),
        (lambda m, x, t, c: m(x, t[:-1], c), DataError, "t has shape"),
        (lambda m, x, t, c: m(x, t, c[..., :-3]), DataError, "condition has shape"),
        (lambda m, x, t, c: m(x, t, c, torch.ones(7, dtype=torch.bool)), DataError, "present has shape"),
        (lambda m, x, t, c: denoiser(m, c, t, 3)(x[:, None], 0), ConfigError, "3 of 1 samples .* Use 0 to 1"),
        (lambda m, x, t, c: denoiser(m, c[:1], t)(x[:, None], 0), DataError, "condition has shape"),
        (lambda m, x, t, c: denoiser(m, c[:, 1:], t), DataError, "condition has shape"),
        (lambda m, x, t, c: denoiser(m, c, t)(x, 0), DataError, "x has shape .* expected W K n F"),
        (lambda m, x, t, c: denoiser(m.train(), c, t), ConfigError, r"Call model\.eval\(\) first"),
        (lambda m, x, t, c: denoiser(m.train(), c, t, plain=True), ConfigError, r"Call model\.eval\(\) first"),
    ],
)
def test_wrong_arguments_get_a_sentence(call: Any, error: type[KinemaError], sentence: str) -> None:
    model = scattered()
    with pytest.raises(error, match=sentence):
        call(model, *inputs(model, 2))


def test_heads_that_do_not_divide_are_refused_with_some_that_do() -> None:
    with pytest.raises(ConfigError, match=r"Use model\.num_heads=4"):
        SMRNet(**small(num_heads=5))


def test_is_told_from_others() -> None:
    model = scattered()
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = SMRNet.recognise(shapes)
    assert found == {name: value for name, value in small().items() if name not in ("num_heads", "dropout")}
    assert SMRNet.recognise({name: shape for name, shape in shapes.items() if "obse_embed" not in name}) is None
    again = copy.deepcopy(model)
    again.load_state_dict(model.state_dict(), strict=True)
