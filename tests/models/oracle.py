"""The transformers of the package in the slowest obvious form: plain loops over samples, heads and tokens."""

from __future__ import annotations

import math

import torch
from torch import Tensor

State = dict[str, Tensor]


def part(state: State, prefix: str) -> State:
    return {name[len(prefix) + 1 :]: tensor for name, tensor in state.items() if name.startswith(prefix + ".")}


def linear(x: Tensor, state: State) -> Tensor:
    return x @ state["weight"].T + state.get("bias", torch.zeros(()).to(x))


def norm(x: Tensor, state: State, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt() * state["weight"] + state["bias"]


def attention(x: Tensor, state: State, heads: int, bias: Tensor | None = None) -> Tensor:
    """One sequence of tokens (N, C); `bias` (heads, N, N) is added to the logits."""
    count, dim = x.shape
    qkv = linear(x, part(state, "qkv")).reshape(count, 3, heads, dim // heads)
    out = torch.zeros(count, heads, dim // heads, dtype=x.dtype)
    for head in range(heads):
        for i in range(count):
            logits = torch.stack([qkv[i, 0, head] @ qkv[j, 1, head] for j in range(count)]) * (dim // heads) ** -0.5
            if bias is not None:
                logits = logits + bias[head, i]
            shares = (logits - logits.max()).exp()
            shares = shares / shares.sum()
            for j in range(count):
                out[i, head] += shares[j] * qkv[j, 2, head]
    return linear(out.reshape(count, dim), part(state, "proj"))


def mlp(x: Tensor, state: State) -> Tensor:
    hidden = linear(x, part(state, "fc1"))
    return linear(hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2))), part(state, "fc2"))


def dstformer(pose: Tensor, state: State, heads: int) -> Tensor:
    """One clip (T, J, C) to (T, J, 3), from the text of the MotionBERT paper and code."""
    frames, joints = pose.shape[:2]

    def half(x: Tensor, block: State, axis: str) -> Tensor:
        normed = norm(x, part(block, f"norm1_{axis}"), 1e-6)
        mixed = torch.zeros_like(x)
        if axis == "s":
            for t in range(frames):
                mixed[t] = attention(normed[t], part(block, "attn_s"), heads)
        else:
            for j in range(joints):
                mixed[:, j] = attention(normed[:, j], part(block, "attn_t"), heads)
        x = x + mixed
        return x + mlp(norm(x, part(block, f"norm2_{axis}"), 1e-6), part(block, f"mlp_{axis}"))

    x = linear(pose, part(state, "joints_embed")) + state["pos_embed"] + state["temp_embed"][0, :frames]
    depth = 0
    while f"blocks_st.{depth}.norm1_s.weight" in state:
        block = part(state, f"blocks_st.{depth}")
        st = half(half(x, block, "s"), block, "t")
        block = part(state, f"blocks_ts.{depth}")
        ts = half(half(x, block, "t"), block, "s")
        if f"ts_attn.{depth}.weight" in state:
            logits = linear(torch.cat([st, ts], dim=-1), part(state, f"ts_attn.{depth}"))
            shares = logits.exp() / logits.exp().sum(-1, keepdim=True)
            x = shares[..., :1] * st + shares[..., 1:] * ts
        else:
            x = (st + ts) / 2
        depth += 1
    x = norm(x, part(state, "norm"), 1e-6)
    return linear(torch.tanh(linear(x, part(state, "pre_logits.fc"))), part(state, "head"))


def poseformer(pose: Tensor, state: State, heads: int) -> Tensor:
    """One window (F, J, C) to (1, J, 3), from the text of the PoseFormer paper and code."""

    def block(x: Tensor, weights: State) -> Tensor:
        x = x + attention(norm(x, part(weights, "norm1"), 1e-6), part(weights, "attn"), heads)
        return x + mlp(norm(x, part(weights, "norm2"), 1e-6), part(weights, "mlp"))

    tokens = []
    for frame in pose:
        x = linear(frame, part(state, "Spatial_patch_to_embedding")) + state["Spatial_pos_embed"][0]
        depth = 0
        while f"Spatial_blocks.{depth}.norm1.weight" in state:
            x = block(x, part(state, f"Spatial_blocks.{depth}"))
            depth += 1
        tokens.append(norm(x, part(state, "Spatial_norm"), 1e-6).flatten())
    x = torch.stack(tokens) + state["Temporal_pos_embed"][0]
    for level in range(depth):
        x = block(x, part(state, f"blocks.{level}"))
    x = norm(x, part(state, "Temporal_norm"), 1e-6)
    mean = sum(w * token for w, token in zip(state["weighted_mean.weight"].flatten(), x, strict=True))
    mean = mean + state["weighted_mean.bias"]
    return linear(norm(mean, part(state, "head.0"), 1e-5), part(state, "head.1")).reshape(1, -1, 3)


def scatter(module: torch.nn.Module, scale: float = 0.3) -> None:
    """Random values in every parameter and running statistic, the zeros and ones of an initialisation included."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                noise = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype) * scale
                tensor.copy_(noise.abs() + 0.5 if name.endswith("running_var") else tensor + noise)


def mamba(x: Tensor, state: State, kind: str, divide: bool) -> Tensor:
    """One sequence (L, C) through a Mamba block: kind "official", "v1" or "v2"."""
    inner, gate = linear(x, part(state, "in_proj")).chunk(2, dim=-1)

    def branch(sequence: Tensor, suffix: str, reverse: bool, rates: str) -> Tensor:
        """One direction; `reverse` turns the sequence round between convolution and scan (v1)."""
        weights = state[f"conv1d{suffix}.weight"][:, 0]
        taps = weights.shape[1]
        padded = torch.cat([sequence.new_zeros(taps - 1, sequence.shape[1]), sequence])
        rows = [(padded[t : t + taps] * weights.T).sum(0) for t in range(len(sequence))]
        mixed = torch.stack(rows) + state.get(f"conv1d{suffix}.bias", torch.zeros(()).to(x))
        mixed = mixed * torch.sigmoid(mixed)
        a = -state[rates].exp()
        memory = a.shape[1]
        projected = linear(mixed, part(state, f"x_proj{suffix}"))
        rank = projected.shape[1] - 2 * memory
        steps = linear(projected[:, :rank], part(state, f"dt_proj{suffix}")).exp().log1p()
        hidden, rows = torch.zeros_like(a), [torch.zeros(())] * len(sequence)
        for t in reversed(range(len(sequence))) if reverse else range(len(sequence)):
            b, c = projected[t, rank : rank + memory], projected[t, rank + memory :]
            hidden = (steps[t][:, None] * a).exp() * hidden + (steps[t] * mixed[t])[:, None] * b
            rows[t] = (hidden * c).sum(1) + state[f"D{suffix}"] * mixed[t]
        return torch.stack(rows)

    total = branch(inner, "", False, "A_log")
    if kind == "v1":
        total = total + branch(inner, "", True, "A_b_log")
    if kind == "v2":
        total = total + branch(inner.flip(0), "_b", False, "A_b_log").flip(0)
    if divide and kind != "official":
        total = total / 2
    out = linear(total * gate * torch.sigmoid(gate), part(state, "out_proj"))
    return out * state.get("gamma", torch.ones(()).to(x))
