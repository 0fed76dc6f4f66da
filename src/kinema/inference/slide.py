"""Predictions for whole videos: windows or clips of a model's own length, joined, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from kinema.core.shapes import expect
from kinema.core.spec import Signature
from kinema.errors import ConfigError

Join = Literal["first", "mean", "blend", "centre"]


def pad_edges(pose: Tensor, context: tuple[int, int]) -> Tensor:
    """Repeat the first and last frame of a video, so that a model with this context predicts every frame.

    Args:
        pose: (B, L, ...).
        context: frames to add before and after, `signature.context`.

    Returns:
        (B, before + L + after, ...).
    """
    before, after = context
    frames = torch.arange(-before, pose.shape[1] + after, device=pose.device).clamp_(0, pose.shape[1] - 1)
    return pose.index_select(1, frames)


@torch.no_grad()
def slide(
    model: nn.Module,
    pose: Tensor,
    *,
    predict: Callable[[Tensor], Tensor] | None = None,
    overlap: int = 0,
    join: Join = "first",
    tail: Literal["short", "shift"] = "short",
    chunk: int = 4096,
) -> Tensor:
    """Predict every frame of a video of any length.

    A window model (context other than (0, 0)) gives each frame from its own window, by the model's `slide` where it
    has one. A clip model (context (0, 0), one output per input frame) sees the video in clips of `signature.frames`;
    a video shorter than that is one short clip, or is filled up by its last frame where the model takes only full
    clips. A model whose context is (0, 0) and whose length is free (`frames_rule` "any") sees it whole. A causal model
    with a state (`advance`) reads it from the first frame to the last, whatever its clips are in training.

    Args:
        model: in evaluation mode, with a `signature`.
        pose: (B, before + L + after, J, C), padded by the caller (`pad_edges`) by the model's context.
        predict: replaces `model` on windows and clips of its length, for example to average over flips inside.
        overlap: frames that neighbouring clips share.
        join: which prediction a shared frame gets: of the "first" clip, the "mean" of all, a "blend" whose weights
            fall linearly towards the ends of a clip, or the one of the clip in whose "centre" it lies, so that every
            other clip's frames are only context.
        tail: the last clip of a video is "short", or "shift"ed back to full length, which makes more shared frames;
            models that take only full clips always shift.
        chunk: input frames in one pass, all batch items together; bounds the memory, not the result.

    Returns:
        (B, L, J', 3).
    """
    signature: Signature = model.signature  # type: ignore[assignment]
    expect(pose, "B T J C", "pose", J=signature.joints, C=signature.in_channels)
    length = pose.shape[1] - sum(signature.context)
    if length < 1:
        raise ConfigError(
            f"A video of {pose.shape[1]} frames is shorter than the model's context {signature.context}. "
            f"Pad it with kinema.inference.slide.pad_edges(pose, model.signature.context)."
        )
    if overlap or join != "first" or tail != "short":
        _check_options(model, overlap, join, tail)
    if predict is None and carries_state(model):
        return _carried(model, pose, chunk)
    whole = getattr(model, "slide", None) if predict is None else None
    if whole is None and signature.frames_rule == "any":
        whole = predict or model
    if whole is not None:
        return _stretches(whole, pose, signature, length, chunk)
    return _clips(predict or model, pose, signature, length, overlap, join, tail, chunk)


@dataclass(frozen=True)
class Block:
    """A part of a video that is predicted by itself.

    Attributes:
        first, end: frames it gives.
        before, after: frames around these that it sees too, beside the context of the model.
    """

    first: int
    end: int
    before: int = 0
    after: int = 0


def blocks(model: nn.Module, length: int, *, overlap: int = 0, chunk: int = 4096) -> Iterator[Block]:
    """Cut a video so that `slide` on one block after the other gives what `slide` on the whole gives.

    Blocks end where clips or passes end, so that no clip is cut and every pass holds what it would hold; only clips
    that overlap meet other neighbours in a pass. A causal model must be handed its state from block to block
    (`stream.CausalStream.advance`). A model of free length without context sees the whole video: one block.

    Args:
        model: with a `signature`.
        length: frames of the video.
        overlap: as given to `slide`; `tail` is "short".
        chunk: as given to `slide`, for one video at a time; a block has hardly more frames.
    """
    signature: Signature = model.signature  # type: ignore[assignment]
    context, full = sum(signature.context), signature.frames
    if overlap:
        _check_options(model, overlap, "first", "short")
    smallest, before, after = 1, 0, 0
    if carries_state(model):
        size = max(1, chunk)
    elif hasattr(model, "slide") or signature.frames_rule == "any":
        size = max(full, chunk - context) if context else length
    else:
        smallest = full - context  # a last block shorter than a clip would be cut otherwise
        step = smallest - overlap
        size = step * max(1, chunk // full)
        if overlap:  # clips that share frames with this block's, and are whole
            before, after = -(-full // step) * step, full
    first = 0
    while first < length:
        end = first + size if length - first - size >= smallest else length
        yield Block(first, end, min(before, first), min(after, length - end))
        first = end


def carries_state(model: nn.Module) -> bool:
    """Whether a model is causal with a state that stands for all frames before (`start`, `step` and `advance`)."""
    return bool(getattr(model, "causal", False)) and hasattr(model, "advance")


def _carried(model: Any, pose: Tensor, chunk: int) -> Tensor:
    """A causal model from the first frame to the last, its state carried from stretch to stretch."""
    state, parts = model.start(pose.shape[0]), []
    for part in pose.split(max(1, chunk // pose.shape[0]), dim=1):
        out, state = model.advance(part, state)
        parts.append(out)
    return torch.cat(parts, dim=1)


def _check_options(model: nn.Module, overlap: int, join: str, tail: str) -> None:
    signature: Signature = model.signature  # type: ignore[assignment]
    if carries_state(model) or signature.context != (0, 0) or signature.frames_rule == "any":
        raise ConfigError("overlap, join and tail are for models that see videos in clips. Leave them out.")
    if not 0 <= overlap < signature.frames:
        raise ConfigError(f"overlap={overlap} must be below the {signature.frames} frames of a clip. Use overlap=0.")
    if join not in get_args(Join) or tail not in ("short", "shift"):
        raise ConfigError(f"join={join}, tail={tail}: use one of {', '.join(get_args(Join))}; short or shift.")


def _stretches(
    predict: Callable[[Tensor], Tensor], pose: Tensor, signature: Signature, length: int, chunk: int
) -> Tensor:
    """Stretches of the video with the context they need, each predicted at once."""
    context = sum(signature.context)
    if context == 0:  # a cut would change what the model sees; short videos are filled up
        return predict(pad_edges(pose, (0, max(0, signature.frames - length))))[:, :length]
    # Never less than one window of outputs: the context is computed anew in every stretch.
    step = max(signature.frames, chunk // pose.shape[0] - context)
    parts = [predict(pose[:, start : start + step + context]) for start in range(0, length, step)]
    return torch.cat(parts, dim=1)


def _clips(
    predict: Callable[[Tensor], Tensor],
    pose: Tensor,
    signature: Signature,
    length: int,
    overlap: int,
    join: str,
    tail: str,
    chunk: int,
) -> Tensor:
    """Windows or clips of the model's length, weighted and added up."""
    batch, total = pose.shape[:2]
    context = sum(signature.context)
    full = signature.frames
    targets = full - context
    if total < full and signature.frames_rule == "exact":
        pose = pad_edges(pose, (0, full - total))
        total = full
    clips = _clip_table(total - context, targets, overlap, short=tail == "short" and signature.frames_rule == "max")
    weights = _weights(clips, total - context, join)
    clips, weights = clips.to(pose.device), weights.to(pose.device)
    at_once = max(1, chunk // (batch * full))
    out: Tensor | None = None
    # Clips of one length go together; only the last may be shorter.
    groups = [(clips[clips[:, 1] == n], weights[clips[:, 1] == n], int(n)) for n in clips[:, 1].unique()]
    for table, shares, targets_here in groups:
        inputs = torch.arange(targets_here + context, device=pose.device)
        for start in range(0, len(table), at_once):
            first = table[start : start + at_once, 0]
            frames = first[:, None] + inputs  # (k, T)
            windows = pose[:, frames].flatten(0, 1)
            result = predict(windows).unflatten(0, (batch, -1))  # (B, k, targets, J', 3)
            share = shares[start : start + at_once, :targets_here, None, None]
            if out is None:
                kind = torch.promote_types(result.dtype, torch.float32)
                out = result.new_zeros(batch, total - context, *result.shape[3:], dtype=kind)
            place = (first[:, None] + inputs[:targets_here]).flatten()
            out.index_add_(1, place, (result * share.to(out)).flatten(1, 2))
    assert out is not None  # a table has at least one clip
    return out[:, :length]


def _clip_table(length: int, targets: int, overlap: int, short: bool) -> Tensor:
    """First frame and number of frames of every clip, (K, 2) int64, covering `length` frames."""
    step = targets - overlap
    firsts = list(range(0, max(length - targets, 0) + 1, step))
    table = [(first, min(targets, length)) for first in firsts]
    if firsts[-1] + targets < length:
        last = firsts[-1] + step if short else length - targets
        table.append((last, length - last))
    return torch.tensor(table)


def _weights(clips: Tensor, length: int, join: str) -> Tensor:
    """Share of each clip in each of its frames, (K, targets) float64; the shares of a frame add up to 1."""
    first, size = clips[:, :1], clips[:, 1:]
    targets = int(size.max())
    inside = torch.arange(targets)
    exists = inside < size
    frames = (first + inside).clamp(max=length - 1)
    rank = torch.ones(frames.shape, dtype=torch.float64)
    if join in ("blend", "centre"):
        # Distance to the nearest cut; the ends of the video are none.
        to_start = torch.where(first == 0, targets, inside + 1)
        to_end = torch.where(first + size == length, targets, size - inside)
        rank = torch.minimum(to_start, to_end).double()
    rank = rank * exists
    empty = torch.zeros(length, dtype=torch.float64)
    if join in ("mean", "blend"):
        return rank / empty.index_add(0, frames.flatten(), rank.flatten())[frames]
    # One owner per frame: the clip of the highest rank, the earliest among equals.
    best = empty.scatter_reduce(0, frames.flatten(), rank.flatten(), "amax")
    number = torch.arange(len(clips))[:, None].expand_as(frames)
    number = torch.where(exists & (rank == best[frames]), number, len(clips))
    owner = torch.full((length,), len(clips)).scatter_reduce(0, frames.flatten(), number.flatten(), "amin")
    return ((owner[frames] == number) & exists).double()
