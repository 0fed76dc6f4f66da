"""Nearest exemplars of embeddings: how a class is recognised of which one example is known."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from kinema.core.shapes import expect


def cosine_similarity(queries: Tensor, exemplars: Tensor) -> Tensor:
    """Cosines of the angles between all pairs, by one matrix product.

    Args:
        queries: (N, D).
        exemplars: (E, D).

    Returns:
        (N, E) in [-1, 1]; 0 where an embedding is zero.
    """
    sizes = expect(queries, "N D", "queries")
    expect(exemplars, "E D", "exemplars", D=sizes["D"])
    return F.normalize(queries, dim=1) @ F.normalize(exemplars, dim=1).mT


def nearest_labels(queries: Tensor, exemplars: Tensor, labels: Tensor) -> Tensor:
    """Class of the exemplar in the most similar direction.

    Args:
        queries: (N, D).
        exemplars: (E, D).
        labels: (E,) their classes.

    Returns:
        (N,) classes.

    Source: MotionBERT, train_action_1shot.py (validate).
    """
    return labels[cosine_similarity(queries, exemplars).argmax(1)]
