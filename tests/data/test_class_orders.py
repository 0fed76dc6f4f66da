"""Orders by class: what they draw how often, from (seed, epoch) alone, and over ranks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kinema.data import orders
from kinema.errors import ConfigError

# A long tail: class 4 has two rows, class 5 one.
LABELS = np.random.default_rng(0).permutation(np.repeat([0, 1, 2, 3, 4, 5], [100, 50, 20, 10, 2, 1]))


def _make(name: str, batch: int = 12, seed: int = 3, labels: np.ndarray = LABELS, **options: object) -> orders.Order:
    return orders.make(name, len(labels), batch, seed=seed, labels=labels, options=options)


@pytest.mark.parametrize("name", ["balanced", "per_class"])
def test_an_epoch_depends_on_seed_and_epoch_alone(name: str) -> None:
    order = _make(name)
    epochs = [order.rows(epoch) for epoch in (0, 4, 1)]
    np.testing.assert_array_equal(order.rows(4), epochs[1])
    np.testing.assert_array_equal(_make(name).rows(1), epochs[2])
    assert not np.array_equal(epochs[0], epochs[2])
    assert not np.array_equal(_make(name, seed=4).rows(0), epochs[0])


def test_orders_never_change() -> None:
    """A published run must find the same order with another numpy: these numbers are written down."""
    labels = np.array([0, 0, 0, 0, 0, 1, 1, 2])
    assert _make("balanced", 4, 0, labels).rows(0).tolist() == [4, 1, 6, 7, 5, 0, 7, 5]
    assert _make("per_class", 4, 0, labels).rows(0).tolist() == [4, 7, 2, 7, 7, 5, 7, 6]


@pytest.mark.parametrize("power", [0, 0.5, 1])
def test_balanced_visits_classes_by_a_power_of_their_size(power: float) -> None:
    order = _make("balanced", power=power, num_samples=600)
    rows = order.rows(0)
    assert len(rows) == order.num_rows == 600
    counts = np.bincount(LABELS).astype(float)
    expected = counts**power / (counts**power).sum() * 600
    found = np.bincount(LABELS[rows], minlength=6)
    assert np.abs(found - expected).max() < 1 + 1e-9
    visits = np.bincount(rows, minlength=len(LABELS))
    for label in range(6):
        mine = visits[label == LABELS]
        assert mine.max() - mine.min() <= 1, "no row of a class is favoured"


def test_balanced_rounds_without_bias() -> None:
    """Over epochs a class gets its share on the mean, also where that is less than one visit."""
    order = _make("balanced", power=1.0, num_samples=30)
    found = np.mean([np.bincount(LABELS[order.rows(epoch)], minlength=6) for epoch in range(600)], axis=0)
    np.testing.assert_allclose(found, np.bincount(LABELS) / len(LABELS) * 30, atol=0.06)


def test_balanced_with_power_one_is_every_row_once() -> None:
    assert sorted(_make("balanced", power=1).rows(5).tolist()) == list(range(len(LABELS)))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(1, 6), st.integers(0, 100))
def test_every_batch_holds_so_many_of_each_of_its_classes(per_class: int, classes: int, seed: int) -> None:
    size = per_class * classes
    order = _make("per_class", size, seed, per_class=per_class)
    assert order.num_rows == len(LABELS) // size * size
    for picks in order:
        rows = picks[:, 2].numpy()
        found, counts = np.unique(LABELS[rows], return_counts=True)
        assert len(found) == classes
        assert (counts == per_class).all()
        for label in found:
            mine = rows[LABELS[rows] == label]
            if (label == LABELS).sum() >= per_class:
                assert len(set(mine.tolist())) == per_class, "a row comes twice only where a class is too small"


def test_rows_of_a_class_are_drawn_evenly() -> None:
    rows = np.concatenate([_make("per_class").rows(epoch) for epoch in range(60)])
    visits = np.bincount(rows, minlength=len(LABELS))
    for label in range(5):
        mine = visits[label == LABELS]
        assert abs(mine / mine.mean() - 1).max() < 0.8


def test_ranks_get_whole_classes() -> None:
    """A contrastive loss on one rank needs the second clip of a class on the same rank."""
    parts = [
        orders.make("per_class", len(LABELS), 12, seed=0, labels=LABELS, rank=rank, world_size=2) for rank in range(2)
    ]
    for first, second in zip(*parts, strict=True):
        for picks in (first, second):
            _, counts = np.unique(LABELS[picks[:, 2].numpy()], return_counts=True)
            assert counts.tolist() == [2, 2, 2]


def test_published_order_is_a_running_generator_replayed_from_the_first_epoch() -> None:
    expected = []
    random = np.random.RandomState(7)
    classes = list(dict.fromkeys(LABELS.tolist()))
    for _ in range(3):
        epoch = []
        for _ in range(len(LABELS) // 6):
            random.shuffle(classes)
            for label in classes[:3]:
                rows = np.flatnonzero(label == LABELS)
                epoch += random.choice(rows, size=2, replace=len(rows) < 2).tolist()
        expected.append(epoch)
    order = _make("per_class_legacy", 6, legacy_seed=7)
    for epoch in (0, 2, 1):
        order.set_epoch(epoch)
        assert torch.cat(list(order))[:, 2].tolist() == expected[epoch]


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no option 'tau'.*power, num_samples"):
        _make("balanced", tau=0.5)
    with pytest.raises(ConfigError, match=r"dataset\.order_options\.balanced\.power=0\.5"):
        _make("balanced", power=2)
    with pytest.raises(ConfigError, match=r"num_samples=183"):
        _make("balanced", num_samples=0)
    with pytest.raises(ConfigError, match=r"dataset\.unlabeled=drop"):
        _make("balanced", labels=np.array([0, -1, 1]))
    with pytest.raises(ConfigError, match=r"Use dataset\.order=seeded"):
        orders.make("per_class", 9, 4, seed=0)
    with pytest.raises(ConfigError, match=r"takes no options.*power"):
        orders.make("seeded", 9, 4, seed=0, options={"power": 1})
    with pytest.raises(ConfigError, match=r"dataset\.batch_size=12"):
        _make("per_class", 13)
    with pytest.raises(ConfigError, match=r"6\. Use dataset\.batch_size=12"):
        _make("per_class", 14)
    with pytest.raises(ConfigError, match=r"do not fill"):
        _make("per_class", 4, labels=np.array([0, 1, 1]))
    with pytest.raises(ConfigError, match="per_class_legacy"):
        orders.make("perclass", 9, 4, seed=0)
