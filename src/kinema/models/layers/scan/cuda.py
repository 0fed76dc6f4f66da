"""The CUDA kernels of mamba-ssm and causal-conv1d, where these packages are installed and give right numbers.

Neither is imported with this module: an installation built for another PyTorch fails at import in many ways
(ImportError, OSError for undefined symbols, NameError in a half-finished setup), and none may stop a model that
can run without it.
"""

from __future__ import annotations

import importlib
import logging
from functools import cache
from typing import Any

import torch
from torch import Tensor

from kinema.models.layers.scan import Logged, reference

log = logging.getLogger(__name__)

MAX_STATE = 256
_MAX_CHANNELS = 65535
_INSTALL = "docs/scan_backends.md has the installation."
_MODULES = {
    "mamba-ssm": ("mamba_ssm.ops.selective_scan_interface", "selective_scan_cuda"),
    "causal-conv1d": ("causal_conv1d",),
}
_warned: set[str] = set()


def fast_scan_available(device: str = "cuda") -> bool:
    """Say whether mamba-ssm's scan is installed and agrees with the reference on a small case; found out once."""
    return fast_scan_reason(device) is None


def fast_scan_reason(device: str = "cuda") -> str | None:
    """Give the reason why mamba-ssm's scan is not used, None if it is; a broken installation is logged once."""
    return _reason("mamba-ssm", _full(device))


def fast_conv_reason(device: str = "cuda") -> str | None:
    """Give the reason why causal-conv1d is not used, None if it is; a broken installation is logged once."""
    return _reason("causal-conv1d", _full(device))


def _full(device: str) -> str:
    """Name a device with its number: "cuda" is one of them."""
    if device == "cuda" and torch.cuda.is_available():
        return f"cuda:{torch.cuda.current_device()}"
    return device


def unavailable(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    initial_state: Tensor | None = None,
) -> str | None:
    """Give the reason why the kernel cannot run on these tensors, or None."""
    if u.device.type != "cuda":
        return f"the cuda backend works on CUDA tensors, these are on {u.device}."
    return _limits(u, A, initial_state) or fast_scan_reason(str(u.device))


def _limits(u: Tensor, A: Tensor, initial_state: Tensor | None) -> str | None:
    if u.dtype == torch.float64:
        return "mamba-ssm has no float64 kernel."
    if A.shape[1] > MAX_STATE:
        return f"mamba-ssm takes at most {MAX_STATE} state entries, not {A.shape[1]}."
    if initial_state is not None:
        return "mamba-ssm cannot continue from a state."
    return None


def scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Run the kernel in float32; arguments as in `kinema.models.layers.selective_scan.selective_scan`.

    Returns:
        y (B, D, L) in the dtype of u, and the last state (B, D, N).
    """
    function = importlib.import_module("mamba_ssm.ops.selective_scan_interface").selective_scan_fn
    # The kernel wants one dtype and a last axis of step 1; it computes in float32 whatever it is given.
    tensors = [None if x is None else x.float().contiguous() for x in (u, delta, A, B, C, D, z, delta_bias)]
    y, state = function(*tensors, delta_softplus=bool(delta_softplus), return_last_state=True)
    return y.to(u.dtype), state


def conv_unavailable(
    x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None, initial_state: Tensor | None
) -> str | None:
    """Give the reason why the convolution kernel cannot run on these tensors, or None."""
    if x.device.type != "cuda":
        return f"the cuda backend works on CUDA tensors, these are on {x.device}."
    return _conv_limits(x, weight) or fast_conv_reason(str(x.device))


def _conv_limits(x: Tensor, weight: Tensor) -> str | None:
    if x.dtype == torch.float64:
        return "causal-conv1d has no float64 kernel."
    if weight.shape[1] not in (2, 3, 4):
        return f"causal-conv1d takes widths 2 to 4, not {weight.shape[1]}."
    if weight.shape[0] > _MAX_CHANNELS:
        return f"causal-conv1d takes at most {_MAX_CHANNELS} channels, not {weight.shape[0]}."
    return None


def conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None, initial_state: Tensor | None
) -> Tensor:
    """Run the convolution kernel; arguments as in `kinema.models.layers.selective_scan.causal_conv1d`."""
    function = importlib.import_module("causal_conv1d").causal_conv1d_fn
    before = 0 if initial_state is None else initial_state.shape[-1]
    if initial_state is not None:  # the kernel takes one in channel-last layout only
        x = torch.cat((initial_state, x), -1)
    weight, bias = weight.to(x.dtype), None if bias is None else bias.to(x.dtype)
    # By keyword: the fourth positional argument has been another one since version 1.2, and the SiLU got lost.
    return function(x.contiguous(), weight.contiguous(), bias, activation=activation)[..., before:]


@cache
def _reason(package: str, device: str) -> str | None:
    reason = _import_failure(package)
    if reason is not None:
        return reason
    try:
        difference = (_probe_scan if package == "mamba-ssm" else _probe_conv)(device)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return _warn(package, f"fails on a small case ({type(error).__name__}: {error})")
    if not difference < 1e-3:  # NaN as well
        return _warn(package, f"is off by {difference:.2g} on a small case")
    return None


@cache
def _import_failure(package: str) -> str | None:
    modules = _MODULES[package]
    try:
        for name in modules:
            importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == modules[0].split(".")[0]:  # the common case deserves no warning
            return f"{package} is not installed ({error}). {_INSTALL}"
        return _warn(package, f"is installed without {error.name}")
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit of a module that is a program, too
        return _warn(package, f"does not import ({type(error).__name__}: {error})")
    return None


def _warn(package: str, fault: str) -> Logged:
    reason = Logged(f"{package} {fault}. {_INSTALL}")
    if package not in _warned:  # the same installation may fail on each of several devices
        _warned.add(package)
        log.warning("Going on without a CUDA package: %s", reason)
    return reason


def _probe_scan(device: str) -> float:
    """Largest deviation of outputs and gradients from the reference on a scan of 5 steps with all options on."""
    with torch.inference_mode(False), torch.enable_grad():  # the first scan of a process may be an evaluation
        return _deviation_of_scan(device)


def _deviation_of_scan(device: str) -> float:
    draw = torch.Generator().manual_seed(0)
    shapes = ((2, 4, 5), (2, 4, 5), (4, 3), (2, 3, 5), (2, 3, 5), (4,), (2, 4, 5), (4,))
    values: list[Any] = [torch.randn(shape, generator=draw) for shape in shapes]
    values[2] = -values[2].exp()
    ours: list[Any] = [v.clone().requires_grad_() for v in values]
    theirs: list[Any] = [v.to(device, copy=True).requires_grad_() for v in values]
    expected, expected_state = reference.scan(*[*ours, True])
    found, found_state = scan(*[*theirs, True])
    expected.square().sum().backward()
    found.square().sum().backward()
    pairs: list[tuple[Tensor | None, Tensor | None]] = [(found, expected), (found_state, expected_state)]
    pairs += [(a.grad, b.grad) for a, b in zip(theirs, ours, strict=True)]
    return _largest(pairs)


def _probe_conv(device: str) -> float:
    """Largest deviation of the outputs of a width-4 convolution with SiLU from the reference."""
    draw = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(shape, generator=draw) for shape in ((2, 8, 9), (8, 4), (8,)))
    expected = reference.conv(x, weight, bias, "silu", None)
    return _largest([(conv(x.to(device), weight.to(device), bias.to(device), "silu", None), expected)])


def _largest(pairs: list[tuple[Tensor | None, Tensor | None]]) -> float:
    """Largest absolute difference; NaN if there is one anywhere, infinity where a gradient is missing."""
    if any(a is None or b is None for a, b in pairs):
        return float("inf")
    differences = [(a.detach().cpu() - b.detach()).abs().max() for a, b in pairs if a is not None and b is not None]
    return float(torch.stack(differences).max())
