"""Nearest exemplars against a loop over pairs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kinema.core.retrieval import cosine_similarity, nearest_labels
from kinema.errors import DataError


def _embeddings(count: int, seed: int) -> Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))


def test_similarity_is_the_cosine_of_every_pair() -> None:
    queries, exemplars = _embeddings(5, 0), _embeddings(3, 1)
    expected = [[torch.dot(q, e) / q.norm() / e.norm() for e in exemplars] for q in queries]
    torch.testing.assert_close(cosine_similarity(queries, exemplars), torch.tensor(expected))


def test_nearest_is_by_direction_not_by_distance() -> None:
    exemplars = torch.tensor([[10.0, 0], [0, 0.1]])
    queries = torch.tensor([[0.2, 0.1], [1.0, 2.0], [0.0, 0.0]])
    assert nearest_labels(queries, exemplars, torch.tensor([7, 3])).tolist() == [7, 3, 7]


def test_embeddings_of_another_length_are_refused() -> None:
    with pytest.raises(DataError, match="exemplars"):
        cosine_similarity(torch.zeros(2, 3), torch.zeros(2, 4))
