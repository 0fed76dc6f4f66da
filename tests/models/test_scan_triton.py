"""The Triton backend of the selective scan: its kernels run by Triton's interpreter, or on a GPU where there is one.

The interpreter is chosen when Triton is imported, hence in a process of its own: the tests of `kernels` skip unless
TRITON_INTERPRET=1 is set (or a GPU is there), and two outer tests run this file again with it.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kinema.models.layers.scan import reference
from kinema.models.layers.scan import triton as backend

INSTALLED = importlib.util.find_spec("triton") is not None
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"
REPOSITORY = Path(__file__).resolve().parents[2]

kernels = pytest.mark.skipif(
    not INSTALLED or not (INTERPRETED or DEVICE == "cuda"), reason="needs Triton, and TRITON_INTERPRET=1 or a GPU"
)


def draw_scan(
    batch: int = 2,
    channels: int = 6,
    length: int = 11,
    states: int = 3,
    *,
    groups: tuple[int, int] = (1, 1),
    missing: tuple[str, ...] = (),
    start: bool = False,
    softplus: bool = True,
    dtype: torch.dtype = torch.float64,
    device: str = DEVICE,
) -> dict[str, Any]:
    """Arguments of a scan; groups of B and C: 0 = constant, 1 = no group axis."""
    draw = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw, dtype=torch.float64)

    def weights(count: int) -> Tensor:
        shapes = {0: (channels, states), 1: (batch, states, length)}
        return normal(*shapes.get(count, (batch, count, states, length)))

    delta = normal(batch, channels, length)
    values = {
        "u": normal(batch, channels, length),
        "delta": delta * 2 if softplus else delta.abs(),
        "A": -normal(channels, states).exp(),
        "B": weights(groups[0]),
        "C": weights(groups[1]),
        "D": normal(channels),
        "z": normal(batch, channels, length),
        "delta_bias": normal(channels),
    }
    if not softplus:
        values["delta_bias"] = values["delta_bias"].abs()
    if softplus:
        values["delta"][..., 0] = 25.0  # beyond the threshold of softplus
    parameters = {"A", "D", "delta_bias"}  # stay float32 beside half precision
    work = torch.float64 if dtype == torch.float64 else torch.float32
    tensors: dict[str, Any] = {
        name: None if name in missing else x.to(device, work if name in parameters else dtype)
        for name, x in values.items()
    }
    return {
        **tensors,
        "delta_softplus": softplus,
        "initial_state": normal(batch, channels, states).to(device, work) if start else None,
    }


def run(scan: Any, arguments: dict[str, Any]) -> dict[str, Tensor]:
    """y, last state and the gradient of every tensor, for one fixed gradient of y."""
    leaves = {
        name: x.detach().requires_grad_(name != "initial_state")
        for name, x in arguments.items()
        if isinstance(x, Tensor)
    }
    y, last = scan(**{**arguments, **leaves})
    grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(y)
    y.backward(grad)
    found = {"y": y.detach(), "last": last.detach()}
    return {**found, **{f"grad {name}": x.grad for name, x in leaves.items() if x.grad is not None}}


def agree(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Every tensor within `tolerance` of the largest entry of the expected one."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        scale = max(1.0, float(value.abs().max()))
        assert found[name].shape == value.shape, name
        off = float((found[name].double() - value.double()).abs().max())
        assert off <= tolerance * scale, f"{name}: off by {off:.2g} of {scale:.2g}"


CASES: dict[str, dict[str, Any]] = {
    "everything": {},
    "bare": {"missing": ("D", "z", "delta_bias")},
    "no softplus": {"softplus": False},
    "from a state": {"start": True, "missing": ("z",)},
    "constant B": {"groups": (0, 1), "missing": ("D",)},
    "constant C, groups of B": {"groups": (3, 0), "missing": ("delta_bias",)},
    "different groups": {"groups": (2, 3), "channels": 12, "start": True},
    "several blocks": {"channels": 2 * 37, "groups": (2, 1), "length": 5},
    "one state, one step": {"states": 1, "length": 1},
    "many states": {"states": 65, "length": 4, "channels": 5},
    "one channel": {"channels": 1, "length": 4},
}


@kernels
@pytest.mark.parametrize("options", CASES.values(), ids=CASES.keys())
def test_values_and_gradients(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "CHUNK", 4)  # several chunks, the last one not full
    monkeypatch.setattr(backend, "PROGRAMS", 3)  # fewer than work items
    arguments = draw_scan(**options)
    agree(run(backend.scan, arguments), run(reference.scan, arguments), 1e-12)


@kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_inside_everything_is_float32(dtype: torch.dtype) -> None:
    arguments = draw_scan(dtype=dtype, start=True)
    found = run(backend.scan, arguments)
    assert found["y"].dtype == found["grad u"].dtype == found["grad B"].dtype == dtype
    assert found["last"].dtype == found["grad A"].dtype == torch.float32
    expected = run(reference.scan, arguments)
    agree(found, expected, 1e-5 if dtype == torch.float32 else 2 * torch.finfo(dtype).eps)
    # The last state is not rounded to the dtype of the inputs.
    agree({"last": found["last"]}, {"last": expected["last"]}, 1e-5)


@kernels
def test_the_same_input_gives_the_same_bits() -> None:
    arguments = draw_scan(channels=2 * 37, groups=(2, 1), length=5, dtype=torch.float32)
    agree(run(backend.scan, arguments), run(backend.scan, arguments), 0.0)


@kernels
def test_any_layout_of_memory() -> None:
    arguments = draw_scan(groups=(2, 1))
    expected = run(backend.scan, arguments)
    for name in ("u", "delta", "z", "C"):
        arguments[name] = arguments[name].transpose(1, 2).contiguous().transpose(1, 2)
    arguments["B"] = arguments["B"].permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0)
    agree(run(backend.scan, arguments), expected, 1e-12)
    arguments["u"] = torch.ones((), device=DEVICE, dtype=torch.float64).expand_as(arguments["u"])
    agree(run(backend.scan, arguments), run(reference.scan, arguments), 1e-12)


@kernels
def test_a_state_continues_a_scan_and_has_no_gradient() -> None:
    whole = draw_scan(length=9)
    y, last = backend.scan(**whole)
    parts, state = [], None
    for piece in (slice(0, 4), slice(4, 9)):
        cut = {name: whole[name][..., piece] for name in ("u", "delta", "B", "C", "z")}
        part, state = backend.scan(**{**whole, **cut, "initial_state": state})
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, -1), y, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(state, last, rtol=1e-12, atol=1e-12)
    whole["u"].requires_grad_()
    y, last = backend.scan(**whole)
    assert y.requires_grad and not last.requires_grad


@kernels
def test_small_steps_keep_their_digits() -> None:
    """softplus far below zero in float32: log(1 + e) written down plainly would be off by far more."""
    arguments = draw_scan(dtype=torch.float32, missing=("delta_bias", "D", "z"))
    arguments["delta"] = torch.full_like(arguments["delta"], -12.0)
    double = {name: x.double() if isinstance(x, Tensor) else x for name, x in arguments.items()}
    found, expected = (backend.scan(**x)[0].double() for x in (arguments, double))
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-5


@kernels
def test_a_probe_finds_the_kernels_right() -> None:
    arguments = draw_scan(dtype=torch.float32)
    assert backend.unavailable(*arguments.values()) is None
    with torch.inference_mode():
        backend._probe_failure.cache_clear()
        assert backend.unavailable(*arguments.values()) is None


@kernels
def test_wrong_numbers_are_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    backend._probe_failure.cache_clear()
    right = backend.scan

    def wrong(*args: Any, **options: Any) -> tuple[Tensor, Tensor]:
        y, last = right(*args, **options)
        return y * 1.1, last

    monkeypatch.setattr(backend, "scan", wrong)
    assert "off by" in str(backend.unavailable(torch.zeros(1, 1, 1, device=DEVICE)))
    backend._probe_failure.cache_clear()


def test_a_missing_package_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kinema.models.layers.scan.triton_kernels", None)
    backend._import_failure.cache_clear()
    reason = backend.unavailable(torch.zeros(1, 1, 1))
    backend._import_failure.cache_clear()
    assert reason is not None and reason.startswith("Triton does not import") and "kinema[triton]" in reason


@pytest.mark.parametrize(
    ("tensors", "word"),
    [
        ((torch.zeros(1, 1, 1, dtype=torch.int64),), "int64"),
        ((torch.zeros(1, 1, 1), torch.zeros(1, 1, 1, dtype=torch.complex64), None, True), "real"),
        ((torch.zeros(1, 1, 1), torch.zeros(1, 1, 1, device="meta")), "several devices"),
    ],
)
def test_what_the_kernels_cannot_take(tensors: tuple[Any, ...], word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_import_failure", lambda: None)
    assert word in str(backend.unavailable(*tensors))


def test_a_cpu_is_refused_without_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_import_failure", lambda: None)
    monkeypatch.setattr(backend, "_interpreted", lambda: False)
    assert "need a CUDA device" in str(backend.unavailable(torch.zeros(1, 1, 1)))


def interpret(*arguments: str) -> None:
    """Run pytest again, Triton's interpreter switched on."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "", *arguments]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0 and " passed" in result.stdout, result.stdout[-3000:] + result.stderr[-2000:]


# Its interpreter runs as it is from 3.9 on (checked); older ones fall out with numpy 2.4.
def skip_without_an_interpreter() -> None:
    if INTERPRETED:
        pytest.skip("this is the inner run")
    pytest.importorskip("triton", minversion="3.9")


def test_the_kernels_in_short() -> None:
    skip_without_an_interpreter()
    interpret("tests/models/test_scan_triton.py", "-k", "test_values_and_gradients and (everything or constant)")


@pytest.mark.slow
def test_the_kernels_in_full() -> None:
    skip_without_an_interpreter()
    interpret("tests/models/test_scan_triton.py", "tests/parity/test_mamba_triton.py")
