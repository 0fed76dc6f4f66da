"""The selective scan on a GPU, by kernels in Triton: nothing to compile at installation, bounded memory.

Source: dbmambapose.md sections 2.1 and 7 (the gradients). The kernels stand in `triton_kernels.py`. The forward pass
keeps the state before every `CHUNK` steps; the backward pass runs one chunk again at a time. The results are
deterministic; a tiny scan is compared with the reference before the first real one. Without a GPU, TRITON_INTERPRET=1
in the environment runs the same kernels in Python, slowly.
"""

from __future__ import annotations

import functools
import math
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kinema.models.layers.scan import reference

CHUNK = 32  # steps between two kept states
PROGRAMS = 2048  # of the backward pass, at most: each has a scratch of CHUNK states
_TILE = 256  # elements of a block of channels times the states, and per warp


@functools.cache
def _import_failure() -> str | None:
    """Why the kernels cannot be imported, or None. Whatever Triton raises at import is a reason."""
    try:
        import kinema.models.layers.scan.triton_kernels  # noqa: F401
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit, too
        return f"Triton does not import ({type(error).__name__}: {error}). pip install 'kinema[triton]' brings it."
    return None


@functools.cache
def _interpreted() -> bool:
    """Whether the kernels run in Python: decided by TRITON_INTERPRET when Triton was imported."""
    from kinema.models.layers.scan import triton_kernels

    return type(triton_kernels.forward).__name__ == "InterpretedFunction"


def unavailable(u: Tensor, *others: object) -> str | None:
    """Why this scan cannot run here, or None where it can; called with the arguments of `scan`."""
    reason = _import_failure()
    if reason is not None:
        return reason
    if u.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        return f"the Triton kernels take float16, bfloat16, float32 and float64, not {u.dtype}."
    tensors = [x for x in others if isinstance(x, Tensor)]
    if any(x.is_complex() for x in tensors):
        return "the Triton kernels take real numbers only."
    apart = {str(x.device) for x in tensors if x.device != u.device}
    if apart:
        return f"the tensors lie on several devices: {u.device} and {', '.join(sorted(apart))}."
    if not _interpreted():
        if u.device.type != "cuda":
            return f"the Triton kernels need a CUDA device, not {u.device.type}, or TRITON_INTERPRET=1 from the start."
        if torch.version.hip is None and torch.cuda.get_device_capability(u.device) < (7, 0):
            return "Triton needs a GPU of compute capability 7.0 or newer."
    return _probe_failure(str(u.device))


@functools.cache
def _probe_failure(device: str) -> str | None:
    """Why the kernels are not to be trusted on a device, or None: all options on, 5 steps, against the reference."""
    draw = torch.Generator().manual_seed(0)
    shapes = ((2, 4, 5), (2, 4, 5), (4, 3), (2, 3, 5), (2, 3, 5), (4,), (2, 4, 5), (4,))
    try:
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(torch.device(device).type, enabled=False):
            values = [torch.randn(shape, generator=draw) for shape in shapes]
            values[2] = -values[2].exp()
            results = []
            runs: tuple[tuple[Any, str], ...] = (reference.scan, "cpu"), (scan, device)
            for run, where in runs:
                tensors = [x.to(where).requires_grad_() for x in values]
                y, last = run(*tensors, True)
                results.append([y, last.detach(), *torch.autograd.grad(y.square().sum(), tensors)])
        off = max(float((a.detach() - b.detach().cpu()).abs().max()) for a, b in zip(*results, strict=True))
    except Exception as error:
        return f"the Triton kernels fail on {device} ({type(error).__name__}: {error})."
    return None if off < 1e-3 else f"the Triton kernels are off by {off:.2g} on {device}."


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
        y (B, D, L) in the dtype of u, stored as (B, L, D), and the last state (B, D, N), which has no gradient.
    """
    work = reference.work_dtype(u)
    A = A.to(work).contiguous()
    D, delta_bias, initial_state = (
        None if x is None else x.to(work).contiguous() for x in (D, delta_bias, initial_state)
    )
    B, C = (x.to(work).contiguous() if x.ndim == 2 else x for x in (B, C))
    tensors = (u, delta, A, B, C, D, z, delta_bias)
    save = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)
    return _Scan.apply(*tensors, delta_softplus, initial_state, save)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor | None,
        z: Tensor | None,
        bias: Tensor | None,
        softplus: bool,
        initial: Tensor | None,
        save: bool,
    ) -> tuple[Tensor, Tensor]:
        from kinema.models.layers.scan import triton_kernels

        size = _Size.of(u, A, B, C)
        u, delta, z = _time_major(u), _time_major(delta), None if z is None else _time_major(z)
        y = _empty_time_major(u)
        last = A.new_empty(size.batch, size.channels, size.states)
        checkpoints = A.new_empty(size.batch, size.chunks, size.channels, size.states) if save else last
        with _on(u):
            triton_kernels.forward[(size.items,)](
                u, delta, A, B, C, _or(D, u), _or(z, u), _or(bias, u), _or(initial, u), y, last, checkpoints,
                *size.counts, *_rows(u), *_rows(delta), *_rows(_or(z, u)), *_rows(y), *_columns(B), *_columns(C),
                *size.ratios(B, C), HAS_INITIAL=initial is not None, SAVE=save,
                **size.options(B, C, D, z, bias, softplus),
            )  # fmt: skip
        if save:
            ctx.save_for_backward(u, delta, A, B, C, D, z, bias, checkpoints)
        ctx.softplus = softplus
        ctx.mark_non_differentiable(last)
        return y, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        from kinema.models.layers.scan import triton_kernels

        u, delta, A, B, C, D, z, bias, checkpoints = ctx.saved_tensors
        size = _Size.of(u, A, B, C)
        programs = min(size.items, PROGRAMS)
        scratch = A.new_empty(programs * CHUNK * size.block * size.padded)
        grad, grad_u, grad_delta = _time_major(grad), _empty_time_major(u), _empty_time_major(delta)
        grad_z = None if z is None else _empty_time_major(z)
        grad_A = A.new_empty(size.batch, size.channels, size.states)
        grad_B, grad_C = (
            torch.empty_like(grad_A)
            if x.ndim == 2
            else A.new_empty(size.batch, size.groups * size.blocks, size.length, size.states)
            for x in (B, C)
        )
        grad_D, grad_bias = (None if x is None else A.new_empty(size.batch, size.channels) for x in (D, bias))
        with _on(u):
            triton_kernels.backward[(programs,)](
                grad, u, delta, A, B, C, _or(D, u), _or(z, u), _or(bias, u), checkpoints, scratch,
                grad_u, grad_delta, grad_A, grad_B, grad_C, _or(grad_D, u), _or(grad_z, u), _or(grad_bias, u),
                size.items, *size.counts, *_rows(grad), *_rows(u), *_rows(delta), *_rows(_or(z, u)),
                *_columns(B), *_columns(C), *size.ratios(B, C), **size.options(B, C, D, z, bias, ctx.softplus),
            )  # fmt: skip
        return (
            grad_u,
            grad_delta,
            grad_A.sum(0),
            _collect(grad_B, B),
            _collect(grad_C, C),
            None if grad_D is None else grad_D.sum(0),
            grad_z,
            None if grad_bias is None else grad_bias.sum(0),
            None,
            None,
            None,
        )


class _Size(NamedTuple):
    """How the scan is cut: `blocks` blocks of `block` channels in each of `groups` groups of every batch row."""

    batch: int
    channels: int
    length: int
    states: int
    groups: int
    block: int
    padded: int

    @classmethod
    def of(cls, u: Tensor, A: Tensor, B: Tensor, C: Tensor) -> _Size:
        batch, channels, length = u.shape
        states = A.shape[1]
        groups = math.lcm(_groups(B), _groups(C))
        padded = _power_of_two(states)
        block = max(1, min(32, _TILE // padded, _power_of_two(channels // groups)))
        return cls(batch, channels, length, states, groups, block, padded)

    @property
    def chunks(self) -> int:
        return -(-self.length // CHUNK)

    @property
    def blocks(self) -> int:
        return -(-(self.channels // self.groups) // self.block)

    @property
    def items(self) -> int:
        return self.batch * self.groups * self.blocks

    @property
    def counts(self) -> tuple[int, ...]:
        """length, chunks, groups, channels of a group, states, blocks of a group: as both kernels take them."""
        return self.length, self.chunks, self.groups, self.channels // self.groups, self.states, self.blocks

    def ratios(self, B: Tensor, C: Tensor) -> tuple[int, int]:
        """How many of our groups share one of B, and one of C."""
        return self.groups // _groups(B), self.groups // _groups(C)

    def options(
        self, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None, bias: Tensor | None, softplus: bool
    ) -> dict[str, Any]:
        """What a kernel is compiled for, by name."""
        return {
            "B_VARIES": B.ndim > 2,
            "C_VARIES": C.ndim > 2,
            "HAS_D": D is not None,
            "HAS_Z": z is not None,
            "HAS_BIAS": bias is not None,
            "SOFTPLUS": softplus,
            "CHUNK": CHUNK,
            "BLOCK": self.block,
            "STATES": self.padded,
            "num_warps": max(1, min(8, self.block * self.padded // _TILE)),
        }


def _power_of_two(x: int) -> int:
    return 1 << (x - 1).bit_length()


def _groups(x: Tensor) -> int:
    return x.shape[1] if x.ndim == 4 else 1


def _time_major(x: Tensor) -> Tensor:
    """The same (B, D, L), copied if need be so that neighbouring channels are neighbours in memory."""
    if x.stride(1) == 1:
        return x
    return x.transpose(1, 2).contiguous().transpose(1, 2)


def _empty_time_major(like: Tensor) -> Tensor:
    batch, channels, length = like.shape
    return like.new_empty(batch, length, channels).transpose(1, 2)


def _rows(x: Tensor) -> tuple[int, int]:
    """Strides of batch and time."""
    return x.stride(0), x.stride(2)


def _columns(x: Tensor) -> tuple[int, int, int, int]:
    """Strides of batch, group, state and time of B or C; a constant one has none."""
    if x.ndim == 2:
        return 0, 0, 0, 0
    return x.stride(0), x.stride(1) if x.ndim == 4 else 0, x.stride(-2), x.stride(-1)


def _collect(partial: Tensor, like: Tensor) -> Tensor:
    """Sum the partial gradients of B or C to the shape and dtype of the tensor."""
    if like.ndim == 2:
        return partial.sum(0)
    batch, _, length, states = partial.shape
    summed = partial.view(batch, _groups(like), -1, length, states).sum(2).transpose(-1, -2)
    return (summed if like.ndim == 4 else summed[:, 0]).to(like.dtype)


def _or(x: Tensor | None, filler: Tensor) -> Tensor:
    """A pointer for a missing tensor; the kernel's options keep it from being read."""
    return filler if x is None else x


def _on(x: Tensor) -> Any:
    """Triton launches on the current device, which need not be that of the tensors."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()
