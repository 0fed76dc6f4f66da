"""The transformers: one forward pass, one training step, and the memory of a training step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from kinema.models.dstformer import DSTformer
from kinema.models.poseformer import PoseFormer
from scripts.bench import reference_networks as reference
from scripts.bench.measure import Pair
from scripts.bench.rows import bench
from scripts.bench.stores import distance, scatter

Forward = Callable[[Tensor], Tensor]
_EAGER = "softmax attention with permutes"
_SMALL_DST = {"frames": 7, "dim": 16, "depth": 2, "heads": 2}
_LITE = {"dim": 256, "depth": 5, "heads": 8, "mlp_ratio": 4, "batch": 1}


def dstformer(*, frames: int, dim: int, depth: int, heads: int, mlp_ratio: float) -> DSTformer:
    """A DSTformer for clips of 243 frames or less, with random values in every parameter."""
    torch.manual_seed(0)
    model = DSTformer(
        num_frames=max(frames, 243), num_joints=17, in_channels=3, dim=dim, dim_rep=2 * dim, depth=depth,
        num_heads=heads, mlp_ratio=mlp_ratio, qkv_bias=True, att_fuse=True, dropout=0.0, attn_dropout=0.0,
        drop_path=0.0,
    )  # fmt: skip
    scatter(model)
    return model


def poseformer(*, frames: int, dim: int, depth: int, heads: int) -> PoseFormer:
    """A PoseFormer in evaluation mode, with random values in every parameter."""
    torch.manual_seed(0)
    model = PoseFormer(
        num_frames=frames, num_joints=17, in_channels=2, dim=dim, depth=depth, num_heads=heads, mlp_ratio=2,
        qkv_bias=True, dropout=0.0, attn_dropout=0.0, drop_path=0.0,
    )  # fmt: skip
    scatter(model)
    return model.eval()


def step(model: nn.Module, forward: Forward, pose: Tensor) -> dict[str, Tensor]:
    """One forward and backward pass; the gradients by name."""
    model.zero_grad(set_to_none=True)
    forward(pose).square().mean().backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def gradients_differ(model: nn.Module, plain: Forward, pose: Tensor) -> float:
    """Largest difference of the gradients of both forms, in units of the largest entry of each.

    Some gradients are zero by construction and hold rounding only (what shifts all channels ahead of a LayerNorm): a
    tenth of the largest gradient of the network is the smallest unit.
    """
    expected = {name: gradient.clone() for name, gradient in step(model, plain, pose).items()}
    found = step(model, model, pose)
    assert found.keys() == expected.keys()
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    units = {name: max(float(gradient.abs().max()), 0.1 * largest) for name, gradient in expected.items()}
    return distance(*((found[name] / units[name], expected[name] / units[name]) for name in expected))


def forward_pair(model: nn.Module, plain: Forward, pose: Tensor, hard: list[Tensor]) -> Pair:
    """Forward passes without gradients; `hard` are further inputs on which both must agree."""

    @torch.no_grad()
    def difference() -> float:
        return distance(*((model(x), plain(x)) for x in (pose, *hard)))

    return Pair(torch.no_grad()(lambda: plain(pose)), torch.no_grad()(lambda: model(pose)), difference)


def step_pair(model: nn.Module, plain: Forward, pose: Tensor, hard: list[Tensor]) -> Pair:
    """Forward and backward passes."""

    def difference() -> float:
        return max(
            forward_pair(model, plain, pose, hard).difference(),
            *(gradients_differ(model, plain, x) for x in (pose, *hard)),
        )

    return Pair(lambda: step(model, plain, pose), lambda: step(model, model, pose), difference)


def build_dstformer(
    *, frames: int, dim: int, depth: int, heads: int, mlp_ratio: float, batch: int, training: bool
) -> Pair:
    """DSTformer on one clip; the hard cases are two clips, a clip of one frame, and a clip of equal frames."""
    model = dstformer(frames=frames, dim=dim, depth=depth, heads=heads, mlp_ratio=mlp_ratio)
    pose = torch.randn(batch, frames, 17, 3)
    still = pose[:, :1].expand(-1, min(frames, 9), -1, -1)
    hard = [torch.randn(2, min(frames, 5), 17, 3), pose[:, :1], still]

    def plain(x: Tensor) -> Tensor:
        return reference.dstformer(model, x)

    return step_pair(model, plain, pose, hard) if training else forward_pair(model, plain, pose, hard)


bench(
    build_dstformer,
    "dstformer_forward",
    operation="DSTformer Lite, T 81, forward",
    reference=_EAGER,
    sizes={**_LITE, "frames": 81, "training": False},
    small=_SMALL_DST,
    bound=0.95,
    goal=1.05,
    tolerance=1e-5,
)
bench(
    build_dstformer,
    "dstformer_step",
    operation="DSTformer Lite, T 81, forward + backward",
    reference=_EAGER,
    sizes={**_LITE, "frames": 81, "training": True},
    small=_SMALL_DST,
    bound=0.95,
    goal=1.05,
    tolerance=1e-5,
)
bench(
    build_dstformer,
    "dstformer_memory",
    operation="DSTformer Lite, T 243: peak memory of a training step",
    reference=_EAGER,
    sizes={**_LITE, "frames": 243, "training": True},
    small=_SMALL_DST,
    bound=0.85,
    goal=0.75,
    tolerance=1e-5,
    kind="memory",
)


_PF = {"frames": 81, "dim": 32, "depth": 4, "heads": 8}
_SMALL_PF = {"frames": 9, "dim": 8, "depth": 2, "heads": 2}


def build_poseformer(*, frames: int, dim: int, depth: int, heads: int, batch: int, training: bool) -> Pair:
    """PoseFormer on windows; the hard cases are one window, and a window of equal frames."""
    model = poseformer(frames=frames, dim=dim, depth=depth, heads=heads)
    pose = torch.randn(batch, frames, 17, 2)
    hard = [pose[:1], pose[:1, :1].expand(-1, frames, -1, -1)]

    def plain(x: Tensor) -> Tensor:
        return reference.poseformer(model, x)

    return step_pair(model, plain, pose, hard) if training else forward_pair(model, plain, pose, hard)


bench(
    build_poseformer,
    "poseformer_8",
    operation="PoseFormer 81, batch 8, forward",
    reference=_EAGER,
    sizes={**_PF, "batch": 8, "training": False},
    small={**_SMALL_PF, "batch": 3},
    bound=0.95,
    goal=1.05,
    tolerance=1e-5,
    rounds=9,
)
bench(
    build_poseformer,
    "poseformer_8_step",
    operation="PoseFormer 81, batch 8, forward + backward",
    reference=_EAGER,
    sizes={**_PF, "batch": 8, "training": True},
    small={**_SMALL_PF, "batch": 3},
    bound=0.95,
    goal=1.05,
    tolerance=1e-4,  # gradients too, which are sums over all tokens in float32
    rounds=7,
)
bench(
    build_poseformer,
    "poseformer_64",
    operation="PoseFormer 81, 64 windows, forward",
    reference=_EAGER,
    sizes={**_PF, "batch": 64, "training": False},
    small={**_SMALL_PF, "batch": 5},
    bound=1.1,
    goal=1.25,
    tolerance=1e-5,
)
