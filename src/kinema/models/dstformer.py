"""DSTformer, the dual-stream spatio-temporal transformer of MotionBERT."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kinema.core.spec import Signature
from kinema.models.inputs import expect_pose
from kinema.models.layers.attention import Attention
from kinema.models.layers.block import NORM_EPS
from kinema.models.layers.drop_path import DropPath, drop_path_rates
from kinema.models.layers.mlp import MLP
from kinema.models.layers.representation import representation
from kinema.models.layers.stream_mix import StreamMix
from kinema.models.registry import Shapes, depth_of, ratio_of, register


@register("dstformer")
class DSTformer(nn.Module):
    """Lift a clip of 2D poses to a clip of 3D poses; its representation serves other heads.

    Input (B, T, J, C) with C = x, y, confidence; T up to `num_frames`. Output (B, T, J, 3) in the space of the
    training targets (normalised image units for the published weights). Two streams of blocks, one spatial first and
    one temporal first, start from the same tokens at every depth and are mixed token by token.

    Args:
        num_frames: longest clip, the length of the time embedding.
        num_joints: joints in and out.
        in_channels: channels of a 2D joint.
        dim: channels of a token.
        dim_rep: channels of the representation that `features` returns.
        depth: pairs of blocks.
        num_heads: attention heads.
        mlp_ratio: width of the MLPs over `dim`.
        qkv_bias: whether the qkv product has a bias.
        att_fuse: mix the streams by two learned weights per token; otherwise take their mean.
        dropout: rate after the embedding, attention projections and MLP layers.
        attn_dropout: rate on the attention weights.
        drop_path: stochastic depth of the last pair of blocks, rising linearly from 0; a sample is one frame.

    Initialisation: linear weights and embeddings normal with standard deviation 0.02, biases 0, norms 1 and 0; the
    mixing layers weight 0 and bias 0.5, so that training starts from the mean of the streams.

    Source: Zhu et al. 2023, lib/model/DSTformer.py, whose parameter names are kept.
    """

    unknowable: ClassVar[dict[str, Any]] = {"num_heads": 8, "dropout": 0.0, "attn_dropout": 0.0, "drop_path": 0.0}

    def __init__(
        self,
        *,
        num_frames: int,
        num_joints: int,
        in_channels: int,
        dim: int,
        dim_rep: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
        qkv_bias: bool,
        att_fuse: bool,
        dropout: float,
        attn_dropout: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.arguments: dict[str, Any] = {
            "num_frames": num_frames,
            "num_joints": num_joints,
            "in_channels": in_channels,
            "dim": dim,
            "dim_rep": dim_rep,
            "depth": depth,
            "num_heads": num_heads,
            "mlp_ratio": mlp_ratio,
            "qkv_bias": qkv_bias,
            "att_fuse": att_fuse,
            "dropout": dropout,
            "attn_dropout": attn_dropout,
            "drop_path": drop_path,
        }
        self.signature = Signature(
            output="pose3d",
            in_channels=in_channels,
            joints=num_joints,
            joints_out=num_joints,
            frames=num_frames,
            frames_rule="max",
            feature_dim=dim_rep,
        )
        self.temp_embed = nn.Parameter(torch.zeros(1, num_frames, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, num_joints, dim))
        self.joints_embed = nn.Linear(in_channels, dim)
        self.dropout = nn.Dropout(dropout)
        rates = drop_path_rates(drop_path, depth)
        block = partial(
            DSTBlock,
            dim,
            num_heads,
            int(dim * mlp_ratio),
            qkv_bias=qkv_bias,
            dropout=dropout,
            attn_dropout=attn_dropout,
        )
        self.blocks_st = nn.ModuleList(block(temporal_first=False, drop_path=rate) for rate in rates)
        self.blocks_ts = nn.ModuleList(block(temporal_first=True, drop_path=rate) for rate in rates)
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.pre_logits = representation(dim, dim_rep)
        self.head = nn.Linear(dim_rep, 3)
        self.ts_attn = nn.ModuleList(StreamMix(dim) for _ in range(depth)) if att_fuse else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw fresh weights as published."""
        for embedding in (self.temp_embed, self.pos_embed):
            nn.init.trunc_normal_(embedding, std=0.02)
        for module in self.modules():
            if isinstance(module, StreamMix):
                nn.init.zeros_(module.weight)
                nn.init.constant_(module.bias, 0.5)
            elif isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, pose: Tensor) -> Tensor:
        """Lift a clip.

        Args:
            pose: (B, T, J, C).

        Returns:
            (B, T, J, 3).
        """
        return self.head(self.features(pose))

    def features(self, pose: Tensor) -> Tensor:
        """Return the representation before the last layer, (B, T, J, dim_rep)."""
        expect_pose(pose, self.signature)
        x = self.joints_embed(pose) + self.pos_embed.unsqueeze(1) + self.temp_embed[:, : pose.shape[1]]
        x = self.dropout(x)  # (B, T, J, dim)
        for depth, (block_st, block_ts) in enumerate(zip(self.blocks_st, self.blocks_ts, strict=True)):
            st, ts = block_st(x), block_ts(x)
            x = (st + ts) * 0.5 if self.ts_attn is None else self.ts_attn[depth](st, ts)
        return self.pre_logits(self.norm(x))

    @classmethod
    def recognise(cls, shapes: Shapes) -> dict[str, Any] | None:
        """Read constructor arguments from the names and shapes of a state dict; None for another family."""
        needed = ("temp_embed", "pos_embed", "joints_embed.weight", "pre_logits.fc.weight", "head.weight")
        first = "blocks_st.0.mlp_s.fc1.weight"
        if any(name not in shapes for name in (*needed, first)) or len(shapes["temp_embed"]) != 4:
            return None
        _, num_frames, _, dim = shapes["temp_embed"]
        return {
            "num_frames": num_frames,
            "num_joints": shapes["pos_embed"][1],
            "in_channels": shapes["joints_embed.weight"][1],
            "dim": dim,
            "dim_rep": shapes["pre_logits.fc.weight"][0],
            "depth": depth_of(shapes, "blocks_st"),
            "mlp_ratio": ratio_of(shapes[first][0], dim),
            "qkv_bias": "blocks_st.0.attn_s.qkv.bias" in shapes,
            "att_fuse": depth_of(shapes, "ts_attn") > 0,
        }


class DSTBlock(nn.Module):
    """Spatial attention and MLP, temporal attention and MLP, or the other way round; all pre-norm and residual.

    The stream stays (B, T, J, dim). Spatial attention runs over the joints of a frame, temporal attention over the
    frames of a joint.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        hidden: int,
        *,
        temporal_first: bool,
        qkv_bias: bool,
        dropout: float,
        attn_dropout: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.temporal_first = temporal_first
        norm = partial(nn.LayerNorm, dim, eps=NORM_EPS)
        attention = partial(Attention, dim, num_heads, qkv_bias=qkv_bias, dropout=dropout, attn_dropout=attn_dropout)
        self.norm1_s, self.norm1_t = norm(), norm()
        self.attn_s, self.attn_t = attention(), attention()
        self.norm2_s, self.norm2_t = norm(), norm()
        self.mlp_s, self.mlp_t = MLP(dim, hidden, dropout=dropout), MLP(dim, hidden, dropout=dropout)
        # published behaviour: every frame is a sample of its own, in the temporal branches too.
        self.drop_path = DropPath(drop_path, sample_axes=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.spatial(self.temporal(x)) if self.temporal_first else self.temporal(self.spatial(x))

    def spatial(self, x: Tensor) -> Tensor:
        """Exchange between the joints of a frame, (B, T, J, dim) to the same."""
        x = x + self.drop_path(self.attn_s(self.norm1_s(x)))
        return x + self.drop_path(self.mlp_s(self.norm2_s(x)))

    def temporal(self, x: Tensor) -> Tensor:
        """Exchange between the frames of a joint, (B, T, J, dim) to the same."""
        x = x + self.drop_path(self.attn_t(self.norm1_t(x).transpose(1, 2)).transpose(1, 2))
        return x + self.drop_path(self.mlp_t(self.norm2_t(x)))
