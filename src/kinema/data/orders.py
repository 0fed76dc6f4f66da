"""Orders: in which order an epoch visits the rows of Windows, split over ranks, continued after an interruption."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from kinema.data import class_orders
from kinema.errors import ConfigError

# From the epoch's number to the rows it visits.
Rows = Callable[[int], np.ndarray]


def sequential(num_rows: int, seed: int) -> Rows:
    """Every row once, in the order of the table."""
    return lambda epoch: np.arange(num_rows)


def seeded(num_rows: int, seed: int) -> Rows:
    """Every row once, shuffled as a function of (seed, epoch) alone."""

    def rows(epoch: int) -> np.ndarray:
        return np.argsort(class_orders.random_bits(seed, epoch)(num_rows), kind="stable")

    return rows


class _Legacy:
    def __init__(self, num_rows: int, seed: int) -> None:
        self.num_rows, self.seed = num_rows, seed
        self.epoch = -1

    def __call__(self, epoch: int) -> np.ndarray:
        if epoch < self.epoch or self.epoch < 0:
            self.epoch, self.random = -1, np.random.RandomState(self.seed)
        while self.epoch < epoch:
            self.rows = self.random.permutation(self.num_rows)
            self.epoch += 1
        return self.rows


def legacy(num_rows: int, seed: int) -> Rows:
    """The order of VideoPose3D's generator: one permutation per epoch from a running numpy RandomState.

    A resumed run replays the generator from the first epoch.
    """
    return _Legacy(num_rows, seed)


ORDERS: dict[str, Callable[[int, int], Rows]] = {"seeded": seeded, "legacy": legacy, "sequential": sequential}

# VideoPose3D's ChunkedGenerator has this seed unless told otherwise; the one of unlabelled data is told the second.
LEGACY_SEED, LEGACY_SEED_UNLABELED = 1234, 4321


class Order(Sampler[Tensor]):
    """Sampler that yields the picks of one rank's share of each batch: (b, 3) int64 = epoch, position, row.

    A batch is `batch_size` neighbouring positions of the epoch's one global order; a rank takes every
    `world_size`-th of them. So what a sample is and draws does not depend on the number of devices.

    - Training (`fill` false): ranks may get unequal numbers of rows in the last batch; one that gets none gets a
      filler, row -1. `share` is the factor that makes the mean over ranks the mean over samples.
    - Evaluation (`fill` true): every rank gets the same number of rows in every batch, filled up with row -1.

    Args:
        rows: from the epoch to the rows visited.
        num_rows: how many these are.
        batch_size: of the global batch.
        rank, world_size: this process among all.
        fill: see above.
    """

    def __init__(
        self, rows: Rows, num_rows: int, batch_size: int, *, rank: int = 0, world_size: int = 1, fill: bool = False
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"A batch of {batch_size} samples is none. Use dataset.batch_size=32.")
        self.rows = rows
        self.num_rows = num_rows
        self.batch_size = batch_size
        self.rank, self.world_size = rank, world_size
        self.fill = fill
        self.epoch = 0
        self.start = 0
        # This order's epoch minus the trainer's; None from `begin` until a batch was trained.
        self._ahead: int | None = 0
        self._told = 0

    def __len__(self) -> int:
        """Batches of a whole epoch, also when this one begins in its middle."""
        return -(-self.num_rows // self.batch_size)

    def begin(self, epoch: int, start: int = 0) -> None:
        """Begin at a batch inside an epoch, whatever number the trainer gives to the epoch in which it trains next.

        The trainer counts an epoch that `max_steps` cut short as finished, and after a resume at an epoch's end runs
        one without batches: neither may lose or repeat a sample.
        """
        self.epoch, self.start = epoch, start
        self._ahead = None

    def settle(self) -> None:
        """Note that a batch was trained: from here on every new epoch of the trainer is a new one here."""
        if self._ahead is None:
            self._ahead = self.epoch - self._told

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch by the trainer's count; called by Lightning before every epoch."""
        self._told = epoch
        if self._ahead is not None and epoch + self._ahead != self.epoch:
            self.epoch, self.start = epoch + self._ahead, 0

    def share(self, batch: int) -> float:
        """Factor for this rank's mean over its rows of a batch (by its number in the epoch): 1 where ranks are even."""
        size = min(self.batch_size, self.num_rows - batch * self.batch_size)
        mine = len(range(self.rank, size, self.world_size))
        return mine * self.world_size / size

    def __iter__(self) -> Iterator[Tensor]:
        # The epoch is read at the first `next`: Lightning asks for the iterator before it tells the epoch.
        rows = self.rows(self.epoch)
        per_rank = -(-self.batch_size // self.world_size)
        for batch in range(self.start, len(self)):
            begin, end = batch * self.batch_size, min((batch + 1) * self.batch_size, self.num_rows)
            positions = np.arange(begin + self.rank, end, self.world_size)
            missing = per_rank - len(positions) if self.fill else int(len(positions) == 0)
            # What an evaluation draws (further test clips) must not depend on how long was trained before it.
            epoch = 0 if self.fill else self.epoch
            picks = np.full((len(positions) + missing, 3), (epoch, begin + self.rank, -1), dtype=np.int64)
            picks[: len(positions), 1], picks[: len(positions), 2] = positions, rows[positions]
            yield torch.from_numpy(picks)


class PairedOrder(Sampler[dict[str, Tensor]]):
    """An order of labelled batches, with an unlabelled batch beside each: {"labeled": picks, "unlabeled": picks}.

    The labelled rows set the epochs. The unlabelled ones are gone through without end, in batches of their own order,
    from its first epoch on: with the n-th labelled batch since the start of training comes the n-th unlabelled one,
    wherever a run was interrupted. Their picks carry the labelled epoch and the batch's place in it, so that what is
    drawn for a row is never drawn for it again.

    Source: VideoPose3D, common/generators.py (endless) and run.py, which zips both generators.
    """

    def __init__(self, labeled: Order, unlabeled: Order) -> None:
        self.labeled, self.unlabeled = labeled, unlabeled

    def __len__(self) -> int:
        return len(self.labeled)

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch by the trainer's count; called by Lightning before every epoch."""
        self.labeled.set_epoch(epoch)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        epoch, start, size = self.labeled.epoch, self.labeled.start, self.unlabeled.batch_size
        others = self._endless(epoch * len(self.labeled) + start)
        for batch, picks in enumerate(self.labeled, start):
            own, beside = next(others)
            beside[:, 0] = epoch
            beside[:, 1] += (batch - own) * size
            yield {"labeled": picks, "unlabeled": beside}

    def _endless(self, step: int) -> Iterator[tuple[int, Tensor]]:
        """Number of each unlabelled batch in its own epoch, and its picks, from a step of training on."""
        epoch, batch = divmod(step, len(self.unlabeled))
        while True:
            self.unlabeled.begin(epoch, batch)
            yield from enumerate(self.unlabeled, batch)
            epoch, batch = epoch + 1, 0


def make(
    name: str,
    num_rows: int,
    batch_size: int,
    *,
    seed: int,
    legacy_seed: int = LEGACY_SEED,
    rank: int = 0,
    world_size: int = 1,
    labels: np.ndarray | None = None,
    options: Mapping[str, Any] | None = None,
) -> Order:
    """Training order by the name used in yaml; "legacy" has a seed of its own.

    Args:
        name: in `ORDERS`, or in `class_orders.CLASS_ORDERS`; the latter need `labels`.
        num_rows: rows of the windows.
        batch_size: of the global batch.
        seed: of the run.
        legacy_seed: of "legacy".
        rank, world_size: this process among all.
        labels: (num_rows,) class of each row, for orders that go by classes.
        options: further arguments of such an order, `dataset.order_options`.

    Raises:
        ConfigError: for an unknown name or option, or where classes are needed and not known.
    """
    if name in class_orders.CLASS_ORDERS:
        rows, visited = class_orders.build(name, labels, batch_size, seed=seed, options=options)
        return Order(rows, visited, batch_size, rank=rank, world_size=world_size)
    if name not in ORDERS:
        known = ", ".join([*ORDERS, *class_orders.CLASS_ORDERS])
        raise ConfigError(f"No order is called {name!r}. Use dataset.order=seeded; known: {known}.")
    if options:
        raise ConfigError(
            f"dataset.order={name} takes no options, dataset.order_options has {', '.join(sorted(options))}. "
            f"Use dataset.order_options={{}}."
        )
    chosen = legacy_seed if name == "legacy" else seed
    return Order(ORDERS[name](num_rows, chosen), num_rows, batch_size, rank=rank, world_size=world_size)


def evaluation(num_rows: int, batch_size: int, *, rank: int = 0, world_size: int = 1) -> Order:
    """Every row once in the order of the table, all ranks with the same number of equal batches."""
    return Order(sequential(num_rows, 0), num_rows, batch_size, rank=rank, world_size=world_size, fill=True)
