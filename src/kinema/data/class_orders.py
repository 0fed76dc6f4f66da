"""Orders that go by the classes of the rows: balanced for long tails, and so many rows of each class in a batch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from kinema.errors import ConfigError

# From the epoch's number to the rows it visits, as in `kinema.data.orders`; and how many these are.
Rows = Callable[[int], np.ndarray]
Built = tuple[Rows, int]


def random_bits(seed: int, epoch: int) -> Callable[[int], np.ndarray]:
    """Source of raw 64-bit numbers for one epoch: called with a size, it goes on where it stopped."""
    # Raw Philox numbers: the algorithm fixes them, numpy's own distributions may change with its version.
    generator = np.random.Philox(key=np.array([seed & (2**64 - 1), epoch], dtype=np.uint64))

    def draw(size: int) -> np.ndarray:
        bits: np.ndarray = generator.random_raw(size)
        return bits

    return draw


def balanced(
    labels: np.ndarray, batch_size: int, *, seed: int, power: float = 0.5, num_samples: int | None = None
) -> Built:
    """Draw each class in proportion to its number of rows to a power, as a function of (seed, epoch) alone.

    The number of visits to a class is its share, rounded at random up or down so that their sum is exact; inside a
    class every row is visited equally often (up to one visit). So power 1 is every row once, shuffled.

    Args:
        labels: (N,) class of each row.
        batch_size: of the global batch.
        seed: of the run.
        power: 1 = as in the data, 0 = all classes alike, between them the long tail is lifted in part.
        num_samples: visits of an epoch; null = N.

    Source: SoftRerank (MAC 2026), sampling with q ~ N^tau.
    """
    if not 0 <= power <= 1:
        raise ConfigError(
            f"dataset.order_options.balanced.power={power} is not between 0 (all classes alike) and 1 (as in the "
            "data). Use dataset.order_options.balanced.power=0.5."
        )
    visits = _visits("balanced", num_samples, labels)
    _, class_of, counts = np.unique(labels, return_inverse=True, return_counts=True)
    members = np.split(np.argsort(class_of, kind="stable"), np.cumsum(counts)[:-1])
    weights = counts.astype(np.float64) ** power
    ends = np.cumsum(weights) / weights.sum() * visits
    ends[-1] = visits

    def rows(epoch: int) -> np.ndarray:
        draw = random_bits(seed, epoch)
        # Systematic rounding: one offset for all classes keeps their sum.
        offset = int(draw(1)[0] >> np.uint64(11)) * 2.0**-53
        cuts = np.floor(ends + offset).astype(np.int64)
        cuts[-1] = visits
        shares = np.diff(cuts, prepend=0)
        chosen = [
            np.resize(rows[np.argsort(draw(len(rows)), kind="stable")], share)
            for rows, share in zip(members, shares, strict=True)
        ]
        return np.concatenate(chosen)[np.argsort(draw(visits), kind="stable")]

    return rows, visits


def per_class(
    labels: np.ndarray, batch_size: int, *, seed: int, per_class: int = 2, num_samples: int | None = None
) -> Built:
    """Batches of `per_class` rows from each of batch_size / per_class classes, a function of (seed, epoch) alone.

    The classes of a batch are drawn without repetition, and so are the rows of a class unless it has too few. The
    rows of a batch stand class after class and then all classes again, so that ranks which share the batch get whole
    classes wherever their number divides the number of classes in it.

    Args:
        labels: (N,) class of each row.
        batch_size: of the global batch, a multiple of `per_class`.
        seed: of the run.
        per_class: rows of a class in a batch; a contrastive loss needs two.
        num_samples: visits of an epoch, rounded down to whole batches; null = N.
    """
    count, batches = _classes_per_batch("per_class", labels, batch_size, per_class, num_samples)
    _, class_of, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    by_class = np.argsort(class_of, kind="stable")
    first = np.cumsum(sizes) - sizes

    def rows(epoch: int) -> np.ndarray:
        draw = random_bits(seed, epoch)
        keys = draw(batches * len(sizes)).reshape(batches, -1)
        classes = np.argsort(keys, axis=1, kind="stable")[:, :count]
        size = sizes[classes]
        chosen = np.zeros((per_class, batches, count), np.int64)
        for number in range(per_class):
            # One of those left; a class that is too small has all left every time.
            left = np.where(size >= per_class, size - number, size)
            place = below(draw(left.size).reshape(left.shape), left)
            for taken in np.sort(chosen[:number], axis=0):
                place += (size >= per_class) & (place >= taken)
            chosen[number] = place
        return by_class[first[classes] + chosen].transpose(1, 0, 2).reshape(-1)

    return rows, batches * batch_size


def per_class_legacy(
    labels: np.ndarray,
    batch_size: int,
    *,
    seed: int,
    per_class: int = 2,
    num_samples: int | None = None,
    legacy_seed: int = 0,
) -> Built:
    """The order of MotionBERT's one-shot training: the same idea, drawn from a running numpy RandomState.

    A resumed run replays the generator from the first epoch. Ranks that share a batch tear its pairs apart.

    Args:
        labels, batch_size, per_class, num_samples: as in `per_class`.
        seed: not used.
        legacy_seed: of the generator.

    Source: MotionBERT, train_action_1shot.py, with MPerClassSampler of pytorch-metric-learning.
    """
    count, batches = _classes_per_batch("per_class_legacy", labels, batch_size, per_class, num_samples)
    return _PerClassLegacy(labels, count, per_class, batches, legacy_seed), batches * batch_size


class _PerClassLegacy:
    def __init__(self, labels: np.ndarray, count: int, per_class: int, batches: int, seed: int) -> None:
        self.labels = labels
        self.count, self.per_class, self.batches, self.seed = count, per_class, batches, seed
        self.epoch = -1

    def __call__(self, epoch: int) -> np.ndarray:
        if epoch < self.epoch or self.epoch < 0:
            self.epoch, self.random = -1, np.random.RandomState(self.seed)
            _, first = np.unique(self.labels, return_index=True)
            # published behaviour: classes in the order in which the data names them, shuffled on and on
            self.classes = [int(self.labels[row]) for row in np.sort(first)]
            self.members = {label: np.flatnonzero(self.labels == label) for label in self.classes}
        while self.epoch < epoch:
            chosen = []
            for _ in range(self.batches):
                self.random.shuffle(self.classes)
                for label in self.classes[: self.count]:
                    rows = self.members[label]
                    chosen.append(self.random.choice(rows, size=self.per_class, replace=len(rows) < self.per_class))
            self.rows = np.concatenate(chosen)
            self.epoch += 1
        return self.rows


CLASS_ORDERS: dict[str, Callable[..., Built]] = {
    "balanced": balanced,
    "per_class": per_class,
    "per_class_legacy": per_class_legacy,
}


def build(
    name: str, labels: np.ndarray | None, batch_size: int, *, seed: int, options: Mapping[str, Any] | None
) -> Built:
    """An order by the name used in yaml, and how many rows an epoch of it visits.

    Raises:
        ConfigError: classes are not known or withheld, or an option is unknown or impossible.
    """
    options = dict(options or {})
    known = [
        key for key in inspect.signature(CLASS_ORDERS[name]).parameters if key not in ("labels", "batch_size", "seed")
    ]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ConfigError(
            f"dataset.order={name} has no option {unknown[0]!r}. Known in dataset.order_options: {', '.join(known)}."
        )
    if labels is None:
        raise ConfigError(
            f"dataset.order={name} goes by classes, and this data set has none. Use dataset.order=seeded."
        )
    labels = np.asarray(labels, np.int64)
    if len(labels) and labels.min() < 0:
        raise ConfigError(
            f"{int((labels < 0).sum())} of {len(labels)} training rows have no label, so dataset.order={name} cannot "
            f"place them. Use dataset.unlabeled=drop, or dataset.order=seeded."
        )
    if batch_size < 1:
        raise ConfigError(f"A batch of {batch_size} samples is none. Use dataset.batch_size=32.")
    if not len(labels):
        return (lambda epoch: np.zeros(0, np.int64)), 0
    return CLASS_ORDERS[name](labels, batch_size, seed=seed, **options)


def shown(name: str, counts: Sequence[int], options: Mapping[str, Any] | None = None) -> np.ndarray:
    """Samples of each class in the proportions in which an order visits them.

    Args:
        name: of any order; one that does not go by classes visits every row equally often.
        counts: (K,) rows of each class.
        options: of the order.

    Returns:
        (K,) float64 with the sum of the counts.
    """
    rows = np.asarray(counts, np.float64)
    if name not in CLASS_ORDERS or not rows.any():
        return rows
    power = {"power": 0.5, **(options or {})}["power"] if name == "balanced" else 0.0
    weights = np.where(rows > 0, rows**power, 0)
    share: np.ndarray = weights / weights.sum() * rows.sum()
    return share


def _visits(name: str, num_samples: int | None, labels: np.ndarray) -> int:
    visits = len(labels) if num_samples is None else int(num_samples)
    if visits < 1:
        raise ConfigError(
            f"dataset.order_options.{name}.num_samples={visits} makes an empty epoch. "
            f"Use dataset.order_options.{name}.num_samples={len(labels)}."
        )
    return visits


def _classes_per_batch(
    name: str, labels: np.ndarray, batch_size: int, per_class: int, num_samples: int | None
) -> tuple[int, int]:
    """Classes of a batch, and batches of an epoch."""
    if per_class < 1 or batch_size % per_class:
        raise ConfigError(
            f"dataset.order={name}: a batch of {batch_size} rows is no multiple of {per_class} rows per class. "
            f"Use dataset.batch_size={max(batch_size // max(per_class, 1), 1) * max(per_class, 1)}."
        )
    count, classes = batch_size // per_class, len(np.unique(labels))
    if count > classes:
        raise ConfigError(
            f"dataset.order={name}: a batch of {batch_size} rows with {per_class} of each class needs {count} classes, "
            f"the training rows have {classes}. Use dataset.batch_size={classes * per_class}."
        )
    batches = _visits(name, num_samples, labels) // batch_size
    if not batches:
        raise ConfigError(
            f"dataset.order={name}: {len(labels)} rows do not fill a batch of {batch_size}. "
            f"Use dataset.batch_size={max(len(labels) // per_class, 1) * per_class}."
        )
    return count, batches


def below(bits: np.ndarray, bound: np.ndarray) -> np.ndarray:
    """Integers from 0 up to each bound, of 64-bit random numbers; exact for bounds below 2^32."""
    drawn: np.ndarray = ((bits >> np.uint64(32)) * bound.astype(np.uint64) >> np.uint64(32)).astype(np.int64)
    return drawn
