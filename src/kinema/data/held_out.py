"""Validation clips cut from training clips, so that nothing is chosen on the test split."""

from __future__ import annotations

import numpy as np

from kinema.core.random import deterministic_random
from kinema.errors import ConfigError

WAYS = ("trial", "subject", "clip", "frames")
_FINE = 1_000_000


def held_out(table: dict[str, np.ndarray], rows: np.ndarray, *, by: str, share: float, seed: int) -> np.ndarray:
    """Choose what is withheld from training: of every class about a share, always leaving some to train on.

    Args:
        table: of a store of clips.
        rows: the training rows; all persons of a clip go the same way.
        by: what stays together. "clip": single clips (neighbours in time may be on both sides). "trial", "subject":
            whole recordings or persons; a class that has only one of them is not withheld. "frames": clips by their
            place in the recording: the last ones of every recording, and training clips that share frames with them
            are dropped; so every class is validated, on frames nobody trains on.
        share: of the clips of a class.
        seed: another one withholds others.

    Returns:
        (len(rows),) int8: 0 = train, 1 = validate, 2 = dropped.

    Raises:
        ConfigError: for an unknown way or a share that is none.
    """
    if by not in WAYS:
        raise ConfigError(f"dataset.validation.by={by} is none of {', '.join(WAYS)}. Use dataset.validation.by=trial.")
    if not 0 < share < 1:
        raise ConfigError(
            f"dataset.validation.share={share} is no share of the clips. Use dataset.validation.share=0.15."
        )
    if by == "frames":
        return _by_frames(table, rows, share)
    groups = table[by][rows]
    labels = table["label"][rows]
    verdict = np.zeros(len(rows), np.int8)
    names = sorted(set(groups.tolist()), key=lambda name: (deterministic_random(0, _FINE, f"{seed}/{name}"), name))
    sizes = np.unique(labels, return_counts=True)
    wanted = {int(label): share * count for label, count in zip(*sizes, strict=True)}
    left = {label: set(groups[labels == label].tolist()) for label in wanted}
    for name in names:
        mine = groups == name
        held = {
            int(label): int(count) for label, count in zip(*np.unique(labels[mine], return_counts=True), strict=True)
        }
        # Taking it must serve a class that still lacks validation clips, and leave every class something to learn from.
        if any(len(left[label]) < 2 for label in held) or all(wanted[label] < 0.5 for label in held):
            continue
        # A group far above what is wanted would cost too much training data.
        if by != "clip" and any(count > 2.5 * wanted[label] for label, count in held.items()):
            continue
        verdict[mine] = 1
        for label, count in held.items():
            left[label].discard(name)
            wanted[label] -= count
    return verdict


def _by_frames(table: dict[str, np.ndarray], rows: np.ndarray, share: float) -> np.ndarray:
    """The last clips of every recording, where recordings are known, and nothing that overlaps them."""
    first, trial = table["first"][rows], table["trial"][rows]
    end = first + table["length"][rows]
    verdict = np.zeros(len(rows), np.int8)
    for name in np.unique(trial):
        mine = np.flatnonzero(trial == name)
        count = round(share * len(mine))
        if not count or len(mine) < 3:
            continue
        begins = np.sort(first[mine])[-count]
        held = mine[first[mine] >= begins]
        if len(held) == len(mine):  # clips that all begin at one frame cannot be told apart
            continue
        verdict[held] = 1
        rest = mine[first[mine] < begins]
        verdict[rest[end[rest] > begins]] = 2
    return verdict
