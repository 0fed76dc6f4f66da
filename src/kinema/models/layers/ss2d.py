"""The mixer of PoseMamba: four selective scans over the plane of frames and joints."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinema.errors import ConfigError
from kinema.models.layers.mamba import decay_rates, skip_weights, step_size_bias
from kinema.models.layers.selective_scan import check_backend, selective_scan

# Joint that is added to each joint of H36M before a scan. Published behaviour: not a table of parents (joint 4 gets
# joint 3, joints 14 to 16 are doubled).
LIMB_PARTNERS = (0, 0, 1, 2, 3, 0, 4, 5, 6, 8, 11, 12, 13, 8, 14, 15, 16)
SCANS = 4


def expect_limbs(num_joints: int) -> None:
    """Refuse a skeleton for which there is no table of limb partners.

    Raises:
        ConfigError: for any number of joints but that of H36M.
    """
    if num_joints != len(LIMB_PARTNERS):
        raise ConfigError(
            f"The limb table of PoseMamba is for the {len(LIMB_PARTNERS)} joints of H36M, not for {num_joints}. "
            "Use a dataset of 17 joints, or model=dbmambapose, which needs no table with model.limbs=false."
        )


def add_limb_partners(x: Tensor, axis: int = -2) -> Tensor:
    """Add to every joint its limb partner; joints along `axis`."""
    return x + x.index_select(axis, torch.tensor(LIMB_PARTNERS, device=x.device))


class BiSTSSM(nn.Module):
    """Scan a clip of tokens (B, T, J, dim) along frames and along joints, each forwards and backwards.

    [x, z] = in_proj(h); x = silu(conv2d(x)), a depthwise convolution over (T, J); four sequences of T * J tokens: x
    plus limb partners frame by frame, x joint by joint, and the reversals of both; one scan with four groups of
    weights; out_proj(out_norm(sum) * silu(z)).

    Parameter names: `in_proj`, `conv2d`, `x_proj_weight`, `dt_projs_weight`, `dt_projs_bias`, `A_logs`, `Ds`,
    `out_norm`, `out_proj`.

    Args:
        dim: channels of a token.
        d_state: N, numbers that each inner channel of a scan remembers.
        d_conv: side of the convolution, odd.
        expand: inner channels over `dim`.
        scan_backend: one of `kinema.models.layers.selective_scan.BACKENDS`.

    Source: Huang et al. 2025 (PoseMamba), BiSTSSM, a descendant of VMamba's SS2D.
    """

    def __init__(self, dim: int, *, d_state: int, d_conv: int, expand: float, scan_backend: str = "auto") -> None:
        super().__init__()
        self.scan_backend, self.d_state = check_backend(scan_backend), d_state
        if d_conv % 2 == 0:
            raise ConfigError(f"A convolution of even side {d_conv} would shift the clip. Use model.d_conv=3.")
        self.inner = inner = int(expand * dim)
        self.dt_rank = rank = math.ceil(dim / 16)
        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.conv2d = nn.Conv2d(inner, inner, d_conv, groups=inner, padding=d_conv // 2)
        self.x_proj_weight = nn.Parameter(torch.empty(SCANS, rank + 2 * d_state, inner))
        self.dt_projs_weight = nn.Parameter(torch.empty(SCANS, inner, rank))
        self.dt_projs_bias = nn.Parameter(step_size_bias(SCANS * inner).unflatten(0, (SCANS, inner)))
        self.A_logs = decay_rates(SCANS * inner, d_state)
        self.Ds = skip_weights(SCANS * inner)
        self.out_norm = nn.LayerNorm(inner)
        self.out_proj = nn.Linear(inner, dim, bias=False)
        self.dt_projs_bias._no_reinit = True  # type: ignore[attr-defined]
        nn.init.uniform_(self.x_proj_weight, -(inner**-0.5), inner**-0.5)  # as nn.Linear draws its weights
        nn.init.uniform_(self.dt_projs_weight, -(rank**-0.5), rank**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        frames, joints = x.shape[1:3]
        plane, gate = self.in_proj(x).chunk(2, dim=-1)
        plane = F.silu(self.conv2d(plane.permute(0, 3, 1, 2)))  # (B, D, T, J)
        by_frame = add_limb_partners(plane, -1).flatten(2)
        by_joint = plane.transpose(2, 3).flatten(2)
        once = torch.stack((by_frame, by_joint), dim=1)
        sequences = torch.cat((once, once.flip(-1)), dim=1)  # (B, 4, D, T * J)
        forwards, backwards = self._scan(sequences).chunk(2, dim=1)
        by_frame, by_joint = (forwards + backwards.flip(-1)).unbind(1)
        tokens = by_frame.transpose(1, 2) + by_joint.unflatten(-1, (joints, frames)).permute(0, 3, 2, 1).flatten(1, 2)
        return self.out_proj(self.out_norm(tokens).unflatten(1, (frames, joints)) * F.silu(gate))

    def _scan(self, sequences: Tensor) -> Tensor:
        """Scan (B, 4, D, L), every sequence with weights of its own."""
        projected = torch.matmul(self.x_proj_weight, sequences)
        dt, b, c = projected.split((self.dt_rank, self.d_state, self.d_state), dim=2)
        y = selective_scan(
            sequences.flatten(1, 2),
            torch.matmul(self.dt_projs_weight, dt).flatten(1, 2),
            -torch.exp(self.A_logs),
            b,
            c,
            self.Ds,
            delta_bias=self.dt_projs_bias.flatten(),
            delta_softplus=True,
            backend=self.scan_backend,
        )
        return y.unflatten(1, (SCANS, -1))

    def stated_macs(self, tokens: int) -> dict[str, int]:
        """Multiply-accumulates of `forward` on so many tokens, by kind."""
        inner, states, rank = self.inner, self.d_state, self.dt_rank
        linear = self.in_proj.weight.numel() + self.out_proj.weight.numel()
        return {
            "linear": tokens * (linear + SCANS * inner * (rank + 2 * states + rank)),
            "convolution": tokens * self.conv2d.weight.numel(),
            "scan": tokens * SCANS * inner * (3 * states + 1),
        }

    def visible_macs(self, tokens: int) -> int:
        """Those that profilers see which do not look inside the fused kernel: `in_proj` alone."""
        return tokens * self.in_proj.weight.numel()
