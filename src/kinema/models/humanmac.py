"""HumanMAC: noise of motion coefficients by a transformer with long skips, styled by time and history.

Chen et al., ICCV 2023, arXiv 2302.03665. Parameter names are the official ones.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinema.errors import ConfigError
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


@register("humanmac")
class HumanMAC(nn.Module):
    """Predict the noise of DCT coefficients; time and history enter as one vector that scales and shifts tokens.

    Input x (B, n, F) noisy coefficients, t (B,) timesteps, condition (B, n, F) coefficients of the padded history;
    output (B, n, F).

    Args:
        kept_coeffs: n, DCT coefficients of a window.
        num_features: F, three for every joint but the root.
        dim: channels of a token.
        ff_dim: channels inside the feed-forward layers.
        depth: blocks, an even number: the input of each block of the first half is added behind one of the second.
        num_heads: attention heads.
        dropout: rate on attention weights, in the feed-forward layers and before every output layer.
    """

    unknowable: ClassVar[dict[str, Any]] = {"num_heads": 8, "dropout": 0.2}

    def __init__(
        self,
        *,
        kept_coeffs: int,
        num_features: int,
        dim: int,
        ff_dim: int,
        depth: int,
        num_heads: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.arguments: dict[str, Any] = {
            "kept_coeffs": kept_coeffs,
            "num_features": num_features,
            "dim": dim,
            "ff_dim": ff_dim,
            "depth": depth,
            "num_heads": num_heads,
            "dropout": dropout,
        }
        refuse_heads(dim, num_heads)
        if depth < 2 or depth % 2:
            raise ConfigError(
                f"The long skips of HumanMAC pair the blocks of its first half with those of its second; "
                f"{depth} blocks have no halves. Use model.depth={max(depth - depth % 2, 2)}."
            )
        self.signature = noise_signature(kept_coeffs, num_features)
        self.sequence_embedding = nn.Parameter(torch.randn(kept_coeffs, dim))
        self.joint_embed = nn.Linear(num_features, dim)
        self.cond_embed = nn.Linear(kept_coeffs * num_features, dim)
        self.time_embed = time_network(dim)
        self.temporal_decoder_blocks = nn.ModuleList(Block(dim, ff_dim, num_heads, dropout) for _ in range(depth))
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
        style = embed_time(self.time_embed, t)
        if condition is not None:
            history = self.cond_embed(condition.flatten(1))
            style = style + (history if present is None else torch.where(present[:, None], history, 0))
        style = F.silu(style)[:, None]  # (B, 1, D)
        x = self.joint_embed(x) + self.sequence_embedding
        half = len(self.temporal_decoder_blocks) // 2
        skips: list[Tensor] = []
        for level, block in enumerate(self.temporal_decoder_blocks):
            if level < half:
                skips.append(x)
            x = block(x, style)
            if level >= half:
                x = x + skips.pop()
        return self.out(x)

    def denoiser(self, condition: Tensor | None, timesteps: Tensor, conditioned: int | None = None) -> SharedHumanMAC:
        """The same network for K samples of each of W windows, step by step, with what they share computed once.

        Args:
            condition: (W, n, F) coefficients of the padded histories; None = nobody sees one.
            timesteps: (S,) int64, the steps that will be visited.
            conditioned: how many of the K samples of every window see the condition, the first ones; None = all.

        Returns:
            A function of x (W, K, n, F) and the number of the step in `timesteps`, which gives (W, K, n, F).
        """
        return SharedHumanMAC(self, condition, timesteps, conditioned)

    @classmethod
    def recognise(cls, shapes: Shapes) -> dict[str, Any] | None:
        """Read constructor arguments from the names and shapes of a state dict; None for another family."""
        first = "temporal_decoder_blocks.0.ffn.linear1.weight"
        if any(name not in shapes for name in ("sequence_embedding", "joint_embed.weight", "cond_embed.weight", first)):
            return None
        kept_coeffs, dim = shapes["sequence_embedding"]
        return {
            "kept_coeffs": kept_coeffs,
            "num_features": shapes["joint_embed.weight"][1],
            "dim": dim,
            "ff_dim": shapes[first][0],
            "depth": depth_of(shapes, "temporal_decoder_blocks"),
        }


class Stylization(nn.Module):
    """Norm, scale and shift by a style, activate, and a layer that begins at zero. (B, N, D), (B, 1, D) to (B, N, D).

    The first module of `emb_layers` and of `out_layers` has no weights; the numbers belong to official names.
    """

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(dim, 2 * dim))
        self.norm = nn.LayerNorm(dim)
        last = nn.Linear(dim, dim)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.out_layers = nn.Sequential(nn.SiLU(), nn.Dropout(dropout), last)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        # The activation of a style is the same for all, so it comes activated.
        scale, shift = self.emb_layers[1](style).chunk(2, dim=-1)
        styled: Tensor = self.out_layers(torch.addcmul(shift, self.norm(x), 1 + scale))
        return styled


class SelfAttention(nn.Module):
    """Attention among normed tokens, styled."""

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
        self.proj_out = Stylization(dim, dropout)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        y = self.norm(x)
        dropout = self.dropout if self.training else 0.0
        mixed = head_attention(self.query(y), self.key(y), self.value(y), self.num_heads, dropout)
        return self.proj_out(mixed, style)


class FeedForward(nn.Module):
    """Two layers on every token, styled; `linear2` begins at zero."""

    def __init__(self, dim: int, ff_dim: int, dropout: float) -> None:
        super().__init__()
        self.linear1 = nn.Linear(dim, ff_dim)
        self.linear2 = nn.Linear(ff_dim, dim)
        self.dropout = nn.Dropout(dropout)
        self.proj_out = Stylization(dim, dropout)
        nn.init.zeros_(self.linear2.weight)
        nn.init.zeros_(self.linear2.bias)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        return self.proj_out(self.linear2(self.dropout(F.gelu(self.linear1(x)))), style)


class Block(nn.Module):
    """Attention and feed-forward layers, each added to its input."""

    def __init__(self, dim: int, ff_dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.sa_block = SelfAttention(dim, num_heads, dropout)
        self.ffn = FeedForward(dim, ff_dim, dropout)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        x = x + self.sa_block(x, style)
        return x + self.ffn(x, style)


class SharedHumanMAC:
    """HumanMAC for many samples of the same windows, in eval mode; equal to `forward` up to rounding.

    Little can be shared, because time and history are one vector: its layers are one product for each window and step
    instead of each sample, with the scale and shift of the norms behind them folded in; queries, keys and values are
    one product.
    """

    def __init__(
        self, model: HumanMAC, condition: Tensor | None, timesteps: Tensor, conditioned: int | None = None
    ) -> None:
        refuse_training(model)
        expect_condition(condition, model.arguments["kept_coeffs"], model.arguments["num_features"])
        self.model, self.condition, self.conditioned = model, condition, conditioned
        self.blocks: list[Any] = list(model.temporal_decoder_blocks)
        self.stylers = [part.proj_out for block in self.blocks for part in (block.sa_block, block.ffn)]
        with torch.no_grad():
            self.times = embed_time(model.time_embed, timesteps.to(model.out.weight.device))  # (S, D)
            self.history = None if condition is None else model.cond_embed(condition.flatten(1))  # (W, D)
            self.styling = _styling(self.stylers)
            self.reading = [
                torch.cat([part.query.weight, part.key.weight, part.value.weight])
                for part in (block.sa_block for block in self.blocks)
            ]

    @torch.no_grad()
    def __call__(self, x: Tensor, step: int) -> Tensor:
        windows, count = x.shape[:2]
        seeing = seeing_samples(self.condition, self.conditioned, x)
        styles = self._styles(step, windows, seeing, count)
        x = self.model.joint_embed(grouped(x, seeing)) + self.model.sequence_embedding
        skips: list[Tensor] = []
        for level, block in enumerate(self.blocks):
            if level < len(self.blocks) // 2:
                skips.append(x)
            x = x + self._attend(level, x, styles[2 * level])
            inner = block.ffn.linear2(F.gelu(block.ffn.linear1(x)))
            x = x + _styled(self.stylers[2 * level + 1], inner, styles[2 * level + 1])
            if level >= len(self.blocks) // 2:
                x = x + skips.pop()
        return ungrouped(self.model.out(x), windows, seeing)

    def _styles(self, step: int, windows: int, seeing: int, count: int) -> list[tuple[Tensor, Tensor]]:
        """Factor and shift of every stylization, (W * K, 1, D) in the order of `grouped`, or (1, 1, D) for all."""
        styles, rows = self.times[step : step + 1], None
        if seeing and self.history is not None:
            styles = torch.cat([styles + self.history, styles])  # the last one is that of samples without a history
            own = torch.arange(windows, device=styles.device).repeat_interleave(seeing)
            rows = torch.cat([own, own.new_full((windows * (count - seeing),), windows)])
        weight, bias = self.styling
        made = F.linear(F.silu(styles), weight, bias)
        parts = (made if rows is None else made[rows])[:, None].split(weight.shape[1], dim=-1)
        return list(zip(parts[::2], parts[1::2], strict=True))

    def _attend(self, level: int, x: Tensor, style: tuple[Tensor, Tensor]) -> Tensor:
        part = self.blocks[level].sa_block
        query, key, value = F.linear(part.norm(x), self.reading[level]).chunk(3, dim=-1)
        return _styled(part.proj_out, head_attention(query, key, value, part.num_heads), style)


def _styled(styler: Any, x: Tensor, style: tuple[Tensor, Tensor]) -> Tensor:
    """A stylization with factor and shift at hand."""
    factor, shift = style
    return styler.out_layers[2](F.silu(torch.addcmul(shift, F.layer_norm(x, x.shape[-1:]), factor)))


def _styling(stylers: list[Any]) -> tuple[Tensor, Tensor]:
    """From an activated style to factor and shift of every stylization behind a norm without its own.

    norm(x) (1 + s) + b, with norm(x) = w y + v, is y (w + w s) + (v + v s + b).
    """
    matrices, shifts = [], []
    for styler in stylers:
        weight, bias = styler.norm.weight, styler.norm.bias
        (scales, moves), (scale, move) = styler.emb_layers[1].weight.chunk(2), styler.emb_layers[1].bias.chunk(2)
        matrices += [weight[:, None] * scales, bias[:, None] * scales + moves]
        shifts += [weight * (1 + scale), bias * (1 + scale) + move]
    return torch.cat(matrices), torch.cat(shifts)
