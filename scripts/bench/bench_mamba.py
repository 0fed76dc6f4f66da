"""The selective scan by backend against the loop on slices, and a whole Mamba network on top of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from kinema.models.dbmambapose import DBMambaPose
from kinema.models.layers.selective_scan import selective_scan
from scripts.bench import reference_mamba as reference
from scripts.bench.measure import Call, Once, Pair
from scripts.bench.rows import bench
from scripts.bench.stores import distance, scatter

Scan = Callable[..., Tensor]
_LOOP = "loop on slices of whole tensors"


def scan_inputs(batch: int, channels: int, length: int, states: int, *, device: str = "cpu") -> list[Tensor]:
    """u, delta, B, C, A, D, z and delta_bias as they reach the operator, A being the official -1, ..., -N."""
    torch.manual_seed(0)
    over_time = [torch.randn(batch, channels, length) for _ in range(3)]
    weights = [torch.randn(batch, states, length) for _ in range(2)]
    rates = -torch.arange(1.0, states + 1).repeat(channels, 1)
    vectors = [torch.randn(channels), torch.randn(channels) - 2]
    made = [*over_time[:2], *weights, rates, vectors[0], over_time[2], vectors[1]]
    return [tensor.to(device) for tensor in made]


def _ordered(scan: Scan) -> Scan:
    """A scan that takes the inputs in the order of `scan_inputs`."""

    def run(u: Tensor, delta: Tensor, b: Tensor, c: Tensor, a: Tensor, skip: Tensor, z: Tensor, bias: Tensor) -> Tensor:
        return scan(u, delta, a, b, c, skip, z, bias)

    return run


def loop() -> Scan:
    """The reference on `scan_inputs`."""
    return _ordered(reference.selective_scan)


def operator(backend: str) -> Scan:
    """The operator with a backend on `scan_inputs`."""
    return _ordered(partial(selective_scan, delta_softplus=True, backend=backend))


def forward_of(scan: Scan, inputs: Sequence[Tensor]) -> Call:
    """A call for the output without gradients."""

    @torch.no_grad()
    def run() -> list[Tensor]:
        return [scan(*inputs)]

    return run


def step_of(scan: Scan, inputs: Sequence[Tensor]) -> Call:
    """A call for the output and the gradients of all inputs."""
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    weight = torch.linspace(-1, 1, inputs[0].numel(), device=inputs[0].device).view_as(inputs[0])

    def run() -> list[Tensor]:
        y = scan(*leaves)
        return [y.detach(), *torch.autograd.grad(y, leaves, weight)]

    return run


def relative(found: Sequence[Tensor], expected: Sequence[Tensor], least: float = 0.0) -> float:
    """Largest difference in units of the largest entry of each tensor, or of `least` where that is larger."""
    units = [max(float(tensor.abs().max()), least) or 1.0 for tensor in expected]
    return distance(*((a / unit, b / unit) for a, b, unit in zip(found, expected, units, strict=True)))


def build_scan(
    *, batch: int, channels: int, length: int, states: int, training: bool, backend: str, once: bool = False
) -> Pair:
    """The operator as a Mamba block calls it: softplus, skip and gate belong to both forms.

    The hard cases are a single step, and steps so large that the state forgets at once.

    Args:
        batch: sequences.
        channels: inner channels.
        length: steps.
        states: numbers that a channel remembers.
        training: forward and backward; otherwise forward without gradients.
        backend: of the operator.
        once: run the reference a single time, in the comparison.
    """
    form = step_of if training else forward_of
    inputs = scan_inputs(batch, channels, length, states)
    plain, ours = form(loop(), inputs), form(operator(backend), inputs)
    plain = Once(plain) if once else plain
    single, large = (scan_inputs(2, channels, steps, states) for steps in (1, 9))
    large[1].mul_(30)

    def difference() -> float:
        hard = [relative(form(operator(backend), case)(), form(loop(), case)()) for case in (single, large)]
        return max(relative(ours(), plain()), *hard)

    return Pair(plain, ours, difference)


_SMALL = {"batch": 3, "channels": 8, "length": 11, "states": 4}
_TIME = {"batch": 17, "channels": 128, "length": 243}
_JOINTS = {"batch": 243, "channels": 128, "length": 17}
_NEEDS: dict[str, tuple[str, ...]] = {"torch": (), "cpp": ("compiler",)}


def _scan_rows(
    name: str, operation: str, sizes: dict[str, Any], bounds: dict[str, dict[str, tuple[float, float]]]
) -> None:
    """Rows of one shape: (minimum, goal) by kind of pass and backend."""
    for kind, by_backend in bounds.items():
        training = kind == "step"
        for backend, (bound, goal) in by_backend.items():
            # A backward pass of the loop over 243 steps of 16 states takes a quarter of a minute.
            slow = training and sizes["length"] * sizes["states"] > 2000
            bench(
                build_scan,
                f"{name}_{kind}_{backend}",
                operation=f"{operation}, {backend}, {'forward + backward' if training else 'forward'}",
                reference=_LOOP,
                sizes={**sizes, "training": training, "backend": backend, "once": slow},
                small=_SMALL,
                bound=bound,
                goal=goal,
                tolerance=2e-5,
                needs=_NEEDS[backend],
            )


_scan_rows(
    "scan",
    "scan [17, 128, 243, 16]",
    {**_TIME, "states": 16},
    {"forward": {"torch": (2, 3), "cpp": (8, 14)}, "step": {"torch": (20, 40), "cpp": (150, 330)}},
)
_scan_rows(
    "scan_time",
    "scan over time [17, 128, 243, 4]",
    {**_TIME, "states": 4},
    {"forward": {"torch": (1, 1.6), "cpp": (2, 3.9)}, "step": {"torch": (4, 8.2), "cpp": (15, 34)}},
)
_scan_rows(
    "scan_joints",
    "scan over joints [243, 128, 17, 4]",
    {**_JOINTS, "states": 4},
    {"forward": {"torch": (1, 1.5), "cpp": (1.5, 2.8)}, "step": {"torch": (1.2, 2.2), "cpp": (3, 7)}},
)

for _backend, _goal in (("torch", 0.3), ("cpp", 0.1)):
    bench(
        build_scan,
        f"scan_memory_{_backend}",
        operation=f"scan [243, 128, 17, 16], {_backend}: peak memory of forward + backward",
        reference=_LOOP,
        sizes={**_JOINTS, "states": 16, "training": True, "backend": _backend},
        small=_SMALL,
        bound=0.5,
        goal=_goal,
        tolerance=2e-5,
        kind="memory",
        needs=_NEEDS[_backend],
    )


def dbmambapose(*, frames: int, dim: int, depth: int, backend: str) -> DBMambaPose:
    """A DBMambaPose as the size XS is but for its width and depth, with random values in every parameter."""
    torch.manual_seed(0)
    model = DBMambaPose(
        num_frames=frames, num_joints=17, in_channels=3, dim=dim, dim_rep=512, depth=depth, d_state=4, d_conv=4,
        expand=2, mlp_ratio=3, dropout=0.0, drop_path=0.0, layer_scale=0.5, mixer="v2", divide=True, streams="single",
        limbs=False, scan_backend=backend,
    )  # fmt: skip
    scatter(model)
    return model


def build_network(*, frames: int, dim: int, depth: int, backend: str, training: bool, once: bool) -> Pair:
    """A clip through the whole network, the loop standing in for the scan of the same weights.

    The hard cases are two clips of two frames, and a single frame. Gradients are compared in units of the largest entry
    of each, or of a tenth of the largest of all.
    """
    model = dbmambapose(frames=frames, dim=dim, depth=depth, backend=backend)
    weights = list(model.parameters())

    def run(forward: Callable[[Tensor], Tensor], pose: Tensor) -> list[Tensor]:
        with torch.set_grad_enabled(training):
            out = forward(pose)
            gradients = torch.autograd.grad(out.square().mean(), weights) if training else ()
        return [out.detach(), *gradients]

    plain_forward = partial(reference.dbmambapose, model)
    pose = torch.randn(1, frames, 17, 3)
    plain: Call = partial(run, plain_forward, pose)
    plain = Once(plain) if once else plain
    ours: Call = partial(run, model, pose)

    def unequal(found: list[Tensor], expected: list[Tensor]) -> float:
        largest = max((float(gradient.abs().max()) for gradient in expected[1:]), default=0.0)
        return max(relative(found[:1], expected[:1]), relative(found[1:], expected[1:], 0.1 * largest))

    def difference() -> float:
        hard = [torch.randn(2, 2, 17, 3), pose[:, :1]]
        return max(unequal(ours(), plain()), *(unequal(run(model, x), run(plain_forward, x)) for x in hard))

    return Pair(plain, ours, difference)


for _backend, _bound, _goal in (("torch", 2.5, 3.7), ("cpp", 5, 7.2)):
    bench(
        build_network,
        f"dbmambapose_step_{_backend}",
        operation=f"DBMambaPose XS, T 243, {_backend}, forward + backward",
        reference=_LOOP,
        sizes={"frames": 243, "dim": 64, "depth": 12, "backend": _backend, "training": True, "once": True},
        small={"frames": 9, "dim": 16, "depth": 2},
        bound=_bound,
        goal=_goal,
        tolerance=1e-4,  # gradients are sums over all tokens in float32
        rounds=3,
        needs=_NEEDS[_backend],
    )
