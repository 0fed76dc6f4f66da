"""What a model costs: parameters, multiply-accumulates, latency and peak memory."""

from __future__ import annotations

import copy
import statistics
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from kinema.core.spec import Signature
from kinema.errors import ConfigError
from kinema.inference.denoise import denoiser

# The counting rule, printed beside every count.
RULE = "linear layers, convolutions and attention products; not norms, softmax, activations, sums"
SCAN_RULE = "linear layers, convolutions, attention products and scans; not norms, exponentials, activations, sums"

NOISE_RULE = "every matrix product: linear layers, attention and, among attention, adjacencies; not norms, softmax, ..."

# Samples of a window, of which the cost of one is told: those of the published evaluations.
SAMPLES = 50

_KINDS = {"mm": "linear", "addmm": "linear", "convolution": "convolution", "bmm": "attention", "baddbmm": "attention"}


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates of one call.

    Attributes:
        total: of the whole batch.
        kinds: the same by kind: "linear", "convolution", "attention", "other".
        frames_out: output frames of one sample.
        per_frame: of one output frame of one sample.
        streaming: of one further frame of a long video, where windows share work; None where they do not.
        visible: of `total`, what profilers count that do not look inside a fused scan (the numbers of the papers);
            None for a model without one.
        unconditional: of one sample of a noise predictor that sees no condition; None for other models.
        sampling: of one sample at one step where `SAMPLES` of a window share work; None for other models.
    """

    total: int
    kinds: dict[str, int]
    frames_out: int
    per_frame: float
    streaming: int | None
    visible: int | None = None
    unconditional: int | None = None
    sampling: float | None = None


def count_parameters(model: nn.Module, trainable: bool = False) -> int:
    """Number of parameters, or of those that a training step would change."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable)


def count_macs(model: nn.Module, batch: int = 1, frames: int | None = None) -> Macs:
    """Count multiply-accumulates on the meta device: nothing is computed, so any size takes about a second.

    One multiply-accumulate is half of what torch's FLOP counter counts. Attention goes through the path of plain
    matrix products, because the fused kernels are not counted on every device; a mask would not change the count.
    A layer whose work that counter cannot see (a scan) states it: `stated_macs(tokens)` by kind, and by
    `visible_macs(tokens)` what other profilers see of it. It is not run, so it must map (..., C) to the same shape.

    Args:
        model: a model with a `signature`; it is not changed.
        batch: samples.
        frames: input length; None = what the model is built for.
    """
    ghost = copy.deepcopy(model).to("meta").eval()
    example = ghost.signature.example(batch, frames)  # type: ignore[operator, union-attr]
    statements = _let_layers_state(ghost)
    total, kinds, out = _counted(ghost, example)
    frames_out = out.shape[1] if ghost.signature.output == "pose3d" else 1  # type: ignore[union-attr]
    visible = None
    if statements:
        visible = total + sum(seen for _, seen in statements)
        for stated, _ in statements:
            for kind, count in stated.items():
                kinds[kind] = kinds.get(kind, 0) + count
        total = sum(kinds.values())
    per_frame = total / (batch * frames_out)
    return Macs(total, kinds, frames_out, per_frame, _streaming(ghost), visible, *_denoising(ghost))


def _let_layers_state(ghost: nn.Module) -> list[tuple[dict[str, int], int]]:
    """Make layers with `stated_macs` write down their counts, all and visible, instead of running."""
    statements: list[tuple[dict[str, int], int]] = []
    for layer in ghost.modules():
        if hasattr(layer, "stated_macs"):
            layer.forward = partial(_state, layer, statements)
    return statements


def _state(layer: Any, statements: list[tuple[dict[str, int], int]], x: Tensor) -> Tensor:
    tokens = x.numel() // x.shape[-1]
    statements.append((layer.stated_macs(tokens), layer.visible_macs(tokens)))
    return torch.empty_like(x)


def _streaming(ghost: nn.Module) -> int | None:
    """Count one further frame of a long video; what windows share is counted once."""
    signature: Signature = ghost.signature  # type: ignore[assignment]
    if signature.frames_rule == "any" and any(signature.context):
        call: Callable[..., Tensor] = ghost
    elif hasattr(ghost, "slide"):
        call = ghost.slide  # type: ignore[assignment]
    else:
        return None
    try:
        long, longer = (_counted(call, signature.example(1, 2 * signature.frames + extra))[0] for extra in (0, 1))
    except NotImplementedError:  # a `slide` that looks at values, which the meta device does not have
        return None
    return longer - long


def _denoising(ghost: nn.Module) -> tuple[int | None, float | None]:
    """Count a noise predictor without its condition, and per sample where samples of a window share work."""
    signature: Signature = ghost.signature  # type: ignore[assignment]
    if signature.output != "noise":
        return None, None
    x, t, condition = (tensor.to("meta") for tensor in signature.example(1))
    shared = denoiser(ghost, condition, t)
    every = _counted(lambda x: shared(x, 0), (x.expand(SAMPLES, -1, -1)[None],))[0]
    return _counted(ghost, (x, t))[0], every / SAMPLES


def _counted(call: Callable[..., Tensor], example: tuple[Tensor, ...]) -> tuple[int, dict[str, int], Tensor]:
    inputs = [tensor.to("meta") for tensor in example]
    with FlopCounterMode(display=False) as counter, sdpa_kernel([SDPBackend.MATH]), torch.no_grad():
        out = call(*inputs)
    kinds: dict[str, int] = {}
    for operator, flops in counter.get_flop_counts().get("Global", {}).items():
        kind = _KINDS.get(str(operator).rsplit(".", 1)[-1], "other")
        kinds[kind] = kinds.get(kind, 0) + flops // 2
    return counter.get_total_flops() // 2, kinds, out


@dataclass(frozen=True)
class Cost:
    """One measured call.

    Attributes:
        seconds: median time.
        runs: number of timed calls.
        peak_bytes: memory of the tensors made during the call at its worst moment, beside weights and inputs.
    """

    seconds: float
    runs: int
    peak_bytes: int


def measure(
    model: nn.Module, inputs: tuple[Tensor, ...], *, runs: int = 3, training: bool = False, budget: float = 5.0
) -> Cost:
    """Time and weigh a forward pass, or a forward and backward pass, on the device where the model is.

    The first call warms up and is weighed. Timed calls follow until there are `runs` of them or `budget` is spent,
    the first one included; where that took all of it, its own time counts.

    Args:
        model: in eval mode for a forward pass; for a training step it is put into training mode and back.
        inputs: arguments of `forward` on the model's device.
        runs: timed calls at most.
        training: include the backward pass of the mean square of the output (no optimiser). Running statistics are
            put back afterwards.
        budget: seconds after which no further call starts.

    Raises:
        ConfigError: for a training step of one value per channel through BatchNorm, which has no variance.
    """
    device = inputs[0].device

    def call() -> None:
        if training:
            model.zero_grad(set_to_none=True)
            model(*inputs).square().mean().backward()
        else:
            with torch.inference_mode():
                model(*inputs)

    before = model.training
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()] if training else []
    model.train(training)
    try:
        first, peak = _weighed(call, model, device)
        times: list[float] = []
        while len(times) < runs and first + sum(times) < budget:
            times.append(_timed(call, device))
    except ValueError as error:
        if not str(error).startswith("Expected more than 1 value per channel"):
            raise
        raise ConfigError(
            "A training step of this model needs more than one sample for its BatchNorm. Use describe.batch_size=2."
        ) from error
    finally:
        model.train(before)
        for buffer, value in buffers:
            buffer.copy_(value)
        model.zero_grad(set_to_none=True)
    times = times or [first]
    return Cost(statistics.median(times), len(times), peak)


def _timed(call: Callable[[], None], device: torch.device) -> float:
    _synchronise(device)
    start = time.perf_counter()
    call()
    _synchronise(device)
    return time.perf_counter() - start


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _weighed(call: Callable[[], None], model: nn.Module, device: torch.device) -> tuple[float, int]:
    """Seconds and peak bytes of one call: the allocator's on CUDA, the living tensors' elsewhere."""
    if device.type == "cuda":
        call()  # libraries take their workspaces once
        model.zero_grad(set_to_none=True)
        torch.cuda.reset_peak_memory_stats(device)
        base = torch.cuda.memory_allocated(device)
        return _timed(call, device), torch.cuda.max_memory_allocated(device) - base
    with LivingTensors(known=[*model.parameters(), *model.buffers()]) as living:
        seconds = _timed(call, device)
    return seconds, living.peak


class LivingTensors(TorchDispatchMode):
    """Follow the memory of every tensor made inside the context until it is freed; `peak` is in bytes.

    What a kernel allocates and frees by itself (workspaces of libraries) is not seen.
    """

    def __init__(self, known: list[Tensor]) -> None:
        super().__init__()
        self.now = self.peak = 0
        # Views of weights come out of operators as well: their memory was there before.
        self._sizes: dict[int, int] = {tensor.untyped_storage()._cdata: 0 for tensor in known}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._see(tensor.untyped_storage())
        return out

    def _see(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._sizes:
            return
        self._sizes[key] = storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.now -= self._sizes.pop(key, 0)
