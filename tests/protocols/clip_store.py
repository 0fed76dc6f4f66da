"""Windows over clips with given labels: what the protocols of actions are built from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from kinema.core.skeleton import skeleton
from kinema.data.class_list import ClassList
from kinema.data.sequences import Sequences
from kinema.data.windows import Windows


def windows(
    labels: Sequence[int], *, views: int = 1, persons: Sequence[int] | None = None, split: Sequence[str] | None = None
) -> Windows:
    """One clip of one frame per label, `views` windows of each; some clips have several persons."""
    items = [
        {
            "pose3d": np.zeros((1, 17, 3), np.float32),
            "clip": f"clip{number:04d}",
            "label": int(label),
            "person": person,
            "persons": count,
            "split": "test" if split is None else split[number],
        }
        for number, (label, count) in enumerate(zip(labels, persons or [1] * len(labels), strict=True))
        for person in range(count)
    ]
    store = Sequences.from_arrays(items, skeleton=skeleton("h36m17"), space="network")
    return Windows.clips(store, 1, rule="resample", persons=2, views=views)


def classes(count: int, groups: Sequence[int] | None = None) -> ClassList:
    """Classes c0, c1, ...; groups g0, g1, ..."""
    names = tuple(f"c{number}" for number in range(count))
    if groups is None:
        return ClassList(names)
    return ClassList(names, groups=tuple(groups), group_names=tuple(f"g{number}" for number in range(max(groups) + 1)))


def batch(rows: Sequence[int]) -> dict[str, Tensor]:
    """What a protocol of actions needs of a batch; -1 is a filler."""
    return {"index": torch.tensor(list(rows))}
