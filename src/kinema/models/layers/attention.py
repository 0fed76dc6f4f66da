"""Multi-head self-attention on `scaled_dot_product_attention`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinema.errors import ConfigError
from kinema.models.layers.exporting import exporting

# CUDA kernels of torch put the batch axis on a grid axis of this size; PoseFormer's published batch of 1024 windows
# of 81 frames is longer than that in the spatial stage.
MAX_CUDA_BATCH = 65535


class Attention(nn.Module):
    """Self-attention along the last but one axis, all axes before it being batch.

    One product makes queries, keys and values (rows of `qkv`: q, k, v, then head, then channel); they are views of it
    and stay so, as does the output before `proj`. To attend along another axis, transpose it to the last but one:
    only the input of width `dim` is then copied, not the three times wider product.

    Parameter names: `qkv`, `proj`. Input and output (..., N, dim). Logits are multiplied by `scale`; `bias` (num_heads,
    N, N) is then added to them.

    Args:
        dim: channels of a token.
        num_heads: heads, a divisor of `dim`.
        qkv_bias: whether `qkv` has a bias.
        dropout: rate after `proj`.
        attn_dropout: rate on the attention weights.
        scale: factor of the logits; None = (dim / num_heads) ** -0.5.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        qkv_bias: bool = True,
        dropout: float = 0.0,
        attn_dropout: float = 0.0,
        scale: float | None = None,
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ConfigError(f"{dim} channels do not divide into {num_heads} heads. Use a divisor for num_heads.")
        self.num_heads = num_heads
        self.attn_dropout = attn_dropout
        self.scale = scale
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        shape = x.shape
        qkv = self.qkv(x).reshape(-1, shape[-2], 3, self.num_heads, shape[-1] // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # views (batch, heads, N, d)
        dropout = self.attn_dropout if self.training else 0.0
        if bias is not None:
            bias = bias.expand(1, -1, -1, -1)  # the fused kernels want as many axes as the queries have
        mixed = attend(query, key, value, dropout, scale=self.scale, bias=bias)
        mixed = mixed.transpose(1, 2)
        if exporting():  # an exporter may lay out its own attention otherwise than the traced one
            mixed = mixed.clone(memory_format=torch.contiguous_format)
        return self.dropout(self.proj(mixed.reshape(shape)))


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout: float,
    max_cuda_batch: int = MAX_CUDA_BATCH,
    *,
    scale: float | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """Scaled dot-product attention of (batch, heads, N, d) tensors, in parts where a CUDA grid is too small."""
    if query.is_cuda and query.shape[0] > max_cuda_batch:
        return attend_in_parts(query, key, value, dropout, max_cuda_batch, scale=scale, bias=bias)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout, scale=scale)


def attend_in_parts(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout: float,
    size: int,
    *,
    scale: float | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """The same as `attend`, at most `size` entries of the batch axis at a time."""
    parts = zip(query.split(size), key.split(size), value.split(size), strict=True)
    return torch.cat([attend(q, k, v, dropout, size, scale=scale, bias=bias) for q, k, v in parts])
