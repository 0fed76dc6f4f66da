"""What predictions of motion are compared with: true futures, and the groups of windows that began alike."""

from __future__ import annotations

import logging
import weakref
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from kinema.core import motion_metrics
from kinema.core.motion_features import to_features

if TYPE_CHECKING:
    from kinema.data.windows import Windows
    from kinema.inference.motion_features import MotionFeatures

log = logging.getLogger(__name__)

# Windows that are gathered at a time.
_TOGETHER = 512


class Truth:
    """True futures of all windows of a stage, and of which of them the judged windows are.

    Args:
        windows: that are judged; the groups are those among all windows of the stage (`Windows.among`).
        history: observed frames H.
        threshold: windows whose last observed poses are less than this apart are a group, metres of the feature vector.

    Attributes:
        futures: (M, P, F) metres, joints relative to the root, without the root.
        group: of the M windows.
        rows: (W,) which of the M windows each judged one is.
    """

    def __init__(self, windows: Windows, history: int, threshold: float) -> None:
        every, rows = (windows, np.arange(len(windows))) if windows.among is None else windows.among
        skeleton = windows.sequences.skeleton
        assert skeleton is not None, "prediction data has a skeleton"
        parts = []
        for part in torch.arange(len(every)).split(_TOGETHER):
            batch = every[torch.stack([torch.zeros_like(part), part, part], dim=1)]
            parts.append(to_features(batch["pose3d"], skeleton.root)[:, history - 1 :])
        motion = torch.cat(parts)
        self.futures = motion[:, 1:].contiguous()
        self.group = motion_metrics.groups(motion[:, 0], threshold)
        self.rows = torch.from_numpy(np.asarray(rows, np.int64))
        self._told: set[str] = set()
        self._copy: Tensor | None = None
        self._reference: Tensor | None = None
        self._features: dict[str, Tensor] = {}

    def tell(self, text: str) -> None:
        """Log a line once, whatever number of protocols say it."""
        if text not in self._told:
            self._told.add(text)
            log.info(text)

    def on(self, device: torch.device) -> Tensor:
        """The futures on a device, kept there."""
        if self._copy is None or self._copy.device != device:
            self._copy = self.futures.to(device)
        return self._copy

    def diversity(self, device: torch.device) -> Tensor:
        """(W,) `apd` of the true futures of each judged window's group, on the CPU; 0 where it is alone."""
        if self._reference is None:
            found = motion_metrics.group_apd(self.on(device), self.group, self.rows)
            self._reference = found.double().cpu()
        return self._reference

    def features(self, network: MotionFeatures) -> Tensor:
        """(W, D) float64 features of the true futures of the judged windows."""
        if network.path not in self._features:
            self._features[network.path] = network(self.futures[self.rows])
        return self._features[network.path]


_KNOWN: weakref.WeakKeyDictionary[Windows, dict[tuple[int, float], Truth]] = weakref.WeakKeyDictionary()


def truth_of(windows: Windows, history: int, threshold: float) -> Truth:
    """The truth of some windows, shared by the protocols of all variants that are judged on them."""
    known = _KNOWN.setdefault(windows, {})
    key = (history, threshold)
    if key not in known:
        known[key] = Truth(windows, history, threshold)
    return known[key]
