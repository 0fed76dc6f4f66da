"""The selective scan of Mamba and its causal convolution, each one operator with interchangeable backends.

docs/scan_backends.md tells which backend runs where and how to choose.
"""

from __future__ import annotations

import importlib
import logging
from functools import cache
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kinema.core.shapes import expect
from kinema.errors import ConfigError, DataError
from kinema.models.layers.exporting import exporting
from kinema.models.layers.scan import Logged, reference

log = logging.getLogger(__name__)

BACKENDS = ("auto", "reference", "torch", "cpp", "triton", "cuda")
_FILES = {name: "torch_backend" if name == "torch" else name for name in BACKENDS[1:]}
# What "auto" tries in turn, by device type; everything else takes the plain PyTorch form.
_ORDER = {"cuda": ("cuda", "triton", "torch"), "cpu": ("cpp", "torch")}


def check_backend(name: str) -> str:
    """Return the name of a backend as it is, or raise the ConfigError that lists the known ones."""
    if name not in BACKENDS:
        raise ConfigError(
            f"{name!r} is no backend of the selective scan, there are {', '.join(BACKENDS)}. "
            "Use model.scan_backend=auto."
        )
    return name


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    *,
    initial_state: Tensor | None = None,
    backend: str = "auto",
) -> Any:
    """Run h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t and return y_t = (C_t h_t + D u_t) silu(z_t).

    Everything is computed in float32 (float64 where u is), under autocast too.

    Args:
        u: (B, D, L) input.
        delta: (B, D, L) step sizes, before `delta_bias` and softplus.
        A: (D, N) real, negative for a stable scan.
        B: (B, N, L), (B, G, N, L) with channel d in group d // (D / G), or (D, N) constant in time and batch.
        C: of one of these kinds, not necessarily that of B.
        D: (D,) skip, or None.
        z: (B, D, L) gate, or None.
        delta_bias: (D,) added to delta, or None.
        delta_softplus: pass delta + delta_bias through softplus.
        return_last_state: return the state after the last step as well.
        initial_state: (B, D, N) state before the first step, zero if None. It gets no gradient.
        backend: one of BACKENDS.

    Returns:
        y (B, D, L) in the dtype of u; with `return_last_state` a pair of it and h_L (B, D, N) without gradient,
        float32 (float64 where u is).

    Raises:
        DataError: for shapes that do not fit, or a complex A.
        ConfigError: for an unknown backend, or a chosen one that cannot run here.

    Source: Gu and Dao 2023, algorithm 2; state-spaces/mamba, selective_scan_interface.py.
    """
    check_backend(backend)
    _check_scan(u, delta, A, B, C, D, z, delta_bias, initial_state)
    initial_state = None if initial_state is None else _constant(initial_state)
    tensors = (u, delta, A, B, C, D, z, delta_bias, delta_softplus, initial_state)
    if u.is_meta:
        y, state = torch.empty_like(u), u.new_empty((*u.shape[:2], A.shape[1]), dtype=reference.work_dtype(u))
    elif exporting():  # a plain loop is the only form that a traced graph can hold
        y, state = reference.scan(*tensors)
    else:
        y, state = _run_scan(backend, tensors)
    return (y, state.detach()) if return_last_state else y


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    activation: str | None = None,
    initial_state: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Convolve every channel over time with its own weights, seeing the past only.

    Args:
        x: (B, D, L).
        weight: (D, K); the last entry meets the newest sample.
        bias: (D,) or None.
        activation: "silu" or None.
        initial_state: (B, D, K - 1), the samples before x, zeros if None. It gets no gradient.
        backend: one of BACKENDS.

    Returns:
        (B, D, L) in the dtype of x.
    """
    check_backend(backend)
    sizes = expect(x, "B D L", "x")
    if 0 in (sizes["D"], sizes["L"]):
        raise DataError(f"x has shape {tuple(x.shape)}: no channels or no time steps. Give at least one of each.")
    sizes = expect(weight, "D K", "weight", D=sizes["D"], B=sizes["B"], L=sizes["L"])
    if bias is not None:
        expect(bias, "D", "bias", D=sizes["D"])
    if initial_state is not None:
        expect(initial_state, "B D P", "initial_state", B=sizes["B"], D=sizes["D"], P=sizes["K"] - 1)
        initial_state = _constant(initial_state).to(x.dtype)
    _check_devices([v for v in (x, weight, bias, initial_state) if v is not None])
    if activation not in (None, "silu"):
        raise ConfigError(f"The causal convolution knows no activation {activation!r}. Use 'silu' or None.")
    tensors = (x, weight, bias, activation, initial_state)
    if x.is_meta:
        return torch.empty_like(x)
    return reference.conv(*tensors) if exporting() else _run_conv(backend, tensors)


def selective_scan_step(
    state: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
) -> tuple[Tensor, Tensor]:
    """Advance the selective scan by one time step.

    Args:
        state: (B, D, N) state before the step.
        u: (B, D) input; `delta` and `z` alike.
        delta: (B, D) step sizes.
        A: (D, N).
        B: (B, N), (B, G, N), or (D, N) constant. Where batch and channels are equal in number, (B, N) is meant.
        C: of one of these kinds.
        D: (D,) or None.
        z: (B, D) gate or None.
        delta_bias: (D,) or None.
        delta_softplus: as in `selective_scan`.

    Returns:
        y (B, D) in the dtype of u, and the new state (B, D, N); the one given is left as it is.
    """
    kind, work = u.dtype, reference.work_dtype(u)
    with torch.autocast(u.device.type, enabled=False):
        u, delta, A, B, C, state = (x.to(work) for x in (u, delta, A, B, C, state))
        if delta_bias is not None:
            delta = delta + delta_bias.to(work)
        if delta_softplus:
            delta = F.softplus(delta)
        B, C = (_step_weights(x, u) for x in (B, C))
        state = torch.exp(delta[..., None] * A) * state + (delta * u)[..., None] * B
        y = (state * C).sum(-1)
        if D is not None:
            y = y + u * D.to(work)
        if z is not None:
            y = y * F.silu(z.to(work))
        return y.to(kind), state


def causal_conv1d_step(
    state: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None = None, *, activation: str | None = None
) -> tuple[Tensor, Tensor]:
    """Advance the causal convolution by one sample.

    Args:
        state: (B, D, K - 1) last samples, the newest at the end.
        x: (B, D) new sample.
        weight: (D, K).
        bias: (D,) or None.
        activation: "silu" or None.

    Returns:
        y (B, D) in the dtype of x, and the new state (B, D, K - 1).
    """
    window = torch.cat((state.to(x.dtype), x[..., None]), -1)
    y = (window * weight.to(x.dtype)).sum(-1)
    if bias is not None:
        y = y + bias.to(x.dtype)
    return F.silu(y) if activation == "silu" else y, window[..., 1:]


def _step_weights(x: Tensor, u: Tensor) -> Tensor:
    """Bring B or C of one step to (B or 1, D or 1, N)."""
    if x.ndim == 3:
        return x.repeat_interleave(u.shape[1] // x.shape[1], dim=1)
    return x[:, None] if x.shape[0] == u.shape[0] else x[None]


def _constant(state: Tensor) -> Tensor:
    """Cut a state off its history; one made in inference mode is copied, or autograd could not keep it."""
    return state.clone() if state.is_inference() and not torch.is_inference_mode_enabled() else state.detach()


def _check_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
) -> None:
    sizes = expect(u, "B D L", "u")
    if 0 in (sizes["D"], sizes["L"]):
        raise DataError(f"u has shape {tuple(u.shape)}: no channels or no time steps. Give at least one of each.")
    given = [x for x in (u, delta, A, B, C, D, z, delta_bias, initial_state) if x is not None]
    if not all(x.is_floating_point() for x in given):
        raise DataError("The selective scan takes real floating-point numbers only. Give A as -exp(A_log).")
    _check_devices(given)
    expect(delta, "B D L", "delta", **sizes)
    sizes["N"] = expect(A, "D N", "A", D=sizes["D"])["N"]
    for name, x in (("B", B), ("C", C)):
        if x.ndim not in (2, 3, 4):
            raise DataError(f"{name} has shape {tuple(x.shape)}, expected (B, N, L), (B, G, N, L) or constant (D, N).")
        expect(x, ("D N", "B N L", "B G N L")[x.ndim - 2], name, **sizes)
        if x.ndim == 4 and (x.shape[1] == 0 or sizes["D"] % x.shape[1]):
            raise DataError(f"{name} has {x.shape[1]} groups, which do not divide the {sizes['D']} channels of u.")
    for name, vector in (("D", D), ("delta_bias", delta_bias)):
        if vector is not None:
            expect(vector, "D", name, D=sizes["D"])
    if z is not None:
        expect(z, "B D L", "z", **sizes)
    if initial_state is not None:
        expect(initial_state, "B D N", "initial_state", **sizes)


def _check_devices(tensors: list[Tensor]) -> None:
    # Foreign code would read the wrong memory where PyTorch reports an error.
    found = sorted({str(x.device) for x in tensors})
    if len(found) > 1:
        raise DataError(f"The tensors are on different devices ({', '.join(found)}). Move all of them to one.")


# The backends below call foreign code and choose at run time: one graph break instead of a trace through it.
@torch.compiler.disable
def _run_scan(backend: str, tensors: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
    module = _choose(backend, "scan", tensors)
    with torch.autocast(tensors[0].device.type, enabled=False):
        return module.scan(*tensors)


@torch.compiler.disable
def _run_conv(backend: str, tensors: tuple[Any, ...]) -> Tensor:
    # Only some backends have a convolution of their own; the others stand for the scan alone.
    if backend != "auto" and not hasattr(_module(backend), "conv"):
        backend = "torch" if isinstance(_module(backend), ModuleType) else "auto"
    module = _choose(backend, "conv", tensors)
    with torch.autocast(tensors[0].device.type, enabled=False):  # in the dtype of x, whoever computes it
        return module.conv(*tensors)


# Function of a backend, the one that tells whether it can run, and what it is for readers of the log.
_QUESTIONS = {"scan": "unavailable", "conv": "conv_unavailable"}
_NAMES = {"scan": "selective scan", "conv": "causal convolution"}


def _choose(backend: str, function: str, tensors: tuple[Any, ...]) -> ModuleType:
    """Return the module to run, for "auto" the first in the order of the device that can."""
    device, question, what = tensors[0].device.type, _QUESTIONS[function], _NAMES[function]
    # No public function tells; autograd.Function.apply asks the same before it refuses.
    transformed = torch._C._are_functorch_transforms_active()
    if backend == "auto" and transformed:
        _tell_once(what, f"{device} under torch.func", "reference", "")
        return reference
    if backend != "auto":
        reason = _reason(backend, question, tensors)
        if reason is not None:
            raise ConfigError(
                f"model.scan_backend={backend} cannot run: {reason.rstrip('.')}. Use model.scan_backend=auto."
            )
        module = _module(backend)
        assert isinstance(module, ModuleType)
        if transformed and getattr(module, function) is not getattr(reference, function):
            raise ConfigError(
                f"model.scan_backend={backend} cannot run: its {what} has a backward of its own, which the transforms "
                "of torch.func (grad, vmap, jvp and their like) do not pass. Use model.scan_backend=auto."
            )
        return module
    passed: list[str] = []
    for name in _ORDER.get(device, ("torch",)):
        reason = _reason(name, question, tensors)
        module = _module(name)
        if reason is None and isinstance(module, ModuleType):
            _tell_once(what, device, name, "; ".join(passed))
            return module
        passed.append(name if isinstance(reason, Logged) else f"{name}: {str(reason).rstrip('.')}")
    raise AssertionError("the plain PyTorch form runs everywhere")


def _reason(name: str, question: str, tensors: tuple[Any, ...]) -> str | None:
    module = _module(name)
    if isinstance(module, str):
        return module
    if not hasattr(module, question):
        return "it has no convolution of its own."
    return getattr(module, question)(*tensors)


@cache
def _module(name: str) -> ModuleType | str:
    """Import a backend when it is first asked for; a text is the reason why that failed."""
    try:
        return importlib.import_module(f"kinema.models.layers.scan.{_FILES[name]}")
    except Exception as error:  # a broken triton installation raises anything
        return f"its module does not import ({type(error).__name__}: {error})."


@cache
def _tell_once(what: str, device: str, name: str, passed: str) -> None:
    log.info("%s on %s: %s backend%s", what, device, name, f" (not {passed})" if passed else "")
