"""What the names of NTU RGB+D clips say, and the benchmarks that are cut by them.

Sources: repo shahroudy/NTURGB-D (names, benchmarks, one-shot protocol, clips without usable skeleton).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from kinema.errors import DataError

# Actions of NTU RGB+D; NTU RGB+D 120 adds as many more.
CLASSES = 60
FPS = 30.0  # of the Kinect

TRAINING_SUBJECTS = frozenset({
    1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38,  # of NTU RGB+D
    45, 46, 47, 49, 50, 52, 53, 54, 55, 56, 57, 58, 59, 70, 74, 78, 80, 81, 82, 83, 84, 85, 86, 89, 91, 92, 93, 94, 95,
    97, 98, 100, 103,
})  # fmt: skip

# One-shot: every sixth class is novel and known by one clip, the exemplar; the other 100 classes are auxiliary.
NOVEL_LABELS = tuple(range(0, 2 * CLASSES, 6))
EXEMPLARS = tuple(
    f"S{1 if label < CLASSES else 18:03}C003P008R001A{label + 1:03}" for label in NOVEL_LABELS
)  # fmt: skip

_NAME = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})")


@dataclass(frozen=True)
class ClipName:
    """The parts of a clip's name, SsssCcccPpppRrrrAaaa.

    Attributes:
        setup: height and distance of the cameras, 1 to 32.
        camera: 1 to 3.
        performer: 1 to 106.
        replication: 1 or 2.
        action: 1 to 120.
    """

    setup: int
    camera: int
    performer: int
    replication: int
    action: int

    @classmethod
    def parse(cls, text: str) -> ClipName:
        """Read a name.

        Raises:
            DataError: it is none.
        """
        match = _NAME.fullmatch(text)
        if match is None:
            raise DataError(
                f"{text!r} is no name of an NTU RGB+D clip (SsssCcccPpppRrrrAaaa, for example S001C002P003R002A013). "
                "Clips of your own are read with dataset=clip_folder."
            )
        return cls(*map(int, match.groups()))

    @property
    def label(self) -> int:
        """Number of the class, from 0."""
        return self.action - 1

    @property
    def subject(self) -> str:
        """The performer as the names have it: P003."""
        return f"P{self.performer:03}"

    @property
    def recording(self) -> str:
        """The seconds of a performance; three cameras saw the same ones."""
        return f"S{self.setup:03}P{self.performer:03}R{self.replication:03}A{self.action:03}"


# What a benchmark trains on; everything else is tested. The recordings of the second are in both, by other cameras.
CROSS_VIEW = "xview"
_TRAINS = {
    "xsub": lambda clip: clip.performer in TRAINING_SUBJECTS,
    CROSS_VIEW: lambda clip: clip.camera != 1,
    "xset": lambda clip: clip.setup % 2 == 0,
}
ONESHOT = "oneshot"
BENCHMARKS = (*_TRAINS, ONESHOT)


def published_splits(names: Sequence[str], benchmarks: Sequence[str]) -> dict[str, list[str]]:
    """Split lists as the published containers hold them: xsub_train, xsub_val, ..., each in the order of the names.

    Args:
        names: of the clips.
        benchmarks: "xsub", "xview", "xset".
    """
    clips = [(name, ClipName.parse(name)) for name in names]
    splits = {}
    for benchmark in benchmarks:
        trains = _TRAINS[benchmark]
        splits[f"{benchmark}_train"] = [name for name, clip in clips if trains(clip)]
        splits[f"{benchmark}_val"] = [name for name, clip in clips if not trains(clip)]
    return splits


def auxiliary_labels(labels: Sequence[int] | np.ndarray, novel: Collection[int] = NOVEL_LABELS) -> np.ndarray:
    """Number the auxiliary classes of the one-shot benchmark from 0 in ascending order.

    Args:
        labels: (N,) classes.
        novel: classes that are held out.

    Returns:
        (N,) int64, -1 for a novel class.

    Source: MotionBERT, lib/data/dataset_action.py (NTURGBD1Shot).
    """
    asked = np.asarray(labels, dtype=np.int64)
    below = np.searchsorted(np.asarray(sorted(novel), dtype=np.int64), asked)
    return np.where(np.isin(asked, list(novel)), -1, asked - below)
