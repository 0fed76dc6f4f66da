"""The published forward passes in plain eager form: explicit softmax attention with permutes, strided convolutions.

Each is a function of one of our models, of which only the parameters are used: so both forms have the same weights, and
gradients can be compared name by name.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def dstformer(model: Any, pose: Tensor) -> Tensor:
    """DSTformer as MotionBERT computes it: frames folded into the batch axis, the streams concatenated and mixed.

    Args:
        model: a DSTformer.
        pose: (B, T, J, C).

    Returns:
        (B, T, J, 3).
    """
    return _linear(dstformer_features(model, pose), model.head)


def dstformer_features(model: Any, pose: Tensor) -> Tensor:
    """The same without the last layer: (B, T, J, C) to (B, T, J, R)."""
    batch, frames, joints, _ = pose.shape
    x = _linear(pose.reshape(batch * frames, joints, -1), model.joints_embed) + model.pos_embed
    x = x.reshape(batch, frames, joints, -1) + model.temp_embed[:, :frames]
    x = x.reshape(batch * frames, joints, -1)
    for block_st, block_ts, mix in zip(model.blocks_st, model.blocks_ts, model.ts_attn, strict=True):
        st = _temporal_branch(block_st, _spatial_branch(block_st, x), frames)
        ts = _spatial_branch(block_ts, _temporal_branch(block_ts, x, frames))
        shares = _linear(torch.cat([st, ts], dim=-1), mix).softmax(dim=-1)
        x = st * shares[:, :, 0:1] + ts * shares[:, :, 1:2]
    x = _norm(x, model.norm).reshape(batch, frames, joints, -1)
    return torch.tanh(_linear(x, model.pre_logits.fc))


def _spatial_branch(block: Any, x: Tensor) -> Tensor:
    x = x + _attention(block.attn_s, _norm(x, block.norm1_s))
    return x + _mlp(block.mlp_s, _norm(x, block.norm2_s))


def _temporal_branch(block: Any, x: Tensor, frames: int) -> Tensor:
    x = x + _temporal_attention(block.attn_t, _norm(x, block.norm1_t), frames)
    return x + _mlp(block.mlp_t, _norm(x, block.norm2_t))


def poseformer(model: Any, pose: Tensor) -> Tensor:
    """PoseFormer V1 on windows: every window carries all its frames through the spatial stage.

    Args:
        model: a PoseFormer; in evaluation mode, or with a drop path of 0.
        pose: (B, F, J, C).

    Returns:
        (B, 1, J, 3).
    """
    batch, _, joints, _ = pose.shape
    x = poseformer_spatial(model, pose) + model.Temporal_pos_embed
    for block in model.blocks:
        x = _block(block, x)
    x = _norm(x, model.Temporal_norm)
    x = F.conv1d(x, model.weighted_mean.weight, model.weighted_mean.bias)
    return _linear(_norm(x, model.head[0]), model.head[1]).reshape(batch, 1, joints, 3)


def poseformer_spatial(model: Any, pose: Tensor) -> Tensor:
    """The spatial stage of PoseFormer V1 inside windows: (B, F, J, C) to (B, F, J * dim)."""
    batch, frames, joints, channels = pose.shape
    x = pose.permute(0, 3, 1, 2)
    x = x.permute(0, 2, 3, 1).reshape(batch * frames, joints, channels)
    x = _linear(x, model.Spatial_patch_to_embedding) + model.Spatial_pos_embed
    for block in model.Spatial_blocks:
        x = _block(block, x)
    return _norm(x, model.Spatial_norm).reshape(batch, frames, -1)


def poseformer_video(model: Any, pose: Tensor) -> Tensor:
    """One window per frame of an edge-padded video, all windows as one batch: (1, L + F - 1, J, C) to (1, L, J, 3)."""
    return poseformer(model, windows_of(pose, model.signature.frames)).transpose(0, 1)


def poseformerv2(model: Any, pose: Tensor) -> Tensor:
    """PoseFormer V2 on windows: transforms by the FFT, the kept frames of every window through the spatial stage.

    Args:
        model: a PoseFormerV2; in evaluation mode, or with a drop path of 0.
        pose: (B, F, J, C).

    Returns:
        (B, 1, J, 3).
    """
    batch, frames, joints, channels = pose.shape
    kept, coeffs = model.Temporal_pos_embed.shape[1], model.Temporal_pos_embed_.shape[1]
    centre = (frames - 1) // 2
    x = pose[:, centre - kept // 2 : centre + kept // 2 + 1].reshape(batch * kept, joints, channels)
    x = _linear(x, model.Joint_embedding) + model.Spatial_pos_embed
    for block in model.Spatial_blocks:
        x = _block(block, x)
    x = _norm(x, model.Spatial_norm).reshape(batch, kept, -1) + model.Temporal_pos_embed
    spectrum = _dct(pose.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)[:, :coeffs].reshape(batch, coeffs, -1)
    x = torch.cat([_linear(spectrum, model.Freq_embedding) + model.Temporal_pos_embed_, x], dim=1)
    half = x.shape[1] // 2
    for block in model.blocks:
        x = x + _attention(block.attn, _norm(x, block.norm1))
        first, rest = x[:, :half], x[:, half:]
        first = first + _mlp(block.mlp1, _norm(first, block.norm2))
        turned = _dct(_norm(rest, block.norm3).permute(0, 2, 1)).permute(0, 2, 1)
        rest = rest + _inverse_dct(_mlp(block.mlp2, turned).permute(0, 2, 1)).permute(0, 2, 1)
        x = torch.cat([first, rest], dim=1)
    x = _norm(x, model.Temporal_norm)
    means = [
        F.conv1d(part, layer.weight, layer.bias)
        for part, layer in ((x[:, :coeffs], model.weighted_mean), (x[:, coeffs:], model.weighted_mean_))
    ]
    return _linear(_norm(torch.cat(means, dim=-1), model.head[0]), model.head[1]).reshape(batch, 1, joints, 3)


def poseformerv2_video(model: Any, pose: Tensor) -> Tensor:
    """One window per frame of an edge-padded video, all windows as one batch: (1, L + F - 1, J, C) to (1, L, J, 3)."""
    return poseformerv2(model, windows_of(pose, model.signature.frames)).transpose(0, 1)


def _dct(x: Tensor) -> Tensor:
    """Unnormalised DCT-II of the last axis, by an FFT of the samples in the order even, then odd backwards."""
    count = x.shape[-1]
    spectrum = torch.fft.fft(torch.cat([x[..., ::2], x[..., 1::2].flip(-1)], dim=-1))
    return 2 * (spectrum * torch.exp(-1j * _phase(x, count))).real


def _inverse_dct(x: Tensor) -> Tensor:
    count = x.shape[-1]
    turned = torch.cat([torch.zeros_like(x[..., :1]), x.flip(-1)[..., :-1]], dim=-1)  # X_N-k
    order = torch.fft.ifft((x - 1j * turned) / 2 * torch.exp(1j * _phase(x, count))).real
    out = torch.empty_like(x)
    out[..., ::2], out[..., 1::2] = order[..., : (count + 1) // 2], order[..., (count + 1) // 2 :].flip(-1)
    return out


def _phase(x: Tensor, count: int) -> Tensor:
    return math.pi / (2 * count) * torch.arange(count, dtype=x.dtype, device=x.device)


def videopose3d_strided(model: Any, windows: Tensor) -> Tensor:
    """`TemporalModelOptimized1f` on windows of exactly one receptive field: (B, R, J, C) to (B, 1, J, 3)."""
    x = windows.flatten(2).permute(0, 2, 1)
    x = _activate(model, F.conv1d(x, model.expand_conv.weight, stride=model.expand_conv.width), model.expand_bn)
    for level, (width, _) in enumerate(model.levels):
        residual = x[:, :, width // 2 :: width]
        x = F.conv1d(x, model.layers_conv[2 * level].weight, stride=width)
        x = _activate(model, x, model.layers_bn[2 * level])
        x = F.conv1d(x, model.layers_conv[2 * level + 1].weight)
        x = residual + _activate(model, x, model.layers_bn[2 * level + 1])
    return _shrink(model, x)


def videopose3d_dilated(model: Any, stretch: Tensor) -> Tensor:
    """`TemporalModel` on a stretch: (B, T, J, C) to (B, T - R + 1, J, 3)."""
    x = stretch.flatten(2).permute(0, 2, 1)
    x = _activate(model, F.conv1d(x, model.expand_conv.weight), model.expand_bn)
    for level, (width, dilation) in enumerate(model.levels):
        pad = (width - 1) * dilation // 2
        residual = x[:, :, pad : x.shape[2] - pad]
        x = F.conv1d(x, model.layers_conv[2 * level].weight, dilation=dilation)
        x = _activate(model, x, model.layers_bn[2 * level])
        x = F.conv1d(x, model.layers_conv[2 * level + 1].weight)
        x = residual + _activate(model, x, model.layers_bn[2 * level + 1])
    return _shrink(model, x)


def windows_of(pose: Tensor, frames: int) -> Tensor:
    """Every window of a padded video as a batch of copies: (1, L + F - 1, J, C) to (L, F, J, C)."""
    return torch.stack([pose[0, start : start + frames] for start in range(pose.shape[1] - frames + 1)])


def _shrink(model: Any, x: Tensor) -> Tensor:
    x = F.conv1d(x, model.shrink.weight, model.shrink.bias).permute(0, 2, 1)
    return x.reshape(x.shape[0], x.shape[1], -1, 3)


def _activate(model: Any, x: Tensor, norm: Any) -> Tensor:
    return F.dropout(F.relu(norm(x), inplace=True), model.dropout.p, model.training)


def _block(block: Any, x: Tensor) -> Tensor:
    x = x + _attention(block.attn, _norm(x, block.norm1))
    return x + _mlp(block.mlp, _norm(x, block.norm2))


def _attention(attention: Any, x: Tensor) -> Tensor:
    """Softmax attention over the middle axis of (B, N, C), weights kept as a (B, H, N, N) tensor."""
    batch, count, dim = x.shape
    heads = attention.num_heads
    qkv = _linear(x, attention.qkv).reshape(batch, count, 3, heads, dim // heads).permute(2, 0, 3, 1, 4)
    query, key, value = qkv[0], qkv[1], qkv[2]
    weights = ((query @ key.transpose(-2, -1)) * (dim // heads) ** -0.5).softmax(dim=-1)
    return _linear((weights @ value).transpose(1, 2).reshape(batch, count, dim), attention.proj)


def _temporal_attention(attention: Any, x: Tensor, frames: int) -> Tensor:
    """Softmax attention over the frames of each joint of (B * T, J, C), by permutes of the qkv product."""
    rows, joints, dim = x.shape
    heads = attention.num_heads
    qkv = _linear(x, attention.qkv).reshape(rows, joints, 3, heads, dim // heads).permute(2, 0, 3, 1, 4)

    def by_joint(part: Tensor) -> Tensor:  # (B, H, J, T, d)
        return part.reshape(-1, frames, heads, joints, dim // heads).permute(0, 2, 3, 1, 4)

    query, key, value = by_joint(qkv[0]), by_joint(qkv[1]), by_joint(qkv[2])
    weights = ((query @ key.transpose(-2, -1)) * (dim // heads) ** -0.5).softmax(dim=-1)
    mixed = (weights @ value).permute(0, 3, 2, 1, 4).reshape(rows, joints, dim)
    return _linear(mixed, attention.proj)


def _mlp(mlp: Any, x: Tensor) -> Tensor:
    return _linear(F.gelu(_linear(x, mlp.fc1)), mlp.fc2)


def _linear(x: Tensor, layer: Any) -> Tensor:
    return F.linear(x, layer.weight, layer.bias)


def _norm(x: Tensor, norm: Any) -> Tensor:
    return F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
