"""PoseFormer V1: a window of 2D poses to the 3D pose of its centre frame."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kinema.core.spec import Signature
from kinema.errors import ConfigError
from kinema.models.inputs import expect_pose
from kinema.models.layers.block import NORM_EPS, TransformerBlock
from kinema.models.layers.drop_path import drop_path_rates
from kinema.models.layers.windows import over_windows, sliding
from kinema.models.registry import Shapes, depth_of, ratio_of, register


@register("poseformer")
class PoseFormer(nn.Module):
    """Lift the centre frame of a window: a transformer over the joints of each frame, then one over the frames.

    Input (B, F, J, C), exactly F = `num_frames` frames; output (B, 1, J_out, 3), metres relative to the root (the root
    itself is predicted as well and not forced to zero).

    Args:
        num_frames: length of the window, odd.
        num_joints: joints in.
        in_channels: channels of a 2D joint.
        dim: channels of a joint in the spatial stage; the temporal stage works on num_joints * dim.
        depth: blocks of each stage.
        num_heads: attention heads of both stages.
        mlp_ratio: width of the MLPs over their input.
        qkv_bias: whether the qkv products have a bias.
        dropout: rate after the embeddings, attention projections and MLP layers.
        attn_dropout: rate on the attention weights.
        drop_path: stochastic depth of the last block of each stage, rising linearly from 0. A sample is one frame in
            the spatial stage and one window in the temporal stage. PoseFormer evaluates with 0, as `eval()` does.
        num_joints_out: joints out; None = as many as in, the only form that was published.

    Initialisation: PyTorch's default for every layer, zeros for both position embeddings.

    Source: Zheng et al. 2021, common/model_poseformer.py, whose parameter names are kept.
    """

    unknowable: ClassVar[dict[str, Any]] = {"num_heads": 8, "dropout": 0.0, "attn_dropout": 0.0, "drop_path": 0.0}

    def __init__(
        self,
        *,
        num_frames: int,
        num_joints: int,
        in_channels: int,
        dim: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
        qkv_bias: bool,
        dropout: float,
        attn_dropout: float,
        drop_path: float,
        num_joints_out: int | None = None,  # checkpoints written before it existed do not state it
    ) -> None:
        super().__init__()
        joints_out = num_joints if num_joints_out is None else num_joints_out
        self.arguments: dict[str, Any] = {
            "num_frames": num_frames,
            "num_joints": num_joints,
            "num_joints_out": joints_out,
            "in_channels": in_channels,
            "dim": dim,
            "depth": depth,
            "num_heads": num_heads,
            "mlp_ratio": mlp_ratio,
            "qkv_bias": qkv_bias,
            "dropout": dropout,
            "attn_dropout": attn_dropout,
            "drop_path": drop_path,
        }
        if num_frames % 2 == 0:
            raise ConfigError(f"A window of {num_frames} frames has no centre. Use model.num_frames={num_frames + 1}.")
        self.signature = Signature(
            output="pose3d",
            in_channels=in_channels,
            joints=num_joints,
            joints_out=joints_out,
            frames=num_frames,
            frames_rule="exact",
            context=(num_frames // 2, num_frames // 2),
        )
        wide = num_joints * dim
        self.Spatial_patch_to_embedding = nn.Linear(in_channels, dim)
        self.Spatial_pos_embed = nn.Parameter(torch.zeros(1, num_joints, dim))
        self.Temporal_pos_embed = nn.Parameter(torch.zeros(1, num_frames, wide))
        self.dropout = nn.Dropout(dropout)
        stages = []
        for width, sample_axes in ((dim, 2), (wide, 1)):
            blocks = [
                TransformerBlock(
                    width,
                    num_heads,
                    int(width * mlp_ratio),
                    qkv_bias=qkv_bias,
                    dropout=dropout,
                    attn_dropout=attn_dropout,
                    drop_path=rate,
                    sample_axes=sample_axes,
                )
                for rate in drop_path_rates(drop_path, depth)
            ]
            stages.append(nn.ModuleList(blocks))
        self.Spatial_blocks, self.blocks = stages
        self.Spatial_norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.Temporal_norm = nn.LayerNorm(wide, eps=NORM_EPS)
        self.weighted_mean = nn.Conv1d(num_frames, 1, kernel_size=1)
        # published behaviour: the norm of the head keeps PyTorch's epsilon of 1e-5.
        self.head = nn.Sequential(nn.LayerNorm(wide), nn.Linear(wide, 3 * joints_out))

    def forward(self, pose: Tensor) -> Tensor:
        """Lift the centre frame of each window.

        Args:
            pose: (B, F, J, C).

        Returns:
            (B, 1, J_out, 3).
        """
        expect_pose(pose, self.signature)
        return self.temporal(self.spatial(pose))

    def spatial(self, pose: Tensor) -> Tensor:
        """Turn every frame into one token, whatever window it is in: (B, T, J, C) to (B, T, J * dim)."""
        x = self.dropout(self.Spatial_patch_to_embedding(pose) + self.Spatial_pos_embed)
        for block in self.Spatial_blocks:
            x = block(x)
        return self.Spatial_norm(x).flatten(2)

    def temporal(self, tokens: Tensor) -> Tensor:
        """Lift windows of frame tokens: (B, F, J * dim) to (B, 1, J_out, 3)."""
        x = self.dropout(tokens + self.Temporal_pos_embed)
        for block in self.blocks:
            x = block(x)
        x = self.weighted_mean(self.Temporal_norm(x))  # frames are the channels of this convolution: (B, 1, J * dim)
        return self.head(x).unflatten(2, (-1, 3))

    def slide(self, pose: Tensor, chunk: int | None = None) -> Tensor:
        """Lift every frame of a stretch that has a full window, with one spatial stage for all windows.

        The spatial stage sees a frame and not its place in the window, so it runs once per frame; the windows are
        gathered from its tokens. Nothing else can be shared: the time embedding is added before the first norm.

        Args:
            pose: (B, L + F - 1, J, C).
            chunk: windows at a time in the temporal stage, see `over_windows`.

        Returns:
            (B, L, J_out, 3).
        """
        tokens = self.spatial(pose)
        return over_windows(self.temporal, sliding(tokens, self.signature.frames), chunk=chunk)

    @classmethod
    def recognise(cls, shapes: Shapes) -> dict[str, Any] | None:
        """Read constructor arguments from the names and shapes of a state dict; None for another family."""
        first, wide_first = "Spatial_blocks.0.mlp.fc1.weight", "blocks.0.mlp.fc1.weight"
        needed = ("Spatial_pos_embed", "Temporal_pos_embed", "Spatial_patch_to_embedding.weight", first, wide_first)
        # PoseFormerV2 has the same names and a frequency branch.
        if any(name not in shapes for name in needed) or "Freq_embedding.weight" in shapes:
            return None
        if len(shapes["Temporal_pos_embed"]) != 3 or len(shapes["Spatial_pos_embed"]) != 3:
            return None
        _, num_frames, wide = shapes["Temporal_pos_embed"]
        joints = shapes["Spatial_pos_embed"][1]
        return {
            "num_frames": num_frames,
            "num_joints": joints,
            "num_joints_out": shapes["head.1.weight"][0] // 3 if "head.1.weight" in shapes else joints,
            "in_channels": shapes["Spatial_patch_to_embedding.weight"][1],
            "dim": shapes["Spatial_pos_embed"][2],
            "depth": depth_of(shapes, "blocks"),
            # The wide stage tells the ratio more finely than the narrow one.
            "mlp_ratio": ratio_of(shapes[wide_first][0], wide),
            "qkv_bias": "blocks.0.attn.qkv.bias" in shapes,
        }
