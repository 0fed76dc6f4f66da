"""Orders: a function of (seed, epoch) alone, split over ranks, continued inside an epoch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kinema.data import orders
from kinema.errors import ConfigError


def _all(order: orders.Order) -> torch.Tensor:
    return torch.cat(list(order))


def test_an_epoch_visits_every_row_once_in_its_own_order() -> None:
    order = orders.make("seeded", 1000, 64, seed=3)
    epochs = []
    for epoch in (0, 1, 5):
        order.set_epoch(epoch)
        picks = _all(order)
        assert picks[:, 0].unique().tolist() == [epoch]
        assert picks[:, 1].tolist() == list(range(1000))
        assert sorted(picks[:, 2].tolist()) == list(range(1000))
        epochs.append(picks[:, 2])
    assert not torch.equal(epochs[0], epochs[1])
    order.set_epoch(1)
    assert torch.equal(_all(order)[:, 2], epochs[1]), "no state is carried from epoch to epoch"
    other = orders.make("seeded", 1000, 64, seed=4)
    assert not torch.equal(_all(other)[:, 2], epochs[0])


def test_seeded_order_never_changes() -> None:
    """A published run must find the same order with another numpy: these numbers are written down."""
    rows = orders.seeded(12, 0)
    assert rows(0).tolist() == [0, 2, 11, 9, 1, 8, 5, 4, 3, 10, 6, 7]
    assert rows(7).tolist() == [11, 2, 9, 0, 3, 10, 5, 1, 7, 4, 6, 8]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 50), st.integers(1, 12), st.integers(1, 4), st.booleans())
def test_ranks_share_every_batch_of_the_one_order(rows: int, batch: int, world: int, fill: bool) -> None:
    def order(rank: int, world: int) -> orders.Order:
        make = orders.seeded(rows, 0)
        return orders.Order(make, rows, batch, rank=rank, world_size=world, fill=fill)

    alone = list(order(0, 1))
    split = [list(order(rank, world)) for rank in range(world)]
    assert [len(part) for part in split] == [len(alone)] * world
    for number, whole in enumerate(alone):
        parts = [part[number] for part in split]
        real = torch.cat([part[part[:, 2] >= 0] for part in parts])
        whole = whole[whole[:, 2] >= 0]
        assert torch.equal(real[real[:, 1].argsort()], whole)
        if fill:
            assert len({len(part) for part in parts}) == 1
        else:
            assert all((part[:, 2] >= 0).all() or (len(part) == 1) for part in parts)
        assert all(len(part) for part in parts)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 50), st.integers(1, 12), st.integers(1, 4))
def test_share_makes_the_mean_over_ranks_the_mean_over_samples(rows: int, batch: int, world: int) -> None:
    values = np.random.default_rng(0).normal(size=rows)
    split = [orders.Order(orders.seeded(rows, 0), rows, batch, rank=rank, world_size=world) for rank in range(world)]
    alone = orders.Order(orders.seeded(rows, 0), rows, batch)
    for number, (whole, *parts) in enumerate(zip(alone, *split, strict=True)):
        weighted = [order.share(number) * values[part[:, 2]].mean() for order, part in zip(split, parts, strict=True)]
        np.testing.assert_allclose(np.mean(weighted), values[whole[:, 2]].mean(), atol=1e-12)


def test_evaluation_order_is_the_table_filled_up_with_minus_one() -> None:
    order = orders.evaluation(5, 4, rank=1, world_size=2)
    assert [picks[:, 2].tolist() for picks in order] == [[1, 3], [-1, -1]]


def test_legacy_order_is_a_running_generator_replayed_from_the_first_epoch() -> None:
    random = np.random.RandomState(orders.LEGACY_SEED)
    expected = [random.permutation(30) for _ in range(4)]
    order = orders.make("legacy", 30, 7, seed=99)
    for epoch in (0, 1, 3, 2):
        order.set_epoch(epoch)
        np.testing.assert_array_equal(_all(order)[:, 2], expected[epoch])


def test_begin_keeps_its_place_whatever_the_trainer_calls_the_epoch() -> None:
    whole = orders.make("seeded", 20, 4, seed=0)
    whole.set_epoch(2)
    expected = list(whole)
    order = orders.make("seeded", 20, 4, seed=0)
    order.begin(2, 3)
    assert len(order) == 5, "the trainer counts from the epoch's beginning"
    order.set_epoch(3)  # an epoch without batches
    order.set_epoch(4)
    assert torch.equal(_all(order), torch.cat(expected[3:]))
    assert torch.equal(_all(order), torch.cat(expected[3:])), "asking again does not go on"
    order.settle()
    order.set_epoch(5)
    assert (order.epoch, order.start) == (3, 0)


def test_unknown_order_and_empty_batch_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"dataset\.order=seeded"):
        orders.make("sedeed", 3, 1, seed=0)
    with pytest.raises(ConfigError, match=r"dataset\.batch_size=32"):
        orders.make("seeded", 3, 0, seed=0)


def test_an_evaluation_is_the_same_after_any_number_of_epochs() -> None:
    order = orders.evaluation(7, 3)
    first = torch.cat(list(order))
    order.set_epoch(5)
    assert torch.equal(torch.cat(list(order)), first)
