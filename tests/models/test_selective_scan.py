"""The selective scan: every backend against the plain recurrence, its options, and graphs traced through it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kinema.models.layers.scan import cpp, torch_backend
from kinema.models.layers.selective_scan import (
    BACKENDS,
    causal_conv1d,
    causal_conv1d_step,
    selective_scan,
    selective_scan_step,
)

_COMPILER = cpp.unavailable(torch.zeros(1))
_CPP = pytest.param("cpp", marks=pytest.mark.skipif(bool(_COMPILER), reason=str(_COMPILER)))
FAST = ("torch", _CPP)
ALL = ("reference", "torch", _CPP)


def problem(
    batch: int = 2,
    channels: int = 4,
    length: int = 5,
    state: int = 3,
    *,
    B: str = "varying",
    C: str = "varying",
    without: tuple[str, ...] = (),
    scale: float = 1.0,
    dtype: torch.dtype = torch.float64,
) -> dict[str, Any]:
    """Random inputs of a scan; B and C are "varying", "grouped" (two groups) or "constant"."""
    torch.manual_seed(0)
    shapes = {
        "varying": (batch, state, length),
        "grouped": (batch, 2, state, length),
        "constant": (channels, state),
    }
    values = {
        "u": torch.randn(batch, channels, length),
        "delta": scale * torch.randn(batch, channels, length),
        "A": -torch.rand(channels, state).add(0.2),
        "B": torch.randn(shapes[B]),
        "C": torch.randn(shapes[C]),
        "D": torch.randn(channels),
        "z": torch.randn(batch, channels, length),
        "delta_bias": torch.randn(channels),
    }
    return {name: x.to(dtype).requires_grad_() for name, x in values.items() if name not in without}


def outcome(values: dict[str, Any], **options: Any) -> list[Tensor]:
    """Output, last state and every gradient for a fixed weighting of the output."""
    y, state = selective_scan(**values, return_last_state=True, **options)
    weights = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view_as(y)
    asked = [x for x in values.values() if x.requires_grad]
    return [y.detach(), state, *torch.autograd.grad((y * weights).sum(), asked)]


def close(found: list[Tensor], expected: list[Tensor], atol: float = 1e-10, rtol: float = 1e-9) -> None:
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=atol, rtol=rtol)


OPTIONS: dict[str, dict[str, Any]] = {
    "everything": {},
    "bare": {"without": ("D", "z", "delta_bias")},
    "no_skip": {"without": ("D",)},
    "grouped": {"B": "grouped", "C": "grouped"},
    "mixed": {"B": "constant", "C": "grouped"},
    "constant": {"B": "constant", "C": "constant", "without": ("z",)},
    "constant_c": {"C": "constant"},
    "length_1": {"length": 1},
    "large_delta": {"scale": 20.0},
    "state_4": {"state": 4, "length": 19},
    "state_8": {"state": 8, "batch": 1, "channels": 2},
    "state_16": {"state": 16, "batch": 1, "channels": 2, "B": "grouped"},
    "state_1": {"state": 1},
    "one_channel": {"channels": 1, "batch": 3},
}


@pytest.mark.parametrize("softplus", (True, False), ids=("softplus", "plain"))
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("backend", FAST)
def test_backends_agree_with_the_recurrence(backend: str, options: dict[str, Any], softplus: bool) -> None:
    # Without softplus a negative step makes the scan grow; the small scale keeps the numbers readable.
    values = problem(**({"scale": 0.3, **options} if softplus else {**options, "scale": 0.3}))
    expected = outcome(values, delta_softplus=softplus, backend="reference")
    close(outcome(values, delta_softplus=softplus, backend=backend), expected)


@pytest.mark.parametrize("options", ("everything", "grouped", "mixed", "length_1"))
@pytest.mark.parametrize("backend", ALL)
def test_gradients_are_those_of_finite_differences(backend: str, options: str) -> None:
    values = problem(**OPTIONS[options])
    initial = torch.randn(2, 4, 3, dtype=torch.float64)

    def run(*tensors: Tensor) -> Tensor:
        return selective_scan(*tensors, delta_softplus=True, initial_state=initial, backend=backend)

    assert torch.autograd.gradcheck(run, tuple(values.values()))


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.tuples(st.integers(1, 4), st.sampled_from((2, 4, 6)), st.integers(1, 40), st.integers(1, 20)),
    kinds=st.tuples(*[st.sampled_from(("varying", "grouped", "constant"))] * 2),
    scale=st.floats(0.01, 30.0),
    without=st.sets(st.sampled_from(("D", "z", "delta_bias"))),
)
@pytest.mark.parametrize("backend", FAST)
def test_any_shape_agrees_with_the_recurrence(
    backend: str, sizes: tuple[int, ...], kinds: tuple[str, str], scale: float, without: set[str]
) -> None:
    values = problem(*sizes, B=kinds[0], C=kinds[1], scale=scale, without=tuple(without))
    expected = outcome(values, delta_softplus=True, backend="reference")
    close(outcome(values, delta_softplus=True, backend=backend), expected, atol=1e-8)


@pytest.mark.parametrize("backend", FAST)
def test_float32_is_as_exact_as_the_recurrence(backend: str) -> None:
    for options in ({"length": 64, "state": 16}, {"length": 64, "state": 4, "scale": 20.0}):
        values = problem(**options, dtype=torch.float32)
        exact = outcome({k: v.detach().double().requires_grad_() for k, v in values.items()}, delta_softplus=True)
        for a, b in zip(outcome(values, delta_softplus=True, backend=backend), exact, strict=True):
            assert (a.double() - b).abs().max() <= 2e-6 * max(1.0, float(b.abs().max()))


def test_blocks_of_the_batch_are_computed_again_in_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("varying", "grouped", "constant"):
        values = problem(5, B=kind, C=kind)
        initial = torch.randn(5, 4, 3, dtype=torch.float64)
        expected = outcome(values, initial_state=initial, backend="torch")
        monkeypatch.setattr(torch_backend, "BLOCK", 2 * 4 * 5 * 3)  # two sequences at a time, one left over
        close(outcome(values, initial_state=initial, backend="torch"), expected)
        monkeypatch.undo()


@pytest.fixture
def three_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    monkeypatch.setattr(cpp, "_WORK_PER_THREAD", 1)
    yield
    torch.set_num_threads(before)


@pytest.mark.skipif(bool(_COMPILER), reason=str(_COMPILER))
@pytest.mark.usefixtures("three_threads")
def test_threads_share_the_work_and_change_nothing() -> None:
    for batch in (1, 2, 17):
        for kind in ("varying", "grouped", "constant"):
            values = problem(batch, 6, 11, 4, B=kind, C=kind)
            expected = outcome(values, delta_softplus=True, backend="reference")
            found = outcome(values, delta_softplus=True, backend="cpp")
            close(found, expected)
            again = outcome(values, delta_softplus=True, backend="cpp")
            assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
    x, weight, bias = torch.randn(5, 6, 30), torch.randn(6, 4), torch.randn(6)
    torch.testing.assert_close(
        causal_conv1d(x, weight, bias, backend="cpp"), causal_conv1d(x, weight, bias, backend="reference")
    )


@pytest.mark.parametrize("backend", ALL)
def test_steps_give_the_whole_scan(backend: str) -> None:
    for kind in ("varying", "grouped", "constant"):
        values = {k: v.detach() for k, v in problem(3, B=kind, C=kind).items()}
        y, last = selective_scan(**values, delta_softplus=True, return_last_state=True, backend=backend)
        state = torch.zeros_like(last)
        for t in range(y.shape[-1]):
            now = {
                k: v[..., t] if k in ("u", "delta", "z") or (k in "BC" and v.ndim > 2) else v for k, v in values.items()
            }
            out, state = selective_scan_step(state, **now, delta_softplus=True)
            torch.testing.assert_close(out, y[..., t])
        torch.testing.assert_close(state, last)


@pytest.mark.parametrize("backend", ALL)
def test_chunks_continue_exactly(backend: str) -> None:
    values = {k: v.detach() for k, v in problem(length=11).items()}
    whole, last = selective_scan(**values, return_last_state=True, backend=backend)
    state, parts = None, []
    for piece in (slice(0, 4), slice(4, 5), slice(5, 11)):
        now = {k: v[..., piece] if k in ("u", "delta", "z", "B", "C") else v for k, v in values.items()}
        part, state = selective_scan(**now, return_last_state=True, initial_state=state, backend=backend)
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, -1), whole)
    torch.testing.assert_close(state, last)


@pytest.mark.parametrize("backend", ALL)
def test_states_carry_no_gradient(backend: str) -> None:
    values = problem()
    initial = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    y, state = selective_scan(**values, initial_state=initial, return_last_state=True, backend=backend)
    assert not state.requires_grad
    y.sum().backward()
    assert initial.grad is None


@pytest.mark.parametrize("backend", FAST)
def test_strided_inputs(backend: str) -> None:
    values = problem(4, 6, 8, 4)
    expected = outcome(values, backend="reference")
    strided = {}
    for name, x in values.items():
        wide = torch.zeros(*x.shape[:-1], 2 * x.shape[-1], dtype=x.dtype)
        wide[..., ::2] = x.detach()
        strided[name] = (
            wide[..., ::2].requires_grad_() if x.ndim == 1 else wide[..., ::2].mT.contiguous().mT.requires_grad_()
        )
    close(outcome(strided, backend=backend), expected)
    one = selective_scan(
        **{k: v[:1].expand(2, *v.shape[1:]) if v.ndim == 3 else v for k, v in values.items()}, backend=backend
    )
    torch.testing.assert_close(one[0], one[1])


@pytest.mark.parametrize("kind", (torch.float16, torch.bfloat16))
@pytest.mark.parametrize("backend", ALL)
def test_half_inputs_are_scanned_in_float32(backend: str, kind: torch.dtype) -> None:
    values = problem(length=60, dtype=torch.float32)
    half = {
        k: (v if k in ("A", "D", "delta_bias") else v.to(kind)).detach().requires_grad_() for k, v in values.items()
    }
    exact = {k: v.detach().float().requires_grad_() for k, v in half.items()}
    y, state = selective_scan(**half, delta_softplus=True, return_last_state=True, backend=backend)
    expected, expected_state = selective_scan(**exact, delta_softplus=True, return_last_state=True, backend="reference")
    assert y.dtype == kind and state.dtype == torch.float32
    torch.testing.assert_close(y, expected.to(kind), atol=1e-6, rtol=torch.finfo(kind).eps)
    torch.testing.assert_close(state, expected_state)
    y.float().sum().backward()
    assert all(v.grad is not None and v.grad.dtype == v.dtype and v.grad.isfinite().all() for v in half.values())


@pytest.mark.parametrize("backend", ALL)
def test_autocast_does_not_reach_the_scan(backend: str) -> None:
    values = problem(length=60, dtype=torch.float32)
    expected = outcome(values, delta_softplus=True, backend=backend)
    with torch.autocast("cpu", torch.bfloat16):
        found = outcome(values, delta_softplus=True, backend=backend)  # backward inside, too
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == torch.float32
        assert torch.equal(a, b)


@pytest.mark.parametrize("backend", FAST)
def test_any_subset_of_inputs_may_want_gradients(backend: str) -> None:
    values = problem()
    full = dict(zip(values, outcome(values, backend="reference")[2:], strict=True))
    for wanted in values:
        only = {k: v.detach().requires_grad_(k == wanted) for k, v in values.items()}
        close(outcome(only, backend=backend)[2:], [full[wanted]])
    with torch.no_grad():
        assert not selective_scan(**values, backend=backend).requires_grad


def test_extreme_numbers_in_cpp_are_those_of_pytorch() -> None:
    if _COMPILER:
        pytest.skip(_COMPILER)
    for kind in (torch.float32, torch.float64):
        delta = torch.tensor([-800.0, -100.0, -30.0, 0.0, 15.0, 19.9, 20.1, 300.0, torch.nan], dtype=kind)[None, None]
        values = (torch.ones_like(delta), delta, -torch.ones(1, 1, dtype=kind), *[torch.ones(1, 1, dtype=kind)] * 2)
        z = torch.tensor([-800.0, -90.0, -1.0, 0.0, 1.0, 90.0, 800.0, torch.inf, 1.0], dtype=kind)[None, None]
        found, expected = (
            selective_scan(*values, z=z, delta_softplus=True, backend=name) for name in ("cpp", "reference")
        )
        torch.testing.assert_close(found, expected, equal_nan=True, atol=1e-30, rtol=1e-6)


@pytest.mark.parametrize("width", (1, 2, 3, 4, 7))
@pytest.mark.parametrize("activation", (None, "silu"))
@pytest.mark.parametrize("backend", ALL)
def test_causal_convolution(backend: str, activation: str | None, width: int) -> None:
    torch.manual_seed(0)
    for length in (1, 3, 19):
        x, weight, bias = (
            torch.randn(s, dtype=torch.float64).requires_grad_() for s in ((2, 3, length), (3, width), (3,))
        )
        initial = torch.randn(2, 3, width - 1, dtype=torch.float64)
        for b in (bias, None):
            given_ = [v for v in (x, weight, b) if v is not None]
            y = causal_conv1d(x, weight, b, activation=activation, backend=backend)
            expected = torch.zeros_like(y) if b is None else torch.zeros_like(y) + b[:, None]
            for k in range(width):
                shift = width - 1 - k
                moved = torch.cat((torch.zeros_like(x)[..., :shift], x), -1)[..., :length]
                expected = expected + weight[:, k : k + 1] * moved
            expected = torch.nn.functional.silu(expected) if activation else expected
            torch.testing.assert_close(y, expected)
            weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
            close(list(torch.autograd.grad((y * weights).sum(), given_)),
                  list(torch.autograd.grad((expected * weights).sum(), given_)))  # fmt: skip
            joined = causal_conv1d(torch.cat((initial, x), -1), weight, b, activation=activation, backend=backend)
            y = causal_conv1d(x, weight, b, activation=activation, initial_state=initial, backend=backend)
            torch.testing.assert_close(y, joined[..., width - 1 :])
            state = initial
            for t in range(length):
                out, state = causal_conv1d_step(state, x[..., t], weight, b, activation=activation)
                torch.testing.assert_close(out, y[..., t])


@pytest.mark.parametrize("backend", ALL)
def test_convolution_of_half_inputs(backend: str) -> None:
    x, weight = torch.randn(2, 3, 9).bfloat16(), torch.randn(3, 4)
    y = causal_conv1d(x, weight, activation="silu", backend=backend)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), causal_conv1d(x.float(), weight, activation="silu"), atol=0.05, rtol=0.05)


def test_meta_tensors_pass_through() -> None:
    values = {k: v.detach().to("meta") for k, v in problem(dtype=torch.float32).items()}
    for backend in BACKENDS:
        y, state = selective_scan(**values, return_last_state=True, backend=backend)
        assert y.is_meta and y.shape == (2, 4, 5) and state.shape == (2, 4, 3)
        assert causal_conv1d(values["u"], torch.zeros(4, 3, device="meta"), backend=backend).shape == (2, 4, 5)


@pytest.mark.parametrize("backend", ("auto", "reference", "torch", _CPP))
def test_torch_compile_breaks_the_graph_and_goes_on(backend: str) -> None:
    values = problem(dtype=torch.float32)

    def run(u: Tensor) -> Tensor:
        u = causal_conv1d(2 * u, torch.ones(4, 2), activation="silu", backend=backend)
        return 3 * selective_scan(**{**values, "u": u}, delta_softplus=True, backend=backend)

    compiled = torch.compile(run, backend="eager")
    torch.testing.assert_close(compiled(values["u"]), run(values["u"]))
    (grad,) = torch.autograd.grad(compiled(values["u"]).sum(), values["u"])
    torch.testing.assert_close(grad, torch.autograd.grad(run(values["u"]).sum(), values["u"])[0])


class _Scan(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.values = {k: v.detach() for k, v in problem(dtype=torch.float32).items() if k != "u"}

    def forward(self, u: Tensor) -> Tensor:
        u = causal_conv1d(u, torch.ones(4, 2), activation="silu")
        return selective_scan(u, **self.values, delta_softplus=True)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_traced_graphs_hold_the_plain_recurrence() -> None:
    u, model = torch.randn(2, 4, 5), _Scan()
    program = torch.export.export(model, (u,), strict=False)
    torch.testing.assert_close(program.module()(u), model(u))
    traced = torch.jit.trace(model, (u,), check_trace=False)
    torch.testing.assert_close(traced(2 * u), model(2 * u))
