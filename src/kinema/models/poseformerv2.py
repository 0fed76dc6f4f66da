"""PoseFormer V2: a window's lowest frequencies and its few central frames to the 3D pose of its centre frame."""

from __future__ import annotations

import re
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kinema.core.dct import dct_matrix, inverse_dct_matrix
from kinema.core.spec import Signature
from kinema.errors import ConfigError
from kinema.models.inputs import expect_pose
from kinema.models.layers.attention import Attention
from kinema.models.layers.block import NORM_EPS, TransformerBlock
from kinema.models.layers.dct import ConstantProduct
from kinema.models.layers.drop_path import DropPath, drop_path_rates
from kinema.models.layers.mlp import MLP
from kinema.models.layers.windows import over_windows, sliding
from kinema.models.registry import Shapes, depth_of, ratio_of, register


class MixedBlock(nn.Module):
    """Attention over all tokens, then an MLP for the first half of them and one in the frequency domain for the rest.

    The second MLP works on the DCT of its tokens (along them, unnormalised) and its result goes through the inverse.

    Parameter names: `norm1`, `attn.qkv`, `attn.proj`, `norm2`, `mlp1.fc1`, `mlp1.fc2`, `norm3`, `mlp2.fc1`, `mlp2.fc2`.

    Args:
        dim: channels of a token.
        num_heads: heads of the attention.
        hidden: width of both MLPs.
        tokens: number of tokens.
        qkv_bias: whether the qkv product has a bias.
        dropout: rate after the projection of the attention and after both layers of the MLPs.
        attn_dropout: rate on the attention weights.
        drop_path: rate of stochastic depth; the three branches of a sample are dropped independently.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        hidden: int,
        tokens: int,
        *,
        qkv_bias: bool,
        dropout: float,
        attn_dropout: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        # published behaviour: the split is at half of all tokens, wherever frequencies end and frames begin.
        self.split = tokens // 2
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = Attention(dim, num_heads, qkv_bias=qkv_bias, dropout=dropout, attn_dropout=attn_dropout)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp1 = MLP(dim, hidden, dropout=dropout)
        self.norm3 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp2 = MLP(dim, hidden, dropout=dropout)
        self.drop_path = DropPath(drop_path)
        self.dct = ConstantProduct(partial(dct_matrix, tokens - self.split))
        self.inverse_dct = ConstantProduct(partial(inverse_dct_matrix, tokens - self.split))

    def forward(self, x: Tensor) -> Tensor:
        """Mix (B, T, dim)."""
        x = x + self.drop_path(self.attn(self.norm1(x)))
        first, second = x[:, : self.split], x[:, self.split :]
        first = first + self.drop_path(self.mlp1(self.norm2(first)))
        second = second + self.drop_path(self.inverse_dct(self.mlp2(self.dct(self.norm3(second)))))
        return torch.cat([first, second], dim=1)


@register("poseformerv2")
class PoseFormerV2(nn.Module):
    """Lift the centre frame of a window from the lowest DCT coefficients of all its frames and from its middle.

    Input (B, F, J, C), exactly F = `num_frames` frames; output (B, 1, J_out, 3), metres relative to the root (the root
    itself is predicted as well and not forced to zero). Tokens are first `kept_coeffs` n coefficients, then
    `kept_frames` f frames.

    Args:
        num_frames: length of the window, odd. Nothing in the weights depends on it.
        num_joints: joints in.
        num_joints_out: joints out; published only as many as in.
        in_channels: channels of a 2D joint.
        kept_frames: central frames that become tokens, odd.
        kept_coeffs: lowest coefficients of the window's DCT that become tokens.
        dim: channels of a joint in the spatial stage; the mixed stage works on num_joints * dim.
        depth: blocks of each stage.
        num_heads: attention heads of both stages.
        mlp_ratio: width of the MLPs over their input.
        qkv_bias: whether the qkv products have a bias.
        dropout: rate after the embeddings, attention projections and MLP layers.
        attn_dropout: rate on the attention weights.
        drop_path: stochastic depth of the last block of each stage, rising linearly from 0. A sample is one frame in
            the spatial stage and one window in the mixed stage. PoseFormer V2 evaluates with 0, as `eval()` does.

    Initialisation: PyTorch's default for every layer, zeros for the position embeddings.

    Source: Zhao et al. 2023, common/model_poseformer.py, whose parameter names are kept.
    """

    # No tensor tells the window: the same weights take any number of frames, and only one of them is right.
    unknowable: ClassVar[dict[str, Any]] = {
        "num_frames": ..., "num_heads": 8, "dropout": 0.0, "attn_dropout": 0.0, "drop_path": 0.0,
    }  # fmt: skip

    def __init__(
        self,
        *,
        num_frames: int,
        num_joints: int,
        num_joints_out: int,
        in_channels: int,
        kept_frames: int,
        kept_coeffs: int,
        dim: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
        qkv_bias: bool,
        dropout: float,
        attn_dropout: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.arguments: dict[str, Any] = {
            "num_frames": num_frames,
            "num_joints": num_joints,
            "num_joints_out": num_joints_out,
            "in_channels": in_channels,
            "kept_frames": kept_frames,
            "kept_coeffs": kept_coeffs,
            "dim": dim,
            "depth": depth,
            "num_heads": num_heads,
            "mlp_ratio": mlp_ratio,
            "qkv_bias": qkv_bias,
            "dropout": dropout,
            "attn_dropout": attn_dropout,
            "drop_path": drop_path,
        }
        _refuse_sizes(num_frames, kept_frames, kept_coeffs)
        self.signature = Signature(
            output="pose3d",
            in_channels=in_channels,
            joints=num_joints,
            joints_out=num_joints_out,
            frames=num_frames,
            frames_rule="exact",
            context=(num_frames // 2, num_frames // 2),
        )
        self.kept_frames = kept_frames
        wide = num_joints * dim
        options: dict[str, Any] = {"qkv_bias": qkv_bias, "dropout": dropout, "attn_dropout": attn_dropout}
        rates = drop_path_rates(drop_path, depth)
        self.Joint_embedding = nn.Linear(in_channels, dim)
        self.Freq_embedding = nn.Linear(in_channels * num_joints, wide)
        self.Spatial_pos_embed = nn.Parameter(torch.zeros(1, num_joints, dim))
        self.Temporal_pos_embed = nn.Parameter(torch.zeros(1, kept_frames, wide))
        self.Temporal_pos_embed_ = nn.Parameter(torch.zeros(1, kept_coeffs, wide))
        self.dropout = nn.Dropout(dropout)
        self.dct = ConstantProduct(partial(dct_matrix, num_frames, kept_coeffs))
        self.Spatial_blocks = nn.ModuleList(
            TransformerBlock(dim, num_heads, int(dim * mlp_ratio), drop_path=rate, sample_axes=2, **options)
            for rate in rates
        )
        self.blocks = nn.ModuleList(
            MixedBlock(wide, num_heads, int(wide * mlp_ratio), kept_coeffs + kept_frames, drop_path=rate, **options)
            for rate in rates
        )
        self.Spatial_norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.Temporal_norm = nn.LayerNorm(wide, eps=NORM_EPS)
        self.weighted_mean = nn.Conv1d(kept_coeffs, 1, kernel_size=1)
        self.weighted_mean_ = nn.Conv1d(kept_frames, 1, kernel_size=1)
        # published behaviour: the norm of the head keeps PyTorch's epsilon of 1e-5.
        self.head = nn.Sequential(nn.LayerNorm(2 * wide), nn.Linear(2 * wide, 3 * num_joints_out))

    def forward(self, pose: Tensor) -> Tensor:
        """Lift the centre frame of each window.

        Args:
            pose: (B, F, J, C).

        Returns:
            (B, 1, J_out, 3).
        """
        expect_pose(pose, self.signature)
        return self.mixed(self.dct(pose.flatten(2)), self.spatial(self._middle(pose)))

    def spatial(self, pose: Tensor) -> Tensor:
        """Turn every frame into one token, whatever window it is in: (B, T, J, C) to (B, T, J * dim)."""
        x = self.dropout(self.Joint_embedding(pose) + self.Spatial_pos_embed)
        for block in self.Spatial_blocks:
            x = block(x)
        return self.Spatial_norm(x).flatten(2)

    def mixed(self, coefficients: Tensor, frames: Tensor) -> Tensor:
        """Lift windows of coefficients (B, n, J * C) and frame tokens (B, f, J * dim): (B, 1, J_out, 3)."""
        low = self.dropout(self.Freq_embedding(coefficients) + self.Temporal_pos_embed_)
        x = torch.cat([low, self.dropout(frames + self.Temporal_pos_embed)], dim=1)
        for block in self.blocks:
            x = block(x)
        x = self.Temporal_norm(x)
        count = low.shape[1]
        means = [self.weighted_mean(x[:, :count]), self.weighted_mean_(x[:, count:])]  # tokens are their channels
        return self.head(torch.cat(means, dim=-1)).unflatten(2, (-1, 3))

    def slide(self, pose: Tensor, chunk: int | None = None) -> Tensor:
        """Lift every frame of a stretch that has a full window, with one spatial stage for all windows.

        The spatial stage sees a frame and not its place in the window, so it runs once per frame. The mixed stage works
        on windows gathered from its tokens: nothing of it can be shared, because the embeddings tell places. The
        coefficients of a chunk of windows are one product with overlapping views of the stretch, as in `forward`; a
        convolution would save milliseconds, and cuDNN would round it to TF32.

        Args:
            pose: (B, L + F - 1, J, C).
            chunk: windows at a time in the mixed stage, see `over_windows`.

        Returns:
            (B, L, J_out, 3).
        """

        def lift(window: Tensor, middle: Tensor) -> Tensor:
            return self.mixed(self.dct(window), middle)

        windows = sliding(pose.flatten(2), self.signature.frames)
        middles = sliding(self.spatial(self._middle(pose)), self.kept_frames)
        return over_windows(lift, windows, middles, chunk=chunk)

    def _middle(self, pose: Tensor) -> Tensor:
        """Frames that are among the central ones of some window: (B, L + F - 1, ...) to (B, L + f - 1, ...)."""
        margin = self.signature.frames // 2 - self.kept_frames // 2
        return pose[:, margin : pose.shape[1] - margin]

    @classmethod
    def recognise(cls, shapes: Shapes) -> dict[str, Any] | None:
        """Read constructor arguments from the names and shapes of a state dict; None for another family."""
        first = "blocks.0.mlp1.fc1.weight"
        needed = ("Joint_embedding.weight", "Freq_embedding.weight", "Spatial_pos_embed", "Temporal_pos_embed")
        if any(name not in shapes for name in (*needed, "Temporal_pos_embed_", "head.1.weight", first)):
            return None
        if any(len(shapes[name]) != 3 for name in ("Spatial_pos_embed", "Temporal_pos_embed", "Temporal_pos_embed_")):
            return None
        _, kept_frames, wide = shapes["Temporal_pos_embed"]
        return {
            "num_joints": shapes["Spatial_pos_embed"][1],
            "num_joints_out": shapes["head.1.weight"][0] // 3,
            "in_channels": shapes["Joint_embedding.weight"][1],
            "kept_frames": kept_frames,
            "kept_coeffs": shapes["Temporal_pos_embed_"][1],
            "dim": shapes["Spatial_pos_embed"][2],
            "depth": depth_of(shapes, "blocks"),
            # The wide stage tells the ratio more finely than the narrow one.
            "mlp_ratio": ratio_of(shapes[first][0], wide),
            "qkv_bias": "blocks.0.attn.qkv.bias" in shapes,
        }

    @classmethod
    def told_by_name(cls, name: str) -> dict[str, Any]:
        """Read constructor arguments from a name as the authors released them, `27_243_45.2.bin`: f, F and mm."""
        told = re.fullmatch(r"(\d+)_(\d+)_\d+(\.\d+)?\.bin", name)
        return {"kept_frames": int(told[1]), "num_frames": int(told[2])} if told else {}


def _refuse_sizes(num_frames: int, kept_frames: int, kept_coeffs: int) -> None:
    """Refuse windows and middles without a centre, and more tokens than the window has.

    Raises:
        ConfigError: with a size that works.
    """
    if num_frames % 2 == 0:
        raise ConfigError(f"A window of {num_frames} frames has no centre. Use model.num_frames={num_frames + 1}.")
    if kept_frames % 2 == 0:
        near = kept_frames - 1 if kept_frames >= num_frames else kept_frames + 1
        raise ConfigError(
            f"{kept_frames} kept frames have no centre in a window of {num_frames}. Use model.kept_frames={near}."
        )
    for name, kept in (("kept_frames", kept_frames), ("kept_coeffs", kept_coeffs)):
        if not 1 <= kept <= num_frames:
            raise ConfigError(
                f"A window of {num_frames} frames cannot give {name}={kept}. "
                f"Use model.{name}={min(max(kept, 1), num_frames)}."
            )
