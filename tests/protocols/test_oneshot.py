"""The one-shot protocol: nearest exemplars, whatever the order of clips, and data in which a query has none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from kinema.errors import DataError
from kinema.protocols.oneshot import OneShotProtocol
from tests.protocols.clip_store import batch, classes, windows

CLASSES = classes(120)
KNOWN = [0, 6, 12, 18, 24, 30]
# Exemplars stand between the queries, as the order of a file has them.
LABELS = [6, 0, 6, 12, 18, 18, 24, 30, 0, 12, 30, 24, 24]
SPLIT = ["query"] * len(LABELS)
for _label in KNOWN:
    SPLIT[LABELS.index(_label)] = "exemplar"


def _embeddings(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 8, generator=torch.Generator().manual_seed(seed))


def _slow(values: Tensor) -> list[bool]:
    right = []
    for row, label in enumerate(LABELS):
        if SPLIT[row] == "exemplar":
            continue
        similar = [
            (float(torch.nn.functional.cosine_similarity(values[row], values[other], dim=0)), LABELS[other])
            for other in range(len(LABELS))
            if SPLIT[other] == "exemplar"
        ]
        right.append(max(similar)[1] == label)
    return right


def test_accuracy_is_that_of_a_loop_over_pairs() -> None:
    values = _embeddings(len(LABELS))
    protocol = OneShotProtocol(windows(LABELS, split=SPLIT), classes=CLASSES)
    for rows in torch.from_numpy(np.random.default_rng(0).permutation(len(LABELS))).split(4):
        wanted = [*rows.tolist(), -1]
        protocol.update(torch.cat([values[rows], torch.full((1, 8), float("nan"))]), batch(wanted))
    found = protocol.compute()
    right = _slow(values)
    assert 0 < sum(right) < len(right), "neither all nor none, or this shows little"
    assert found.scalars["top1"] == pytest.approx(100 * np.mean(right))
    assert set(found.scalars) == set(OneShotProtocol.scalars)
    queries = [row for row, split in enumerate(SPLIT) if split == "query"]
    assert found.arrays["names"].tolist() == [f"clip{row:04d}" for row in queries]
    assert (found.arrays["predictions"] == found.arrays["labels"]).tolist() == right
    assert found.arrays["similarity"].shape == (len(queries), len(KNOWN))
    assert [row["class"] for row in found.tables["class"]] == [f"c{label}" for label in KNOWN]
    assert found.arrays["class_ids"].tolist() == KNOWN
    assert found.arrays["class_ids"][found.arrays["labels"]].tolist() == [LABELS[row] for row in queries]
    assert np.trace(found.arrays["confusion"]) == sum(right)
    assert found.tables["level"][0]["queries"] == len(queries)
    again = protocol.compute()
    assert again.scalars == found.scalars


def test_embeddings_of_test_clips_are_added_up() -> None:
    labels, split = [0, 1, 1], ["exemplar", "exemplar", "query"]
    values = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1], [1, 0.2], [-0.5, 0.2]])
    protocol = OneShotProtocol(windows(labels, split=split, views=2), classes=CLASSES)
    protocol.update(values, batch(range(6)))
    found = protocol.compute()
    # (1, 0.2) alone lies near class 0, the sum (0.5, 0.4) as well; half of it would not change the direction.
    np.testing.assert_allclose(
        found.arrays["similarity"], [[0.5 / np.hypot(0.5, 0.4), 0.4 / np.hypot(0.5, 0.4)]], atol=1e-6
    )
    assert found.scalars["top1"] == 0


def test_few_exemplars_have_no_top5_and_nothing_seen_gives_no_numbers() -> None:
    protocol = OneShotProtocol(windows([0, 1, 1], split=["exemplar", "exemplar", "query"]), classes=CLASSES)
    protocol.update(torch.zeros(2, 3), batch([-1, -1]))
    empty = protocol.compute()
    assert empty.scalars == {} and empty.arrays == {}
    protocol.update(torch.eye(3)[[0, 1, 1]], batch([0, 1, 2]))
    assert protocol.compute().scalars["top1"] == 100
    assert "top5" not in protocol.compute().scalars
    protocol.reset()
    protocol.update(torch.eye(3)[[0, 1, 0]], batch([0, 1, 2]))
    assert protocol.compute().scalars["top1"] == 0, "nothing is left of the evaluation before"


def test_ranks_add_up_their_embeddings() -> None:
    values = _embeddings(len(LABELS))
    alone = OneShotProtocol(windows(LABELS, split=SPLIT), classes=CLASSES)
    alone.update(values, batch(range(len(LABELS))))
    ranks = [OneShotProtocol(windows(LABELS, split=SPLIT), classes=CLASSES) for _ in range(2)]
    for rank, protocol in enumerate(ranks):
        protocol.update(values[rank::2], batch(range(rank, len(LABELS), 2)))
    ranks[0].sums += ranks[1].sums
    ranks[0].counts += ranks[1].counts
    assert ranks[0].compute().scalars == alone.compute().scalars


def test_data_without_exemplars_for_every_class_is_refused() -> None:
    with pytest.raises(DataError, match="No evaluated clip stands in split 'exemplar'"):
        OneShotProtocol(windows([0, 1]), classes=CLASSES)
    with pytest.raises(DataError, match="Query clip0002 is of class 'c2', which has no exemplar"):
        OneShotProtocol(windows([0, 1, 2], split=["exemplar", "exemplar", "query"]), classes=CLASSES)
    with pytest.raises(DataError, match="Exemplar clip0000 has no label"):
        OneShotProtocol(windows([-1, 1], split=["exemplar", "query"]), classes=CLASSES)


def test_queries_without_label_get_a_class_and_are_not_judged() -> None:
    protocol = OneShotProtocol(windows([0, 6, 6, -1], split=["exemplar"] * 2 + ["query"] * 2), classes=CLASSES)
    protocol.update(torch.eye(3)[[0, 1, 0, 1]], batch(range(4)))
    found = protocol.compute()
    assert found.scalars["top1"] == 0
    assert found.arrays["labels"].tolist() == [1, -1]
    assert found.arrays["predictions"].tolist() == [0, 1]
    assert found.tables["confused_pair"] == [{"truth": "c6", "predicted": "c0", "clips": 1, "of": 1}]
