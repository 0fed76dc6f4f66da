"""The pre-norm transformer block."""

from __future__ import annotations

from torch import Tensor, nn

from kinema.models.layers.attention import Attention
from kinema.models.layers.drop_path import DropPath
from kinema.models.layers.mlp import MLP

# PoseFormer and MotionBERT use this epsilon in every LayerNorm that they build through timm's partial(LayerNorm).
NORM_EPS = 1e-6


class TransformerBlock(nn.Module):
    """x = x + DP(attn(norm1(x))); x = x + DP(mlp(norm2(x))), along the last but one axis.

    Parameter names: `norm1`, `attn.qkv`, `attn.proj`, `norm2`, `mlp.fc1`, `mlp.fc2`.

    Args:
        dim: channels of a token.
        num_heads: heads of the attention.
        hidden: width of the MLP.
        qkv_bias: whether the qkv product has a bias.
        dropout: rate after the projection of the attention and after both layers of the MLP.
        attn_dropout: rate on the attention weights.
        drop_path: rate of stochastic depth.
        sample_axes: leading axes that tell samples apart for stochastic depth.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        hidden: int,
        *,
        qkv_bias: bool = True,
        dropout: float = 0.0,
        attn_dropout: float = 0.0,
        drop_path: float = 0.0,
        sample_axes: int = 1,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = Attention(dim, num_heads, qkv_bias=qkv_bias, dropout=dropout, attn_dropout=attn_dropout)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = MLP(dim, hidden, dropout=dropout)
        self.drop_path = DropPath(drop_path, sample_axes=sample_axes)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Mix tokens (..., N, dim); `bias` (num_heads, N, N) is added to the logits of the attention."""
        x = x + self.drop_path(self.attn(self.norm1(x), bias))
        return x + self.drop_path(self.mlp(self.norm2(x)))
