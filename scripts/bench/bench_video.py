"""Whole videos by networks that lift the centre of a window, and the strided training form of VideoPose3D."""

from __future__ import annotations

import torch
from torch import Tensor

from kinema.inference.slide import pad_edges, slide
from kinema.models.poseformerv2 import PoseFormerV2
from kinema.models.videopose3d import VideoPose3D
from scripts.bench import reference_networks as reference
from scripts.bench.bench_networks import gradients_differ, poseformer, step
from scripts.bench.measure import Pair
from scripts.bench.rows import bench
from scripts.bench.stores import distance, scatter

_PF = {"frames": 81, "dim": 32, "depth": 4, "heads": 8, "length": 128}
_SMALL_PF = {"frames": 9, "dim": 8, "depth": 2, "heads": 2, "length": 13}


@torch.no_grad()
def build_poseformer_video(*, frames: int, dim: int, depth: int, heads: int, length: int) -> Pair:
    """A prediction per frame; the hard cases are videos shorter than a window, down to one frame."""
    model = poseformer(frames=frames, dim=dim, depth=depth, heads=heads)
    video = pad_edges(torch.randn(1, length, 17, 2), model.signature.context)
    hard = [pad_edges(torch.randn(1, short, 17, 2), model.signature.context) for short in (1, 5)]

    @torch.no_grad()
    def plain(x: Tensor) -> Tensor:
        return reference.poseformer_video(model, x)

    def difference() -> float:
        return distance(*((slide(model, x), plain(x)) for x in (video, *hard)))

    return Pair(lambda: plain(video), lambda: slide(model, video), difference)


bench(
    build_poseformer_video,
    "poseformer_video",
    operation="PoseFormer video, 128 frames",
    reference="one window per frame",
    sizes=_PF,
    small=_SMALL_PF,
    bound=1.6,
    goal=1.8,
    tolerance=1e-5,
)


def build_poseformer_spatial(*, frames: int, dim: int, depth: int, heads: int, length: int) -> Pair:
    """The spatial stage once per frame of a padded video, against once per frame of every window."""
    model = poseformer(frames=frames, dim=dim, depth=depth, heads=heads)
    video = pad_edges(torch.randn(1, length, 17, 2), model.signature.context)
    windows = reference.windows_of(video, frames)

    @torch.no_grad()
    def difference() -> float:
        tokens = model.spatial(video)
        return distance((reference.windows_of(tokens, frames), reference.poseformer_spatial(model, windows)))

    return Pair(
        torch.no_grad()(lambda: reference.poseformer_spatial(model, windows)),
        torch.no_grad()(lambda: model.spatial(video)),
        difference,
    )


bench(
    build_poseformer_spatial,
    "poseformer_spatial",
    operation="its spatial stage alone",
    reference="inside windows",
    sizes=_PF,
    small=_SMALL_PF,
    bound=60,
    goal=140,
    tolerance=1e-5,
)


@torch.no_grad()
def build_poseformerv2_video(
    *, frames: int, kept: int, coeffs: int, dim: int, depth: int, heads: int, length: int
) -> Pair:
    """A prediction per frame; the hard cases are videos shorter than a window, down to one frame."""
    torch.manual_seed(0)
    model = PoseFormerV2(
        num_frames=frames, num_joints=17, num_joints_out=17, in_channels=2, kept_frames=kept, kept_coeffs=coeffs,
        dim=dim, depth=depth, num_heads=heads, mlp_ratio=2, qkv_bias=True, dropout=0.0, attn_dropout=0.0, drop_path=0.0,
    ).eval()  # fmt: skip
    scatter(model, 0.01)
    video = pad_edges(torch.randn(1, length, 17, 2), model.signature.context)
    hard = [pad_edges(torch.randn(1, short, 17, 2), model.signature.context) for short in (1, 5)]

    @torch.no_grad()
    def plain(x: Tensor) -> Tensor:
        return reference.poseformerv2_video(model, x)

    def difference() -> float:
        return distance(*((slide(model, x), plain(x)) for x in (video, *hard)))

    return Pair(lambda: plain(video), lambda: slide(model, video), difference)


bench(
    build_poseformerv2_video,
    "poseformerv2_video",
    operation="PoseFormer V2 81/9/9 video, 128 frames",
    reference="one window per frame",
    sizes={"frames": 81, "kept": 9, "coeffs": 9, "dim": 32, "depth": 4, "heads": 8, "length": 128},
    small={"frames": 9, "kept": 3, "coeffs": 4, "dim": 8, "depth": 2, "heads": 2, "length": 13},
    bound=1.1,
    goal=1.25,
    tolerance=1e-5,
)


def videopose3d(*, widths: list[int], channels: int) -> VideoPose3D:
    """A VideoPose3D without dropout, with random values in every parameter and running statistic."""
    torch.manual_seed(0)
    model = VideoPose3D(
        num_joints=17, num_joints_out=17, in_channels=2, filter_widths=widths, channels=channels, dropout=0.0,
        causal=False, dense=False, trajectory=False, root=0,
    )  # fmt: skip
    scatter(model, 0.01)
    return model


def build_videopose3d_video(*, widths: list[int], channels: int, length: int) -> Pair:
    """A prediction per frame; the hard cases are videos shorter than a window, down to one frame."""
    model = videopose3d(widths=widths, channels=channels).eval()
    video = pad_edges(torch.randn(1, length, 17, 2), model.signature.context)
    hard = [pad_edges(torch.randn(1, short, 17, 2), model.signature.context) for short in (1, 5)]

    @torch.no_grad()
    def plain(x: Tensor) -> Tensor:
        windows = reference.windows_of(x, model.signature.frames)
        return reference.videopose3d_strided(model, windows).transpose(0, 1)

    def difference() -> float:
        return distance(*((slide(model, x), plain(x)) for x in (video, *hard)))

    return Pair(lambda: plain(video), lambda: slide(model, video), difference)


bench(
    build_videopose3d_video,
    "videopose3d_video_81",
    operation="VideoPose3D video, R 81, 128 frames",
    reference="strided model on windows",
    sizes={"widths": [3, 3, 3, 3], "channels": 1024, "length": 128},
    small={"widths": [3, 3], "channels": 16, "length": 13},
    bound=4.5,
    goal=6.4,
    tolerance=1e-5,
    rounds=11,
)
bench(
    build_videopose3d_video,
    "videopose3d_video_243",
    operation="VideoPose3D video, R 243, 300 frames",
    reference="strided model on windows",
    sizes={"widths": [3, 3, 3, 3, 3], "channels": 1024, "length": 300},
    small={"widths": [3, 3, 3], "channels": 16, "length": 31},
    bound=7,
    goal=11,
    tolerance=1e-5,
)


def build_videopose3d_step(*, widths: list[int], channels: int, batch: int) -> Pair:
    """Forward and backward pass on windows of one receptive field, in training mode.

    Equality is judged with the statistics of the layers frozen: those of a batch differ by definition, because the
    dilated model also normalises over positions that no output needs.
    """
    model = videopose3d(widths=widths, channels=channels).train()
    pose = torch.randn(batch, model.signature.frames, 17, 2)

    def plain(x: Tensor) -> Tensor:
        return reference.videopose3d_dilated(model, x)

    def difference() -> float:
        model.eval()
        with torch.no_grad():
            outputs = distance(*((model(x), plain(x)) for x in (pose, pose[:1])))
        worst = max(outputs, gradients_differ(model, plain, pose), gradients_differ(model, plain, pose[:1]))
        model.train()
        return worst

    return Pair(lambda: step(model, plain, pose), lambda: step(model, model, pose), difference)


bench(
    build_videopose3d_step,
    "videopose3d_step_81",
    operation="VideoPose3D train step, R 81, batch 32",
    reference="dilated model",
    sizes={"widths": [3, 3, 3, 3], "channels": 1024, "batch": 32},
    small={"widths": [3, 3], "channels": 16, "batch": 4},
    bound=4,
    goal=5.4,
    tolerance=1e-5,
)
bench(
    build_videopose3d_step,
    "videopose3d_step_243",
    operation="VideoPose3D train step, R 243, batch 32",
    reference="dilated model",
    sizes={"widths": [3, 3, 3, 3, 3], "channels": 1024, "batch": 32},
    small={"widths": [3, 3, 3], "channels": 16, "batch": 4},
    bound=7,
    goal=10,
    tolerance=1e-5,
)
