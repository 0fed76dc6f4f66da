"""What only a GPU can show: training steps in bfloat16, scans, whole videos, and evaluation without waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kinema.core.align import root_relative
from kinema.core.diffusion import alpha_hats, visited
from kinema.core.motion_space import MotionSpace
from kinema.data.windows import Windows
from kinema.inference.motion_sampler import MotionSampler
from kinema.inference.slide import pad_edges, slide
from kinema.models.dstformer import DSTBlock
from kinema.models.smrnet import SharedSMRNet
from kinema.protocols.videopose3d import VideoPose3DProtocol
from scripts.bench import reference_diffusion, reference_mamba, reference_metrics, reference_networks
from scripts.bench.bench_diffusion import SMALL_NET, SMRNET, WINDOW, Given, histories, network
from scripts.bench.bench_mamba import dbmambapose, forward_of, loop, operator, relative, scan_inputs, step_of
from scripts.bench.bench_networks import dstformer, poseformer
from scripts.bench.measure import Pair
from scripts.bench.rows import bench
from scripts.bench.stores import BODY, batches, camera_space, distance, disturbed

_CUDA = {"clock": "cuda", "rounds": 20, "needs": ("cuda",)}
_FULL = {"frames": 243, "dim": 512, "depth": 5, "heads": 8, "mlp_ratio": 2, "batch": 8}
_SMALL = {"frames": 9, "dim": 64, "depth": 2, "heads": 2, "batch": 2}
_DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def build_dstformer_step(
    *, frames: int, dim: int, depth: int, heads: int, mlp_ratio: float, batch: int, half: bool, compiled: bool
) -> Pair:
    """Forward, backward and optimiser step of the full DSTformer, the optimiser being the same in both forms.

    Compiled block by block, so that all blocks share one compilation, whose time is noted. Equality: the outputs, as
    the mean difference over the mean size in bfloat16.
    """
    plain_model, model = (
        dstformer(frames=frames, dim=dim, depth=depth, heads=heads, mlp_ratio=mlp_ratio).to(_DEVICE) for _ in range(2)
    )
    pose, target = (torch.randn(batch, frames, 17, 3, device=_DEVICE) for _ in range(2))
    notes: dict[str, Any] = {}
    plain = _step(plain_model, lambda x: reference_networks.dstformer(plain_model, x), pose, target, half=False)
    ours = _step(model, model, pose, target, half=half)
    if compiled:
        for block in model.modules():
            if isinstance(block, DSTBlock):
                block.compile(dynamic=False)
        started = time.perf_counter()
        ours()
        torch.cuda.synchronize()
        notes["compile_seconds"] = round(time.perf_counter() - started, 1)
        with torch.no_grad():  # the step changed the weights
            for after, before in zip(model.parameters(), plain_model.parameters(), strict=True):
                after.copy_(before)

    @torch.no_grad()
    def difference() -> float:
        with torch.autocast(_DEVICE, torch.bfloat16, enabled=half):
            found = model(pose).float()
        expected = reference_networks.dstformer(plain_model, pose)
        if not half:
            return distance((found, expected))
        return float((found - expected).abs().mean() / expected.abs().mean())

    return Pair(plain, ours, difference, notes=notes)


bench(
    build_dstformer_step,
    "gpu_dstformer_step",
    operation="DSTformer training step, bf16 + SDPA + compile",
    reference="float32, softmax attention with permutes",
    sizes={**_FULL, "half": True, "compiled": True},
    small={**_SMALL, "compiled": False},
    bound=4,
    goal=4,
    tolerance=5e-2,
    **_CUDA,
)
bench(
    build_dstformer_step,
    "gpu_dstformer_step_eager",
    operation="DSTformer training step, bf16 + SDPA",
    reference="float32, softmax attention with permutes",
    sizes={**_FULL, "half": True, "compiled": False},
    small=_SMALL,
    bound=2,
    goal=3,
    tolerance=5e-2,
    **_CUDA,
)
bench(
    build_dstformer_step,
    "gpu_dstformer_step_float32",
    operation="DSTformer training step, float32 + SDPA",
    reference="float32, softmax attention with permutes",
    sizes={**_FULL, "half": False, "compiled": False},
    small=_SMALL,
    bound=1,
    goal=1.1,
    tolerance=1e-4,
    **_CUDA,
)


def _step(
    model: torch.nn.Module, forward: Callable[[Tensor], Tensor], pose: Tensor, target: Tensor, *, half: bool
) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(_DEVICE, torch.bfloat16, enabled=half):
            out = forward(pose)
        torch.linalg.vector_norm(out.float() - target, dim=-1).mean().backward()
        optimizer.step()

    return step


# The backends of the selective scan on a GPU, by what they need.
_SCANS: dict[str, tuple[str, ...]] = {"torch": ("cuda",), "triton": ("triton", "cuda"), "cuda": ("mamba_ssm", "cuda")}


def _backend(name: str) -> str:
    """The backend; "auto" where the equality test runs on a CPU."""
    return name if _DEVICE == "cuda" else "auto"


def build_scan(*, batch: int, channels: int, length: int, states: int, training: bool, backend: str) -> Pair:
    """The operator on the GPU with softplus, skip and gate; equality of the output and all gradients."""
    inputs = scan_inputs(batch, channels, length, states, device=_DEVICE)
    form = step_of if training else forward_of
    plain, ours = form(loop(), inputs), form(operator(_backend(backend)), inputs)
    return Pair(plain, ours, lambda: relative(ours(), plain()))


def build_dbmambapose_step(*, frames: int, dim: int, depth: int, batch: int, backend: str) -> Pair:
    """Forward, backward and optimiser step of DBMambaPose L in bfloat16, the scans in float32, in both forms.

    Noted are steps per second and the peak memory of a step in both forms. Equality: the outputs, as the mean
    difference over the mean size.
    """
    plain_model, model = (
        dbmambapose(frames=frames, dim=dim, depth=depth, backend=_backend(backend)).to(_DEVICE) for _ in range(2)
    )

    def plain_forward(x: Tensor) -> Tensor:
        return reference_mamba.dbmambapose(plain_model, x)

    pose, target = (torch.randn(batch, frames, 17, 3, device=_DEVICE) for _ in range(2))
    plain = _step(plain_model, plain_forward, pose, target, half=True)
    ours = _step(model, model, pose, target, half=True)

    @torch.no_grad()
    def difference() -> float:
        with torch.autocast(_DEVICE, torch.bfloat16):
            found, expected = model(pose).float(), plain_forward(pose).float()
        return float((found - expected).abs().mean() / expected.abs().mean())

    notes: dict[str, Any] = {}

    def measured_difference() -> float:  # ahead of the steps, which change the weights
        gap = difference()
        if _DEVICE == "cuda":
            notes.update({"peak_gb_reference": _peak_gb(plain), "peak_gb": _peak_gb(ours)})
            notes["steps_per_second"] = round(_rate(ours), 2)
        return gap

    return Pair(plain, ours, measured_difference, notes=notes)


def _peak_gb(step: Callable[[], None]) -> float:
    """Most memory in tensors during the second of two steps, GB; weights and states of the optimiser belong to it."""
    step()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    return round(torch.cuda.max_memory_allocated() / 1e9, 2)


def _rate(step: Callable[[], None], count: int = 10) -> float:
    """Steps per second of the wall clock."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(count):
        step()
    torch.cuda.synchronize()
    return count / (time.perf_counter() - started)


# Eight clips at the width of DBMambaPose L, with the states of the published scan.
_SCAN = {"batch": 136, "channels": 256, "length": 243, "states": 16}
for _name, _needs in _SCANS.items():
    for _kind, _bound in (("forward", 1 if _name == "torch" else 3), ("step", 3)):
        bench(
            build_scan,
            f"gpu_scan_{_kind}_{_name}",
            operation=f"scan [136, 256, 243, 16], {_name}, {'forward + backward' if _kind == 'step' else 'forward'}",
            reference="loop on slices of whole tensors",
            sizes={**_SCAN, "training": _kind == "step", "backend": _name},
            small={"batch": 3, "channels": 8, "length": 11, "states": 4},
            bound=_bound,
            goal=_bound,
            tolerance=1e-4,
            **{**_CUDA, "needs": _needs},
        )
for _name, _needs in _SCANS.items():
    bench(
        build_dbmambapose_step,
        f"gpu_dbmambapose_step_{_name}",
        operation=f"DBMambaPose L training step, T 243, 4 clips, bf16, {_name}",
        reference="the same with the loop on slices",
        sizes={"frames": 243, "dim": 128, "depth": 28, "batch": 4, "backend": _name},
        small={"frames": 9, "dim": 16, "depth": 2, "batch": 2},
        bound=2,
        goal=2,
        tolerance=5e-2,
        **{**_CUDA, "rounds": 3, "needs": _needs},
    )


def build_poseformer_video(*, frames: int, dim: int, depth: int, heads: int, length: int) -> Pair:
    """A prediction per frame of a video and of its mirrored copy, which is how PoseFormer is evaluated."""
    model = poseformer(frames=frames, dim=dim, depth=depth, heads=heads).to(_DEVICE)
    video = pad_edges(torch.randn(2, length, 17, 2, device=_DEVICE), model.signature.context)

    @torch.no_grad()
    def plain() -> Tensor:
        return torch.cat([reference_networks.poseformer_video(model, one[None]) for one in video])

    return Pair(plain, lambda: slide(model, video), lambda: distance((slide(model, video), plain())))


bench(
    build_poseformer_video,
    "gpu_poseformer_video",
    operation="PoseFormer video, 1000 frames, flip averaged",
    reference="one window per frame",
    sizes={"frames": 81, "dim": 32, "depth": 4, "heads": 8, "length": 1000},
    small={"frames": 9, "dim": 8, "depth": 2, "heads": 2, "length": 13},
    bound=2,
    goal=2,
    tolerance=1e-4,
    **_CUDA,
)


def build_evaluation(*, sequences: int, length: int) -> Pair:
    """The test split of Human3.6M in size: predictions of whole sequences, one after another, to the report."""
    random = np.random.default_rng(0)
    store = camera_space([int(n) for n in random.integers(length // 2, length * 3 // 2, sequences)])
    windows = Windows.whole(store, keys=("pose3d",))
    rows = [{key: value.to(_DEVICE) for key, value in row.items()} for row in batches(windows, 1)]
    targets = [root_relative(row["pose3d"], BODY) for row in rows]
    predictions = [disturbed(target.cpu()).to(_DEVICE) for target in targets]
    pairs, actions = list(zip(predictions, targets, strict=True)), [str(a) for a in store.table["action"]]
    protocol = VideoPose3DProtocol(windows).to(_DEVICE)

    def ours() -> dict[str, float]:
        protocol.reset()
        for prediction, row in zip(predictions, rows, strict=True):
            protocol.update(prediction, row)
        return protocol.compute().scalars

    def plain() -> dict[str, float]:
        return reference_metrics.videopose3d(pairs, actions)

    def difference() -> float:
        found, expected = ours(), plain()
        return max(abs(found[name] - value) / abs(value) for name, value in expected.items())

    return Pair(plain, ours, difference)


bench(
    build_evaluation,
    "gpu_evaluation",
    operation="full test metrics without waits",
    reference="per sequence, each number fetched",
    sizes={"sequences": 236, "length": 2300},
    small={"sequences": 3, "length": 9},
    bound=5,
    goal=5,
    tolerance=1e-5,
    clock="wall",
    rounds=3,
    needs=("cuda",),
)


@contextmanager
def _arithmetic(precision: str) -> Iterator[None]:
    """Products in float32, in TF32, or in bfloat16 by autocast."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        with torch.autocast(_DEVICE, torch.bfloat16, enabled=precision == "bf16"):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


class _Compiled(torch.nn.Module):
    """A network whose shared form is compiled, once for all runs and steps."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.step = model, torch.compile(SharedSMRNet.__call__)

    def denoiser(
        self, condition: Tensor | None, timesteps: Tensor, conditioned: int | None = None
    ) -> Callable[[Tensor, int], Tensor]:
        shared = self.model.denoiser(condition, timesteps, conditioned)
        return lambda x, step: self.step(shared, x, step)


# A test on Human3.6M as published: windows, samples of each, steps of each.
_H36M_TEST = 5168 * 50 * 100


def build_sampling(
    *, family: str, history: int, horizon: int, kept: int, dim: int, depth: int, heads: int, windows: int,
    samples: int, steps: int, precision: str, compiled: bool,
) -> Pair:  # fmt: skip
    """Samples of motions as a test draws them, our noise included; the reference has all samples in one batch.

    Noted are sequences (windows times samples times steps) per second, and the minutes that sampling for the full test
    of Human3.6M would take at that rate. Equality on the same noise: the motions, in shorter formats what the network
    says at the first step, as the mean difference over the mean size.
    """
    model, plain_network = network(family=family, kept=kept, dim=dim, depth=depth, heads=heads)
    model.to(_DEVICE)
    space = MotionSpace(history=history, horizon=horizon, kept_coeffs=kept)
    chunk = windows * samples
    sampler = MotionSampler(_Compiled(model) if compiled else model, space, ddim_timesteps=steps, chunk=chunk)
    seen, noise = histories(windows, history).to(_DEVICE), Given.drawn(windows, samples, steps, kept).to(_DEVICE)
    levels = [(int(a), int(b)) for a, b in visited(1000, steps)]
    alpha_hat = alpha_hats("cosine", 1000).to(_DEVICE)
    each, start, fresh = seen.repeat_interleave(samples, 0), noise.start.flatten(0, 1), noise.fresh.flatten(1, 2)

    def plain() -> Tensor:
        return reference_diffusion.ddim(plain_network, each, space.frames, levels, alpha_hat, start, fresh)

    def ours(source: Given | None = None) -> Tensor:
        with _arithmetic(precision):
            return sampler(seen, samples, noise=source)

    notes: dict[str, Any] = {}

    @torch.no_grad()
    def difference() -> float:
        if _DEVICE == "cuda":
            notes.update(_throughput(ours, chunk * steps, compiled))
        if precision == "float32":
            return distance((ours(noise).flatten(0, 1), plain()))
        condition, t = space.encode_history(seen).condition, sampler.timesteps[:, 0].to(_DEVICE)
        with _arithmetic(precision):
            make: Any = sampler.model.denoiser
            found = make(condition, t)(noise.start, 0).float().flatten(0, 1)
        expected = plain_network(start, t[:1].expand(chunk), condition.repeat_interleave(samples, 0))
        return float((found - expected).abs().mean() / expected.abs().mean())

    return Pair(plain, ours, difference, notes=notes)


def _throughput(run: Callable[[], Tensor], sequences: int, compiled: bool) -> dict[str, float]:
    notes = {}
    started = time.perf_counter()
    run()
    torch.cuda.synchronize()
    if compiled:
        notes["compile_seconds"] = round(time.perf_counter() - started, 1)
    rate = sequences * _rate(lambda: (run(), None)[1], 3)
    return {**notes, "sequences_per_second": round(rate), "h36m_test_minutes": round(_H36M_TEST / rate / 60, 2)}


# The speeds of these formats relative to float32 are expected, not measured.
for _precision, _minimum, _expected in (("float32", 1.1, 1.4), ("tf32", 2, 4), ("bf16", 2, 6)):
    for _compile in (False, True):
        _form = {"precision": _precision, "compiled": _compile}
        bench(
            build_sampling,
            f"gpu_smrnet_{_precision}{'_compiled' if _compile else ''}",
            operation=f"SMRNet DDIM, 20 windows x 50 samples, {_precision}{', compiled' if _compile else ''}",
            reference="published network in float32, all samples in a batch",
            sizes={**SMRNET, **WINDOW, "windows": 20, "samples": 50, "steps": 10, **_form},
            small={**SMALL_NET, "windows": 2, "samples": 3, "compiled": False},
            bound=_minimum,
            goal=_expected,
            tolerance=1e-4 if _precision == "float32" else 5e-2,
            **{**_CUDA, "rounds": 5},
        )
