"""Orders for motion prediction, whose rows are all windows of all sequences: a subject, a sequence, a start."""

from __future__ import annotations

import numpy as np

from kinema.data.class_orders import Rows, below, random_bits


def balanced_sequences(subjects: np.ndarray, counts: np.ndarray, *, seed: int, visits: int) -> Rows:
    """Draw the subject, one of its sequences and a start in it, each uniform, as a function of (seed, epoch) alone.

    So long recordings are not seen more often than short ones, nor subjects with many recordings.

    Args:
        subjects: (S,) subject of each sequence.
        counts: (S,) windows of each sequence; those of sequence s stand behind each other, in the order of s.
        seed: of the run.
        visits: windows of an epoch.

    Source of the distribution: HumanMAC, data_loader/dataset_h36m.py (sample).
    """
    places, first = _by_subject(subjects), np.cumsum(counts) - counts
    members = np.concatenate(places)
    size = np.array([len(place) for place in places])
    begins = np.cumsum(size) - size

    def rows(epoch: int) -> np.ndarray:
        bits = random_bits(seed, epoch)(3 * visits).reshape(3, visits)
        subject = below(bits[0], np.full(visits, len(places)))
        sequence = members[begins[subject] + below(bits[1], size[subject])]
        return first[sequence] + below(bits[2], counts[sequence])

    return rows


class Published:
    """The training batches of HumanMAC and SMRNet, call by call on a numpy RandomState: rows, and a turn per batch.

    For every window `choice(subjects)`, `choice(sequences of it)`, `randint(T - N)`; behind every batch, if it is
    augmented, `uniform() > 0.5` for a turn by `uniform(0, 2 pi)`, and twice `uniform() > 0.5` for x and y negated.
    A sequence of exactly N frames, on which the original stops, is one window and draws no start; the last window of a
    longer one is never drawn (published behaviour). A resumed run replays the generator from the first epoch.

    Args:
        subjects: (S,) subject of each sequence.
        counts: (S,) windows of each sequence, T - N + 1.
        batch_size: windows of a batch.
        batches: of an epoch.
        seed: of the generator.
        augmented: whether batches draw turns.

    Source: HumanMAC, data_loader/dataset.py and dataset_h36m.py (sampling_generator, sample).
    """

    def __init__(
        self,
        subjects: np.ndarray,
        counts: np.ndarray,
        *,
        batch_size: int,
        batches: int,
        seed: int,
        augmented: bool,
    ) -> None:
        self.places, self.counts = _by_subject(subjects), counts
        self.first = np.cumsum(counts) - counts
        self.batch_size, self.batches, self.seed, self.augmented = batch_size, batches, seed, augmented
        self.epoch = -1

    def __call__(self, epoch: int) -> np.ndarray:
        """Rows of an epoch."""
        if epoch < self.epoch or self.epoch < 0:
            self.epoch, self.random = -1, np.random.RandomState(self.seed)
        while self.epoch < epoch:
            drawn = [self._batch() for _ in range(self.batches)]
            self.rows = np.concatenate([rows for rows, _ in drawn])
            self._turns = np.array([turn for _, turn in drawn])
            self.epoch += 1
        return self.rows

    def turns(self, epoch: int) -> np.ndarray:
        """(batches, 3) float64 of an epoch: angle about the vertical in radians, then factors of x and y."""
        self(epoch)
        return self._turns

    def window(self, random: np.random.RandomState) -> int:
        """Draw one row."""
        # Of n things `choice` draws what it draws of a list of n.
        mine = self.places[random.choice(len(self.places))]
        sequence = mine[random.choice(len(mine))]
        starts = int(self.counts[sequence]) - 1
        return int(self.first[sequence]) + (int(random.randint(starts)) if starts else 0)

    def _batch(self) -> tuple[np.ndarray, tuple[float, float, float]]:
        random = self.random
        rows = np.array([self.window(random) for _ in range(self.batch_size)], np.int64)
        if not self.augmented:
            return rows, (0.0, 1.0, 1.0)
        angle = random.uniform(0, 2 * np.pi) if random.uniform() > 0.5 else 0.0
        signs = [-1.0 if random.uniform() > 0.5 else 1.0 for _ in range(2)]
        return rows, (angle, signs[0], signs[1])


def _by_subject(subjects: np.ndarray) -> list[np.ndarray]:
    """Sequences of each subject, subjects in the order in which they occur."""
    return [np.flatnonzero(subjects == name) for name in dict.fromkeys(subjects.tolist())]
