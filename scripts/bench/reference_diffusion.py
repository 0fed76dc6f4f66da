"""Motion prediction by diffusion in plain form: a pass per sample, a mask in time, a window after another."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# Noise in x (B, n, F) at timesteps (B,) for coefficients of the history (B, n, F), None = nobody sees them.
Network = Callable[[Tensor, Tensor, Tensor | None], Tensor]
# Subject and trial to root-relative positions (T, J, 3), the root's own path in its place.
Recordings = Mapping[str, Mapping[str, np.ndarray]]


def embed_time(network: Any, t: Tensor) -> Tensor:
    """Cosines and sines of every sample's timestep, through two layers: (B,) to (B, D)."""
    half = network[0].in_features // 2
    rates = torch.exp(-math.log(10000) * torch.arange(half, device=t.device) / half)
    angles = t[:, None].float() * rates
    embedded: Tensor = network(torch.cat([angles.cos(), angles.sin()], dim=1))
    return embedded


def attention(unit: Any, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Softmax attention with contiguous heads, from tokens that are normed: (B, n, D), (B, m, D) twice to (B, n, D)."""

    def heads(x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], unit.num_heads, -1)

    query, key, value = heads(unit.query(queries)), heads(unit.key(keys)), heads(unit.value(values))
    weights = torch.einsum("bnhd,bmhd->bnmh", query, key) / math.sqrt(query.shape[-1])
    mixed = torch.einsum("bnmh,bmhd->bnhd", weights.softmax(dim=2), value)
    return mixed.reshape(queries.shape)


def graph(unit: Any, x: Tensor) -> Tensor:
    """Graph convolution with a free adjacency: (B, nodes, in) to (B, nodes, out)."""
    return torch.matmul(unit.att, torch.matmul(x, unit.weight)) + unit.bias


def double_graph(unit: Any, x: Tensor) -> Tensor:
    """Graph convolutions over coefficients and, between two transpositions, over channels; a linear layer."""
    x = F.gelu(graph(unit.gcn1, x))
    x = F.gelu(graph(unit.gcn2, x.transpose(1, 2))).transpose(1, 2)
    linear: Tensor = unit.linear(x)
    return linear


def smrnet(model: Any, x: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
    """SMRNet: every sample encodes its own condition, every use of a normed tensor norms it, all layers computed."""
    tokens = embed_time(model.time_embed, t)[:, None]
    if condition is not None:
        encoder = model.obse_embed
        u = F.gelu(encoder.lin1(condition)) + encoder.sequence_embedding
        att = encoder.att
        u = att.norm2(u + attention(att, att.norm(u), att.norm(u), att.norm(u)))
        tokens = tokens + double_graph(encoder.lin2, u) + u
    left, explained = model.joint_embed(x), torch.zeros((), device=x.device)
    for block in model.temporal_decoder_blocks:
        cross = block.cross_attention
        read = attention(cross, cross.norm(left), cross.text_norm(tokens), cross.text_norm(tokens))
        seen = cross.norm2(left + read)
        mixed = double_graph(block.lin1, left) + double_graph(block.lin2, seen) + seen
        left = left - block.lin3(mixed)
        explained = explained + block.lin4(mixed)
    out: Tensor = model.out(explained)
    return out


def humanmac(model: Any, x: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
    """HumanMAC: every sample has a style of its own, made anew for every stylization."""
    style = embed_time(model.time_embed, t)
    if condition is not None:
        style = style + model.cond_embed(condition.flatten(1))

    def stylized(unit: Any, h: Tensor) -> Tensor:
        scale, shift = unit.emb_layers[1](F.silu(style))[:, None].chunk(2, dim=-1)
        out: Tensor = unit.out_layers[2](F.silu(unit.norm(h) * (1 + scale) + shift))
        return out

    x = model.joint_embed(x) + model.sequence_embedding[: x.shape[1]]
    skips: list[Tensor] = []
    blocks = model.temporal_decoder_blocks
    for level, block in enumerate(blocks):
        if level < len(blocks) // 2:
            skips.append(x)
        own = block.sa_block
        x = x + stylized(own.proj_out, attention(own, own.norm(x), own.norm(x), own.norm(x)))
        x = x + stylized(block.ffn.proj_out, block.ffn.linear2(F.gelu(block.ffn.linear1(x))))
        if level >= len(blocks) // 2:
            x = x + skips.pop()
    out: Tensor = model.out(x)
    return out


def transforms(frames: int) -> tuple[Tensor, Tensor]:
    """The DCT matrix of a window and its inverse, (N, N) float32."""
    places = (np.arange(frames) + 0.5) * math.pi / frames
    matrix = np.cos(np.arange(frames)[:, None] * places) * math.sqrt(2 / frames)
    matrix[0] /= math.sqrt(2)
    return torch.from_numpy(matrix).float(), torch.from_numpy(np.linalg.inv(matrix)).float()


def complete(x: Tensor, known: Tensor, mask: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
    """Known parts put into samples in time: two inverse transforms, a mask (N, 1 or F), and a transform."""
    dct, inverse = (table.to(x.device) for table in tables)
    kept = x.shape[-2]
    motion = mask * torch.matmul(inverse[:, :kept], known) + (1 - mask) * torch.matmul(inverse[:, :kept], x)
    return torch.matmul(dct[:kept], motion)


@torch.no_grad()
def ddim(
    network: Network,
    history: Tensor,
    frames: int,
    steps: Sequence[tuple[int, int]],
    alpha_hat: Tensor,
    start: Tensor,
    fresh: Tensor,
    *,
    conditional: bool = True,
) -> Tensor:
    """One sample of every window: a pass over all of them.

    Args:
        network: what tells the noise.
        history: (W, H, F).
        frames: N of a whole motion.
        steps: noise levels (from, to) in the order they are visited.
        alpha_hat: (T,).
        start: (W, n, F) standard normal.
        fresh: (S, W, n, F) standard normal, for the history at every step.
        conditional: whether the network sees the history.

    Returns:
        (W, N, F).
    """
    observed, kept = history.shape[1], start.shape[1]
    dct, inverse = (table.to(history.device) for table in transforms(frames))
    padded = history[:, [*range(observed), *[observed - 1] * (frames - observed)]]
    known = torch.matmul(dct[:kept], padded)
    mask = torch.zeros(frames, 1, device=history.device)
    mask[:observed] = 1
    x = start
    for number, (now, after) in enumerate(steps):
        t = torch.full((len(x),), now, device=x.device)
        noise = network(x, t, known if conditional else None)
        a, b = alpha_hat[now], alpha_hat[after]
        x0 = (x - torch.sqrt(1 - a) * noise) / torch.sqrt(a)
        x = torch.sqrt(b) * x0 + torch.sqrt(1 - b) * noise
        noisy = torch.sqrt(b) * known + torch.sqrt(1 - b) * fresh[number]
        x = complete(x, noisy, mask, (dct, inverse))
    return torch.matmul(inverse[:, :kept], x)


def prediction_errors(samples: Tensor, truth: Tensor, others: Tensor) -> Tensor:
    """The five numbers of one window from the difference of every sample to every future: apd, ade, fde, mmade, mmfde.

    Args:
        samples: (K, P, F).
        truth: (P, F).
        others: (G, P, F) futures of the group, the window's own among them.
    """
    diversity = torch.pdist(samples.flatten(1)).mean()
    gaps = torch.linalg.norm(samples[:, None] - torch.cat([others, truth[None]])[None], dim=3)  # (K, G + 1, P)
    mean, last = gaps.mean(2).amin(0), gaps[..., -1].amin(0)
    return torch.stack([diversity, mean[-1], last[-1], mean[:-1].mean(), last[:-1].mean()])


Draw = tuple[np.ndarray, tuple[float, float, float]]


def drawn_windows(
    recordings: Recordings, frames: int, batch: int, count: int, random: np.random.RandomState
) -> Iterator[Draw]:
    """Windows of a batch (B, N, J, 3), one draw and one slice each, and what the batch draws: an angle, two signs."""
    subjects = list(recordings)
    for _ in range(count):
        windows = []
        for _ in range(batch):
            trials = recordings[random.choice(subjects)]
            motion = trials[random.choice(list(trials))]
            start = random.randint(len(motion) - frames)
            windows.append(motion[start : start + frames][None])
        angle = random.uniform(0, 2 * np.pi) if random.uniform() > 0.5 else 0.0
        signs = [-1.0 if random.uniform() > 0.5 else 1.0 for _ in range(2)]
        yield np.concatenate(windows), (angle, signs[0], signs[1])


def training_batches(drawn: Iterable[Draw]) -> Iterator[Tensor]:
    """Features (B, N, F) of drawn batches, turned and mirrored as a whole."""
    for windows, (angle, *signs) in drawn:
        motion = windows.copy()
        if angle:
            cos, sin = math.cos(angle), math.sin(angle)
            motion[..., :2] = windows[..., :2].astype(np.float64) @ np.array([[cos, -sin], [sin, cos]])
        for axis, sign in enumerate(signs):
            if sign < 0:
                motion[..., axis] *= -1
        yield torch.from_numpy(motion[..., 1:, :].reshape(*motion.shape[:2], -1))
