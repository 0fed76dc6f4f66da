"""Whole videos by HMSFT, which shares nothing between windows: in chunks, against one by one and all at once."""

from __future__ import annotations

import torch
from torch import Tensor

from kinema.inference.slide import pad_edges, slide
from kinema.models.hmsft import HMSFT
from scripts.bench.measure import Pair
from scripts.bench.reference_networks import windows_of
from scripts.bench.rows import bench
from scripts.bench.stores import distance, scatter


def hmsft(*, frames: int, dim: int, depth: int) -> HMSFT:
    """An HMSFT of 17 joints in evaluation mode, with random values in every parameter."""
    torch.manual_seed(0)
    model = HMSFT(
        num_frames=frames, num_joints=17, num_joints_out=17, in_channels=2, skeleton="h36m17", dim=dim, depth=depth,
        num_heads=8, mlp_ratio=2, joint_depth=2, part_depth=2, part_ratio=4, kept_frames=27, kept_coeffs=9,
        dropout=0.0, drop_path=0.0,
    )  # fmt: skip
    scatter(model, 0.01)
    return model.eval()


@torch.no_grad()
def build_hmsft_video(*, frames: int, dim: int, depth: int, length: int, together: bool) -> Pair:
    """A prediction per frame; the reference hands the network one window per call, or (`together`) all in one."""
    model = hmsft(frames=frames, dim=dim, depth=depth)
    video = pad_edges(torch.randn(1, length, 17, 2), model.signature.context)
    hard = [pad_edges(torch.randn(1, short, 17, 2), model.signature.context) for short in (1, 5)]

    @torch.no_grad()
    def plain(x: Tensor) -> Tensor:
        windows = windows_of(x, frames)
        if together:
            return model(windows).transpose(0, 1)
        return torch.cat([model(window) for window in windows.split(1)], dim=1)

    def difference() -> float:
        return distance(*((slide(model, x), plain(x)) for x in (video, *hard)))

    return Pair(lambda: plain(video), lambda: slide(model, video), difference)


_SIZES = {"frames": 81, "dim": 32, "depth": 4}
_SMALL = {"frames": 9, "dim": 8, "depth": 1, "length": 13}

bench(
    build_hmsft_video,
    "hmsft_video",
    operation="HMSFT video, 64 frames, in chunks",
    reference="one window per call",
    sizes={**_SIZES, "length": 64, "together": False},
    small=_SMALL,
    bound=1.2,
    goal=1.4,
    tolerance=1e-5,
    rounds=3,
)
bench(
    build_hmsft_video,
    "hmsft_video_memory",
    operation="HMSFT video, 512 frames, peak memory",
    reference="all windows in one call",
    sizes={**_SIZES, "length": 512, "together": True},
    small=_SMALL,
    bound=0.4,
    goal=0.27,
    tolerance=1e-5,
    kind="memory",
)
