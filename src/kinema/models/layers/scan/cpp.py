"""The selective scan and the causal convolution on the CPU in C++ (scan.cpp), called through ctypes."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kinema.models.layers.scan import Logged, build
from kinema.models.layers.scan.reference import work_dtype

# Below this many state entries a thread costs more than it saves.
_WORK_PER_THREAD = 1 << 16


class _ScanSizes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in (
        "batch", "channels", "length", "state",
        "b_batch", "b_group", "b_time", "b_groups", "c_batch", "c_group", "c_time", "c_groups",
        "softplus", "splits", "threads",
    )]  # fmt: skip


class _ScanInputs(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("u", "delta", "A", "B", "C", "D", "z", "bias", "initial")]


class _ScanGrads(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("y", "u", "delta", "A", "B", "C", "D", "z", "bias")] + [
        (name, ctypes.c_int64) for name in ("b_split", "b_batch", "c_split", "c_batch")
    ]


class _ConvSizes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("batch", "channels", "length", "width", "silu", "threads")]


def unavailable(u: Tensor, *_: object) -> str | None:
    """Give the reason why the backend cannot run: another device, no compiler, or a failed build."""
    if u.device.type != "cpu":
        return f"the cpp backend works on CPU tensors, these are on {u.device}."
    try:
        build.library()
    except build.BuildError as error:
        return Logged(error)
    return None


conv_unavailable = unavailable


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
    """Run the scan; arguments as in `kinema.models.layers.selective_scan.selective_scan`.

    Returns:
        y (B, D, L) in the dtype of u, and the last state (B, D, N).
    """
    kind, work = u.dtype, work_dtype(u)
    tensors = (u, delta, A, _groups(B), _groups(C), D, z, delta_bias)
    ready = [None if x is None else x.to(work).contiguous() for x in tensors]
    initial = None if initial_state is None else initial_state.detach().to(work).contiguous()
    y, state = _Scan.apply(bool(delta_softplus), initial, *ready)
    return y.to(kind), state


def conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None, initial_state: Tensor | None
) -> Tensor:
    """Convolve every channel over the past; arguments as in `kinema.models.layers.selective_scan.causal_conv1d`."""
    kind, work = x.dtype, work_dtype(x)
    ready = [None if v is None else v.to(work).contiguous() for v in (x, weight, bias)]
    initial = None if initial_state is None else initial_state.detach().to(work).contiguous()
    return _Conv.apply(activation == "silu", initial, *ready).to(kind)


def _groups(x: Tensor) -> Tensor:
    """Bring B or C of any kind to (batch, group, time, N), an axis being 1 where it is constant."""
    if x.ndim == 2:  # every channel is a group of its own
        return x[None, :, None]
    return (x[:, None] if x.ndim == 3 else x).transpose(-1, -2)


def _steps(x: Tensor) -> tuple[int, int, int, int]:
    """Element steps of batch, group and time, 0 along an axis of one entry, and the number of groups."""
    batch, group, time = (0 if x.shape[axis] == 1 else x.stride(axis) for axis in range(3))
    return batch, group, time, x.shape[1]


def _threads(work: int) -> int:
    return max(1, min(torch.get_num_threads(), work // _WORK_PER_THREAD))


def _address(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


def _call(name: str, kind: torch.dtype, *arguments: Any) -> None:
    function = getattr(build.library(), f"kinema_{name}_{'f64' if kind == torch.float64 else 'f32'}")
    if function(*arguments):
        raise MemoryError("The C++ scan could not get its working memory.")


class _Scan(torch.autograd.Function):
    """All tensors contiguous and of one dtype, float32 or float64; B and C as `_groups` gives them."""

    @staticmethod
    def forward(ctx: Any, softplus: bool, initial: Tensor | None, *inputs: Tensor | None) -> tuple[Tensor, Tensor]:
        u, _delta, A, B, C = (x for x in inputs[:5] if x is not None)
        batch, channels, length = u.shape
        state = A.shape[1]
        threads = _threads(u.numel() * state)
        # Several runs of channels per sequence where there are fewer sequences than the threads could share evenly.
        splits = 1 if threads == 1 else max(1, min(channels, 4 * threads // batch))
        sizes = _ScanSizes(batch, channels, length, state, *_steps(B), *_steps(C), softplus, splits, threads)
        y, last = torch.empty_like(u), u.new_empty(batch, channels, state)
        pointers = _ScanInputs(*map(_address, (*inputs, initial)))
        _call("scan_forward", u.dtype, ctypes.byref(sizes), ctypes.byref(pointers), *map(_pointer, (y, last)))
        ctx.sizes = tuple(getattr(sizes, field[0]) for field in sizes._fields_)
        ctx.save_for_backward(*inputs, initial)
        ctx.mark_non_differentiable(last)
        return y, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor, _grad_last: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, initial = ctx.saved_tensors
        sizes = _ScanSizes(*ctx.sizes)
        u, delta, A, B, C, D, z, bias = inputs
        grad_y = grad_y.contiguous()
        rows = (sizes.batch, sizes.channels)
        # Each run of channels adds into its own copy: no two threads write to one place.
        grad_B, grad_C = (x.new_zeros(sizes.splits, sizes.batch, *x.shape[1:]) for x in (B, C))
        grad_u, grad_delta, grad_A = torch.empty_like(u), torch.empty_like(delta), A.new_empty(*rows, sizes.state)
        grad_D, grad_bias = (None if x is None else x.new_empty(rows) for x in (D, bias))
        grad_z = None if z is None else torch.empty_like(z)
        grads = (grad_u, grad_delta, grad_A, grad_B, grad_C, grad_D, grad_z, grad_bias)
        steps = (grad_B.stride(0), grad_B.stride(1), grad_C.stride(0), grad_C.stride(1))
        given = _ScanInputs(*map(_address, (*inputs, initial)))
        found = _ScanGrads(_address(grad_y), *map(_address, grads), *steps)
        _call("scan_backward", u.dtype, ctypes.byref(sizes), ctypes.byref(given), ctypes.byref(found))
        sums = [None if x is None else x.sum(0) for x in (grad_A, grad_D, grad_bias)]
        grad_B, grad_C = (
            g.sum((0, 1)).view_as(x) if x.shape[0] == 1 else g.sum(0) for g, x in ((grad_B, B), (grad_C, C))
        )
        return None, None, grad_u, grad_delta, sums[0], grad_B, grad_C, sums[1], grad_z, sums[2]


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, silu: bool, initial: Tensor | None, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        sizes = _ConvSizes(*x.shape, weight.shape[1], silu, _threads(4 * x.numel()))
        y = torch.empty_like(x)
        _call("conv_forward", x.dtype, ctypes.byref(sizes), *map(_pointer, (x, weight, bias, initial, y)))
        ctx.silu = silu
        ctx.save_for_backward(x, weight, bias, initial)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, initial = ctx.saved_tensors
        sizes = _ConvSizes(*x.shape, weight.shape[1], ctx.silu, _threads(4 * x.numel()))
        grad_x, grad_bias = torch.empty_like(x), x.new_empty(x.shape[:2])
        grad_weight = x.new_empty(*x.shape[:2], weight.shape[1])
        tensors = (x, weight, bias, initial, grad_y.contiguous(), grad_x, grad_weight, grad_bias)
        _call("conv_backward", x.dtype, ctypes.byref(sizes), *map(_pointer, tensors))
        return None, None, grad_x, grad_weight.sum(0), None if bias is None else grad_bias.sum(0)


def _pointer(x: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(_address(x))
