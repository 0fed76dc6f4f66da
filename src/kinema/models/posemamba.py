"""PoseMamba, the bidirectional global-local spatio-temporal state space model."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kinema.core.spec import Signature
from kinema.models.inputs import expect_pose
from kinema.models.layers.block import NORM_EPS
from kinema.models.layers.drop_path import DropPath, drop_path_rates
from kinema.models.layers.mlp import MLP
from kinema.models.layers.ss2d import BiSTSSM, expect_limbs
from kinema.models.registry import Shapes, depth_of, ratio_of, register


@register("posemamba")
class PoseMamba(nn.Module):
    """Lift a clip of 2D poses to a clip of 3D poses.

    Input (B, T, J, C) with C = x, y (no confidence); T up to `num_frames`. Output (B, T, J, 3), relative to the root
    for the published weights. Pairs of blocks, named spatial and temporal, each scan the whole plane of frames and
    joints in four directions.

    Args:
        num_frames: longest clip, the length of the time embedding.
        num_joints: 17, in the order of H36M: the limb table fits no other skeleton.
        in_channels: channels of a 2D joint.
        dim: channels of a token.
        depth: pairs of blocks.
        d_state: numbers that each inner channel of a scan remembers.
        d_conv: side of the convolution over frames and joints.
        expand: inner channels of a mixer over `dim`.
        mlp_ratio: width of the MLPs over `dim`.
        drop_path: stochastic depth of the last pair of blocks, rising linearly from 0; a sample is one clip.
        scan_backend: one of `kinema.models.layers.selective_scan.BACKENDS`.

    Initialisation: PyTorch's, embeddings 0, the scans as Mamba.

    Source: Huang et al. 2025, nankingjing/PoseMamba, whose parameter names are kept. Published behaviour: both norms
    are shared by all depths.
    """

    unknowable: ClassVar[dict[str, Any]] = {"drop_path": 0.2, "scan_backend": "auto"}

    def __init__(
        self,
        *,
        num_frames: int,
        num_joints: int,
        in_channels: int,
        dim: int,
        depth: int,
        d_state: int,
        d_conv: int,
        expand: float,
        mlp_ratio: float,
        drop_path: float,
        scan_backend: str,
    ) -> None:
        super().__init__()
        self.arguments: dict[str, Any] = {
            "num_frames": num_frames,
            "num_joints": num_joints,
            "in_channels": in_channels,
            "dim": dim,
            "depth": depth,
            "d_state": d_state,
            "d_conv": d_conv,
            "expand": expand,
            "mlp_ratio": mlp_ratio,
            "drop_path": drop_path,
            "scan_backend": scan_backend,
        }
        expect_limbs(num_joints)
        self.signature = Signature(
            output="pose3d",
            in_channels=in_channels,
            joints=num_joints,
            joints_out=num_joints,
            frames=num_frames,
            frames_rule="max",
            feature_dim=dim,
        )
        self.Spatial_patch_to_embedding = nn.Linear(in_channels, dim)
        self.Spatial_pos_embed = nn.Parameter(torch.zeros(1, num_joints, dim))
        self.Temporal_pos_embed = nn.Parameter(torch.zeros(1, num_frames, dim))
        rates = drop_path_rates(drop_path, depth)
        op = partial(BiSTSSM, dim, d_state=d_state, d_conv=d_conv, expand=expand, scan_backend=scan_backend)
        hidden = int(dim * mlp_ratio)
        self.STEblocks = nn.ModuleList(PoseMambaBlock(dim, op(), hidden, drop_path=rate) for rate in rates)
        self.TTEblocks = nn.ModuleList(PoseMambaBlock(dim, op(), hidden, drop_path=rate) for rate in rates)
        self.Spatial_norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.Temporal_norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 3))

    def forward(self, pose: Tensor) -> Tensor:
        """Lift a clip.

        Args:
            pose: (B, T, J, C).

        Returns:
            (B, T, J, 3).
        """
        return self.head(self.features(pose))

    def features(self, pose: Tensor) -> Tensor:
        """Return the tokens before the head, (B, T, J, dim)."""
        expect_pose(pose, self.signature)
        x = self.Spatial_patch_to_embedding(pose) + self.Spatial_pos_embed
        for depth, (spatial, temporal) in enumerate(zip(self.STEblocks, self.TTEblocks, strict=True)):
            x = self.Spatial_norm(spatial(x))
            if depth == 0:
                x = x + self.Temporal_pos_embed[:, : pose.shape[1], None]
            x = self.Temporal_norm(temporal(x))
        return x

    @classmethod
    def recognise(cls, shapes: Shapes) -> dict[str, Any] | None:
        """Read constructor arguments from the names and shapes of a state dict; None for another family."""
        embeddings = ("Spatial_pos_embed", "Temporal_pos_embed", "Spatial_patch_to_embedding.weight", "head.1.weight")
        first = ("STEblocks.0.op.A_logs", "STEblocks.0.op.conv2d.weight", "STEblocks.0.mlp.fc1.weight")
        if any(name not in shapes for name in (*embeddings, *first)):
            return None
        dim, in_channels = shapes["Spatial_patch_to_embedding.weight"]
        return {
            "num_frames": shapes["Temporal_pos_embed"][1],
            "num_joints": shapes["Spatial_pos_embed"][1],
            "in_channels": in_channels,
            "dim": dim,
            "depth": depth_of(shapes, "STEblocks"),
            "d_state": shapes[first[0]][1],
            "d_conv": shapes[first[1]][2],
            "expand": ratio_of(shapes[first[1]][0], dim),
            "mlp_ratio": ratio_of(shapes[first[2]][0], dim),
        }


class PoseMambaBlock(nn.Module):
    """x = x + op(norm(x)); x = x + mlp(norm2(x)) on clips of tokens (B, T, J, dim)."""

    def __init__(self, dim: int, op: nn.Module, hidden: int, *, drop_path: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.op = op
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = MLP(dim, hidden)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.op(self.norm(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))
