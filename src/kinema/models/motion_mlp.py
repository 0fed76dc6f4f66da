"""MotionMLP: what is hidden in noisy coefficients, by residual layers over all of them at once; for small data.

Our own network, after the small diffusion MLPs of the field: where a few minutes of motion are all there is, attention
among coefficients has too little to learn from. It can be told how noisy its condition is (Ho et al. 2022, conditioning
augmentation), which keeps it from learning histories by heart.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinema.core.shapes import expect
from kinema.models.layers.noise import embed_time, noise_signature
from kinema.models.registry import Shapes, depth_of, register

# A level of 0 to 1 is embedded as a timestep of 0 to this.
_LEVELS = 1000


@register("motion_mlp")
class MotionMLP(nn.Module):
    """Predict noise, motion or velocity of DCT coefficients; all coefficients of a window are one vector.

    Input x (B, n, F) noisy coefficients, t (B,) timesteps, condition (B, m, F) what is seen of the history, output
    (B, n, F).

    Args:
        kept_coeffs: n, DCT coefficients of a window.
        num_features: F, three for every joint but the root.
        condition_frames: m, rows of the condition; n where it is made of coefficients.
        dim: channels of the vector.
        time_dim: channels of the embeddings of timestep and level.
        depth: residual blocks.
        dropout: rate inside the blocks and before the output.
    """

    unknowable: ClassVar[dict[str, Any]] = {"dropout": 0.1}
    takes_level: ClassVar[bool] = True
    measured_buffers: ClassVar[tuple[str, ...]] = ("condition_mean", "condition_scale")

    condition_mean: Tensor
    condition_scale: Tensor

    def __init__(
        self,
        *,
        kept_coeffs: int,
        num_features: int,
        condition_frames: int,
        dim: int,
        time_dim: int,
        depth: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.arguments: dict[str, Any] = {
            "kept_coeffs": kept_coeffs,
            "num_features": num_features,
            "condition_frames": condition_frames,
            "dim": dim,
            "time_dim": time_dim,
            "depth": depth,
            "dropout": dropout,
        }
        self.signature = noise_signature(kept_coeffs, num_features, condition_frames)
        self.motion_embed = nn.Linear(kept_coeffs * num_features, dim)
        self.condition_embed = nn.Linear(condition_frames * num_features, dim)
        self.time_embed = _embedding(time_dim)
        self.level_embed = _embedding(time_dim)
        self.blocks = nn.ModuleList(Block(dim, 2 * time_dim, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(dim, kept_coeffs * num_features)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        self.register_buffer("condition_mean", torch.zeros(condition_frames, num_features))
        self.register_buffer("condition_scale", torch.ones(condition_frames))

    @torch.no_grad()
    def calibrate(self, conditions: Tensor) -> None:
        """Measure mean and size of the condition's rows on training windows, (M, m, F); kept in the state dict."""
        self.condition_mean.copy_(conditions.mean(0))
        self.condition_scale.copy_((conditions - self.condition_mean).square().mean((0, 2)).sqrt().clamp_min(1e-3))

    def standardised(self, condition: Tensor) -> Tensor:
        """The condition (..., m, F) with the size that noise has; `forward` and `denoiser` take it so."""
        return (condition - self.condition_mean) / self.condition_scale[:, None]

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        condition: Tensor | None = None,
        present: Tensor | None = None,
        level: Tensor | None = None,
    ) -> Tensor:
        """Predict what was trained: noise, motion or velocity.

        Args:
            x: (B, n, F).
            t: (B,) int64.
            condition: (B, m, F), as `standardised` gives it; None = nobody sees it.
            present: (B,) bool, which samples see the condition; None = all.
            level: (B,) how much of the condition is noise, 0 to 1; None = nothing.

        Returns:
            (B, n, F).
        """
        size = self.arguments
        rows = expect(x, "B n F", "x", n=size["kept_coeffs"], F=size["num_features"])["B"]
        expect(t, "B", "t", B=rows)
        hidden = self.motion_embed(x.flatten(1))
        style = embed_time(self.time_embed, t)
        if condition is not None:
            expect(condition, "B m F", "condition", B=rows, m=size["condition_frames"], F=size["num_features"])
            level = t.new_zeros(rows, dtype=x.dtype) if level is None else level
            told = embed_time(self.level_embed, level * _LEVELS)
            history = self.condition_embed(condition.flatten(1))
            if present is not None:
                expect(present, "B", "present", B=rows)
                told, history = (torch.where(present[:, None], one, 0) for one in (told, history))
            hidden, style = hidden + history, style + told
        style = F.silu(style)
        for block in self.blocks:
            hidden = block(hidden, style)
        out: Tensor = self.out(self.dropout(F.silu(self.norm(hidden))))
        return out.unflatten(1, (size["kept_coeffs"], size["num_features"]))

    @classmethod
    def recognise(cls, shapes: Shapes) -> dict[str, Any] | None:
        """Read constructor arguments from the names and shapes of a state dict; None for another family."""
        names = ("motion_embed.weight", "condition_embed.weight", "level_embed.0.weight", "condition_mean")
        if any(name not in shapes for name in names):
            return None
        dim, wide = shapes["motion_embed.weight"]
        condition_frames, num_features = shapes["condition_mean"]
        return {
            "kept_coeffs": wide // num_features,
            "num_features": num_features,
            "condition_frames": condition_frames,
            "dim": dim,
            "time_dim": shapes["level_embed.0.weight"][1],
            "depth": depth_of(shapes, "blocks"),
        }


class Block(nn.Module):
    """Norm, scale and shift by a style, two layers of which the second begins at zero. (B, D), (B, E) to (B, D)."""

    def __init__(self, dim: int, style_dim: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.style = nn.Linear(style_dim, 2 * dim)
        self.linear1 = nn.Linear(dim, dim)
        self.linear2 = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.linear2.weight)
        nn.init.zeros_(self.linear2.bias)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        scale, shift = self.style(style).chunk(2, dim=-1)
        inner = torch.addcmul(shift, self.norm(x), 1 + scale)
        update: Tensor = self.linear2(self.dropout(F.silu(self.linear1(inner))))
        return x + update


def _embedding(dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, 2 * dim), nn.SiLU(), nn.Linear(2 * dim, 2 * dim))
