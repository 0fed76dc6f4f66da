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
    names, group_of = np.unique(table[by][rows], return_inverse=True)
    classes, class_of = np.unique(table["label"][rows], return_inverse=True)
    # Clips of each class in each group, as (group, class, count): few of the possible pairs occur.
    pairs, counts = np.unique(group_of * len(classes) + class_of, return_counts=True)
    pair_group, pair_class = np.divmod(pairs, len(classes))
    begins = np.searchsorted(pair_group, np.arange(len(names) + 1))
    left = np.bincount(pair_class, minlength=len(classes))  # groups to train on, by class
    wanted = share * np.bincount(class_of, minlength=len(classes))
    held = np.zeros(len(names), bool)
    draws = [deterministic_random(0, _FINE, f"{seed}/{name}") for name in names]
    for group in np.argsort(np.array(draws), kind="stable"):
        mine = slice(begins[group], begins[group + 1])
        its, count = pair_class[mine], counts[mine]
        # Taking it must serve a class that still lacks validation clips, and leave every class something to learn from.
        if (left[its] < 2).any() or (wanted[its] < 0.5).all():
            continue
        # A group far above what is wanted would cost too much training data.
        if by != "clip" and (count > 2.5 * wanted[its]).any():
            continue
        held[group] = True
        left[its] -= 1
        wanted[its] -= count
    return held[group_of].astype(np.int8)


def _by_frames(table: dict[str, np.ndarray], rows: np.ndarray, share: float) -> np.ndarray:
    """The last clips of every recording, where recordings are known, and nothing that overlaps them."""
    first = table["first"][rows]
    _, trial_of, size = np.unique(table["trial"][rows], return_inverse=True, return_counts=True)
    count = np.rint(share * size).astype(np.int64)
    in_order = first[np.lexsort((first, trial_of))]  # trial by trial, by the frame at which clips begin
    ends = np.cumsum(size)
    begins = in_order[np.minimum(ends - count, len(in_order) - 1)]
    # Too few clips to share, or clips that all begin at one frame and cannot be told apart, stay in training.
    usable = (count > 0) & (size >= 3) & (in_order[ends - size] < begins)
    held = usable[trial_of] & (first >= begins[trial_of])
    overlapping = usable[trial_of] & ~held & (first + table["length"][rows] > begins[trial_of])
    return np.where(held, 1, np.where(overlapping, 2, 0)).astype(np.int8)
