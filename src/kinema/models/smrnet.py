"""SMRNet: noise of motion coefficients by graph convolutions with free adjacencies and attention to the history.

Chen et al., Pattern Recognition 2026, article 113281. Parameter names are the official ones.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinema.models.layers.noise import (
    embed_time,
    expect_condition,
    expect_noise,
    grouped,
    head_attention,
    noise_signature,
    refuse_heads,
    refuse_training,
    seeing_samples,
    time_network,
    ungrouped,
)
from kinema.models.registry import Shapes, depth_of, register


@register("smrnet")
class SMRNet(nn.Module):
    """Predict the noise of DCT coefficients by blocks that each explain a part of what is left.

    Input x (B, n, F) noisy coefficients, t (B,) timesteps, condition (B, n, F) coefficients of the padded history;
    output (B, n, F).

    Args:
        kept_coeffs: n, DCT coefficients of a window.
        num_features: F, three for every joint but the root.
        dim: channels of a token.
        depth: blocks.
        num_heads: attention heads.
        dropout: rate on attention weights and after the activations of graph convolutions.
    """

    unknowable: ClassVar[dict[str, Any]] = {"num_heads": 8, "dropout": 0.3}

    def __init__(
        self, *, kept_coeffs: int, num_features: int, dim: int, depth: int, num_heads: int, dropout: float
    ) -> None:
        super().__init__()
        self.arguments: dict[str, Any] = {
            "kept_coeffs": kept_coeffs,
            "num_features": num_features,
            "dim": dim,
            "depth": depth,
            "num_heads": num_heads,
            "dropout": dropout,
        }
        refuse_heads(dim, num_heads)
        self.signature = noise_signature(kept_coeffs, num_features)
        # Kept for official files: what is left after the last block reaches nothing.
        self.unused_parameters = tuple(
            f"temporal_decoder_blocks.{depth - 1}.lin3.{name}" for name in ("weight", "bias")
        )
        self.joint_embed = nn.Linear(num_features, dim)
        self.obse_embed = HistoryEncoder(kept_coeffs, num_features, dim, num_heads, dropout)
        self.time_embed = time_network(dim)
        self.temporal_decoder_blocks = nn.ModuleList(Block(kept_coeffs, dim, num_heads, dropout) for _ in range(depth))
        self.out = nn.Linear(dim, num_features)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None, present: Tensor | None = None) -> Tensor:
        """Predict the noise in x.

        Args:
            x: (B, n, F).
            t: (B,) int64.
            condition: (B, n, F) coefficients of the padded history; None = nobody sees it.
            present: (B,) bool, which samples see the condition; None = all.

        Returns:
            (B, n, F).
        """
        expect_noise(x, t, condition, present, self.arguments["kept_coeffs"], self.arguments["num_features"])
        tokens, mask = embed_time(self.time_embed, t)[:, None], None
        if condition is not None:
            history = self.obse_embed(condition)
            if present is not None:
                history = torch.where(present[:, None, None], history, 0)
                # Without a history there is one token, the time: of n equal ones only the first is looked at.
                first = torch.arange(x.shape[1], device=x.device) == 0
                mask = (present[:, None] | first)[:, None, None]
            tokens = tokens + history
        left, explained = self.joint_embed(x), None
        blocks: list[Any] = list(self.temporal_decoder_blocks)
        for block in blocks:
            mixed = block(left, tokens, mask)
            part = block.lin4(mixed)
            explained = part if explained is None else explained + part
            if block is not blocks[-1]:
                left = left - block.lin3(mixed)
        return self.out(explained)

    def denoiser(self, condition: Tensor | None, timesteps: Tensor, conditioned: int | None = None) -> SharedSMRNet:
        """The same network for K samples of each of W windows, step by step, with what they share computed once.

        Args:
            condition: (W, n, F) coefficients of the padded histories; None = nobody sees one.
            timesteps: (S,) int64, the steps that will be visited.
            conditioned: how many of the K samples of every window see the condition, the first ones; None = all.

        Returns:
            A function of x (W, K, n, F) and the number of the step in `timesteps`, which gives (W, K, n, F).
        """
        return SharedSMRNet(self, condition, timesteps, conditioned)

    @classmethod
    def recognise(cls, shapes: Shapes) -> dict[str, Any] | None:
        """Read constructor arguments from the names and shapes of a state dict; None for another family."""
        needed = ("obse_embed.sequence_embedding", "joint_embed.weight", "temporal_decoder_blocks.0.lin1.gcn1.att")
        if any(name not in shapes for name in needed):
            return None
        kept_coeffs, dim = shapes["obse_embed.sequence_embedding"]
        return {
            "kept_coeffs": kept_coeffs,
            "num_features": shapes["joint_embed.weight"][1],
            "dim": dim,
            "depth": depth_of(shapes, "temporal_decoder_blocks"),
        }


class GraphConvolution(nn.Module):
    """Mix nodes by a free adjacency and features by a matrix: att (x weight) + bias, (B, nodes, in) to (B, nodes, out).

    Unlike that of a linear layer, `weight` is (in, out).
    """

    def __init__(self, in_features: int, out_features: int, nodes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(in_features, out_features))
        self.att = nn.Parameter(torch.empty(nodes, nodes))
        self.bias = nn.Parameter(torch.zeros(out_features))
        nn.init.normal_(self.weight, std=0.01)
        nn.init.normal_(self.att, std=0.01)

    def forward(self, x: Tensor) -> Tensor:
        # One call with the bias: a broadcast product would copy the adjacency for every sample.
        return torch.baddbmm(self.bias, self.att.expand(x.shape[0], -1, -1), x @ self.weight)

    def crosswise(self, x: Tensor) -> Tensor:
        """The same with features as nodes and nodes as features, without a transposition: (B, in, nodes)."""
        return torch.baddbmm(self.bias[:, None], self.weight.T.expand(x.shape[0], -1, -1), F.linear(x, self.att))


class DoubleTransposeGCN(nn.Module):
    """A graph convolution over coefficients, one over channels, and a linear layer: (B, n, dim) to (B, n, dim)."""

    def __init__(self, dim: int, kept_coeffs: int, dropout: float) -> None:
        super().__init__()
        self.gcn1 = GraphConvolution(dim, dim, kept_coeffs)
        self.gcn2 = GraphConvolution(kept_coeffs, kept_coeffs, dim)
        self.linear = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.inner(x))

    def inner(self, x: Tensor) -> Tensor:
        """What goes into the last linear layer."""
        x = self.dropout(F.gelu(self.gcn1(x)))
        return self.dropout(F.gelu(self.gcn2.crosswise(x)))


class SelfAttention(nn.Module):
    """Attention among tokens, added to them and normed; no layer behind the heads. (B, n, dim) to (B, n, dim)."""

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
        self.norm2 = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        dropout = self.dropout if self.training else 0.0
        return self.norm2(x + head_attention(self.query(y), self.key(y), self.value(y), self.num_heads, dropout))


class CrossAttention(nn.Module):
    """Attention to time and history, added and normed. (B, n, dim), tokens (B, m, dim) to (B, n, dim)."""

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.norm = nn.LayerNorm(dim)
        self.text_norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
        self.norm2 = nn.LayerNorm(dim)

    def forward(self, x: Tensor, tokens: Tensor, mask: Tensor | None) -> Tensor:
        tokens = self.text_norm(tokens)
        dropout = self.dropout if self.training else 0.0
        query, key, value = self.query(self.norm(x)), self.key(tokens), self.value(tokens)
        return self.norm2(x + head_attention(query, key, value, self.num_heads, dropout, mask))


class HistoryEncoder(nn.Module):
    """Coefficients of the padded history to tokens: (B, n, F) to (B, n, dim)."""

    def __init__(self, kept_coeffs: int, num_features: int, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.sequence_embedding = nn.Parameter(torch.randn(kept_coeffs, dim))
        self.lin1 = nn.Linear(num_features, dim)
        self.att = SelfAttention(dim, num_heads, dropout)
        self.lin2 = DoubleTransposeGCN(dim, kept_coeffs, dropout)

    def forward(self, condition: Tensor) -> Tensor:
        x = self.att(F.gelu(self.lin1(condition)) + self.sequence_embedding)
        return self.lin2(x) + x


class Block(nn.Module):
    """What a block finds, from which `lin4` makes its part of the noise and `lin3` what it takes from the rest."""

    def __init__(self, kept_coeffs: int, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.lin1 = DoubleTransposeGCN(dim, kept_coeffs, dropout)
        self.cross_attention = CrossAttention(dim, num_heads, dropout)
        self.lin2 = DoubleTransposeGCN(dim, kept_coeffs, dropout)
        self.lin3 = nn.Linear(dim, dim)
        self.lin4 = nn.Linear(dim, dim)

    def forward(self, x: Tensor, tokens: Tensor, mask: Tensor | None) -> Tensor:
        seen = self.cross_attention(x, tokens, mask)
        return self.lin1(x) + self.lin2(seen) + seen


# Keys and values of every block.
Read = list[tuple[Tensor, Tensor]]


class SharedSMRNet:
    """SMRNet for many samples of the same windows, in eval mode; equal to `forward` up to rounding.

    The history is encoded once, timesteps are embedded together, and keys and values of all blocks are one product for
    each window and step: the norms before them differ only in scale and shift, which go into the matrices. Samples
    without a history attend to one token, so they get its value. `lin4` and `out` of every block are one matrix, folded
    in float64 and joined with `lin3`; in the last block, which has no use for `lin3`, the linear layers before it are
    folded too.
    """

    def __init__(
        self, model: SMRNet, condition: Tensor | None, timesteps: Tensor, conditioned: int | None = None
    ) -> None:
        refuse_training(model)
        expect_condition(condition, model.arguments["kept_coeffs"], model.arguments["num_features"])
        self.condition, self.conditioned = condition, conditioned
        self.joint_embed = model.joint_embed
        self.blocks: list[Any] = list(model.temporal_decoder_blocks)
        with torch.no_grad():
            self.times = embed_time(model.time_embed, timesteps.to(model.out.weight.device))  # (S, D)
            self.history = None if condition is None else model.obse_embed(condition)  # (W, n, D)
            self.reading = _reading(self.blocks)
            self.writing = [_writing(block, model.out) for block in self.blocks[:-1]]
            self.closing = _closing(self.blocks, model.out)

    @torch.no_grad()
    def __call__(self, x: Tensor, step: int) -> Tensor:
        windows, seeing = x.shape[0], seeing_samples(self.condition, self.conditioned, x)
        tokens = alone = None
        if seeing and self.history is not None:
            tokens = self._read(self.times[step] + self.history)
        if seeing < x.shape[1]:  # some attend to the time alone
            alone = self._read(self.times[step])
        left = self.joint_embed(grouped(x, seeing))  # (W * K, n, D)
        noise = None
        for level, (weight, bias) in enumerate(self.writing):
            looked, first, second = self._stage(level, left, tokens, alone, windows * seeing)
            lin1, lin2 = self.blocks[level].lin1.linear, self.blocks[level].lin2.linear
            mixed = _plus_product(_plus_product(looked, first, lin1.weight), second, lin2.weight)
            written = F.linear(mixed, weight, bias)
            left = left - written[..., : left.shape[-1]]
            part = written[..., left.shape[-1] :]
            noise = part if noise is None else noise + part
        (look, one, two), bias = self.closing
        looked, first, second = self._stage(len(self.writing), left, tokens, alone, windows * seeing)
        last = _plus_product(_plus_product(F.linear(looked, look, bias), first, one), second, two)
        return ungrouped(last if noise is None else noise + last, windows, seeing)

    def _read(self, tokens: Tensor) -> Read:
        """Keys and values of all blocks: (..., D) to pairs of (..., D)."""
        weight, bias = self.reading
        read = F.linear(F.layer_norm(tokens, tokens.shape[-1:]), weight, bias)
        parts = read.split(tokens.shape[-1], dim=-1)
        return list(zip(parts[::2], parts[1::2], strict=True))

    def _stage(
        self, level: int, left: Tensor, tokens: Read | None, alone: Read | None, rows: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Output of a block's attention, and what goes into the last layers of its two convolutions."""
        block = self.blocks[level]
        cross = block.cross_attention
        values = []
        if tokens is not None:
            key, value = tokens[level]
            # All samples of a window are queries of one attention.
            query = cross.query(cross.norm(left[:rows])).reshape(key.shape[0], -1, key.shape[-1])
            values.append(head_attention(query, key, value, cross.num_heads).reshape(rows, *left.shape[1:]))
        if alone is not None:
            values.append(alone[level][1].expand(left.shape[0] - rows, left.shape[1], -1))
        looked = cross.norm2(left + (values[0] if len(values) == 1 else torch.cat(values)))
        return looked, block.lin1.inner(left), block.lin2.inner(looked)


def _plus_product(base: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """base + x weight^T in one call, of (B, n, out), (B, n, in) and (out, in)."""
    return torch.addmm(base.flatten(0, 1), x.flatten(0, 1), weight.T).unflatten(0, base.shape[:2])


def _reading(blocks: list[Any]) -> tuple[Tensor, Tensor]:
    """Keys and values of all blocks from tokens normed without scale and shift: (2 * L * D, D) and (2 * L * D,)."""
    matrices, shifts = [], []
    for cross in (block.cross_attention for block in blocks):
        for weight in (cross.key.weight, cross.value.weight):
            matrices.append(weight * cross.text_norm.weight)
            shifts.append(weight @ cross.text_norm.bias)
    return torch.cat(matrices), torch.cat(shifts)


def _writing(block: Any, out: nn.Linear) -> tuple[Tensor, Tensor]:
    """`lin3` above `out` after `lin4`, (D + F, D), and their shifts with those of the linear layers before them."""
    part = out.weight.double() @ block.lin4.weight.double()
    joined = torch.cat([block.lin3.weight.double(), part])
    inner = block.lin1.linear.bias.double() + block.lin2.linear.bias.double()
    shift = joined @ inner
    shift[: len(inner)] += block.lin3.bias.double()
    return joined.to(out.weight), shift.to(out.weight)


def _closing(blocks: list[Any], out: nn.Linear) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    """`out` after `lin4` of the last block, alone and after each linear layer; the shift of `out` after all `lin4`."""
    last, weight = blocks[-1], out.weight.double()
    part = weight @ last.lin4.weight.double()
    linears = [lin.linear for lin in (last.lin1, last.lin2)]
    one, two = (part @ linear.weight.double() for linear in linears)
    shift = out.bias.double() + weight @ sum(block.lin4.bias.double() for block in blocks)
    shift = shift + part @ sum(linear.bias.double() for linear in linears)
    return (part.to(out.weight), one.to(out.weight), two.to(out.weight)), shift.to(out.weight)
