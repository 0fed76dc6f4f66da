"""Losses of classifiers, and what long-tailed class counts do to them.

Targets are class ids (B,) or, after mixing samples, probabilities (B, K).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F


def cross_entropy(
    logits: Tensor, target: Tensor, *, label_smoothing: float = 0.0, weight: Tensor | None = None
) -> Tensor:
    """Mean cross-entropy; with class weights the weighted mean, for ids and for probabilities alike.

    Args:
        logits: (B, K), log-probabilities too.
        target: (B,) int64 ids or (B, K) probabilities.
        label_smoothing: share of every target that is spread over all classes.
        weight: (K,) of the classes.
    """
    if weight is None:
        return F.cross_entropy(logits, target, label_smoothing=label_smoothing)
    return _weighted_mean(-F.log_softmax(logits, dim=-1), _soft(target, logits, label_smoothing), weight)


def focal(
    logits: Tensor,
    target: Tensor,
    *,
    gamma: float = 2.0,
    label_smoothing: float = 0.0,
    weight: Tensor | None = None,
) -> Tensor:
    """Cross-entropy in which what is already known counts less, by (1 - p)^gamma.

    Args:
        logits: (B, K).
        target: (B,) int64 ids or (B, K) probabilities.
        gamma: 0 gives `cross_entropy`.
        label_smoothing: as in `cross_entropy`.
        weight: (K,) of the classes; with `class_balanced_weights` the class-balanced focal loss.

    Source: Lin et al. 2017, equation 4, for a softmax instead of sigmoids.
    """
    log_probs = F.log_softmax(logits, dim=-1)
    # log(1 - p) of a sure class is -inf, and its slope not finite.
    doubt = (-torch.expm1(log_probs)).clamp_min(torch.finfo(logits.dtype).eps)
    return _weighted_mean(-(doubt**gamma) * log_probs, _soft(target, logits, label_smoothing), weight)


def class_balanced_weights(counts: Tensor, beta: float = 0.999) -> Tensor:
    """Weights of classes by the inverse of their effective number of samples.

    Args:
        counts: (K,) training samples of each class.
        beta: 0 gives equal weights, 1 the inverse of the counts.

    Returns:
        (K,) float32 with mean 1 over the classes that have samples; 0 for the others.

    Source: Cui et al. 2019, equation 4.
    """
    present = counts > 0
    number = torch.where(present, counts, 1).to(torch.float64)
    effective = number if beta == 1 else (1 - beta**number) / (1 - beta)
    weights = torch.where(present, 1 / effective, 0)
    return (weights * present.sum() / weights.sum()).to(torch.float32)


def logit_adjusted(logits: Tensor, counts: Tensor, tau: float = 1.0) -> Tensor:
    """Logits for the training loss with the log of the class frequencies added; evaluate with the plain ones.

    Args:
        logits: (B, K).
        counts: (K,) training samples of each class; a class without any counts as if it had one.
        tau: strength; 0 changes nothing.

    Source: Menon et al. 2021, equation 10.
    """
    number = counts.to(logits.device, logits.dtype).clamp_min(1)
    return logits + tau * (number / number.sum()).log()


def group_log_probs(log_probs: Tensor, groups: Sequence[int] | Tensor) -> Tensor:
    """Log-probabilities of groups of classes: the log of the sum over their members.

    Args:
        log_probs: (..., K).
        groups: (K,) group of each class, 0 to G - 1, none empty; plain numbers spare a GPU a wait.

    Returns:
        (..., G).
    """
    members = _members(_plain(groups), log_probs.device)
    return log_probs[..., None, :].masked_fill(~members, -torch.inf).logsumexp(-1)


def group_target(target: Tensor, groups: Sequence[int] | Tensor) -> Tensor:
    """Targets of the groups of classes.

    Args:
        target: (B,) int64 ids or (B, K) probabilities.
        groups: as in `group_log_probs`.

    Returns:
        (B,) int64 or (B, G).
    """
    members = _members(_plain(groups), target.device)
    if target.is_floating_point():
        return target @ members.to(target).mT
    return members.int().argmax(0)[target]


@lru_cache
def _members(groups: tuple[int, ...], device: torch.device) -> Tensor:
    """(G, K) bool, kept so that no step copies it again."""
    # A tensor born in inference mode could not be saved for a later backward pass.
    with torch.inference_mode(False):
        return torch.tensor([[group == g for group in groups] for g in range(max(groups) + 1)], device=device)


def _plain(groups: Sequence[int] | Tensor) -> tuple[int, ...]:
    return tuple(groups.tolist() if isinstance(groups, Tensor) else groups)


def _soft(target: Tensor, logits: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Targets as probabilities (B, K) in the type of the logits.

    Args:
        target: (B,) int64 ids or (B, K) probabilities.
        logits: (B, K), for the number of classes.
        label_smoothing: share that is spread over all classes.
    """
    classes = logits.shape[-1]
    probs = target if target.is_floating_point() else F.one_hot(target, classes)
    return probs.to(logits.dtype) * (1 - label_smoothing) + label_smoothing / classes


def _weighted_mean(losses: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    share = target if weight is None else target * weight.to(losses)
    return (share * losses).sum() / share.sum()
