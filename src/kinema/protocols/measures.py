"""What both lifting protocols measure beside their own rules, and how sums become tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kinema.core import pose_errors
from kinema.protocols.report import Report, Row

# Columns of a pose table: millimetres, millimetres per frame (mpjve), per frame squared (acceleration), percent.
MEASURES = ("mpjpe", "p_mpjpe", "n_mpjpe", "mpjve", "acceleration", "pck", "auc")
SCALARS = (*MEASURES, *(f"{name}_frames" for name in MEASURES))
# PCK and AUC of MPI-INF-3DHP: below 150 mm; mean over the thresholds 0, 5, ..., 150 mm.
STEP_MM, STEPS = 5, 30


def frame_measures(pred: Tensor, target: Tensor, unit: float) -> tuple[Tensor, Tensor]:
    """Errors of every frame that need no neighbour.

    Args:
        pred: (..., J, 3).
        target: (..., J, 3), same unit.
        unit: millimetres per unit of the input (1000 for metres).

    Returns:
        (..., 5) float64: mpjpe, p_mpjpe, n_mpjpe in mm, pck, auc in percent; (..., J) float64 distances in mm.
    """
    joints = pose_errors.joint_errors(pred, target).double().mul_(unit)
    # How many of the thresholds 0, 5, ..., 150 are above the distance: PCK at each of them, summed. NaN passes none.
    passed = (joints / STEP_MM).floor_().neg_().add_(STEPS).clamp_(0, STEPS).nan_to_num_(0)  # (..., J)
    columns = (
        joints.mean(-1),
        pose_errors.p_mpjpe(pred, target).double() * unit,
        pose_errors.n_mpjpe(pred, target).double() * unit,
        (passed > 0).double().mean(-1) * 100,
        passed.mean(-1) * (100 / (STEPS + 1)),
    )
    return torch.stack(columns, dim=-1), joints


FRAME_COLUMNS = ("mpjpe", "p_mpjpe", "n_mpjpe", "pck", "auc")


@dataclass
class Tally:
    """Sums and weights of units (sequences or frames), to be averaged in groups.

    Attributes:
        totals: (U, M) float64, per measure.
        weights: (U, M); 0 where a unit does not have a measure.
        joints: (U, J) sums of joint distances, weighted like mpjpe.
        measures: names of the M columns.
    """

    totals: np.ndarray
    weights: np.ndarray
    joints: np.ndarray
    measures: tuple[str, ...] = MEASURES

    def __post_init__(self) -> None:
        self._values = np.concatenate([self.totals, self.joints, self.weights], axis=1)
        self.measured = np.any(self.weights > 0, axis=0)

    def means(self, groups: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Weighted means per group: (G, M + J), 0 where a group has no weight, and its weights (G, M + J).

        Units of group -1 are left out. A NaN error stays NaN.
        """
        measures, joints = self.totals.shape[1], self.joints.shape[1]
        totals, weights = np.split(_sum_by(self._values, groups, number), [measures + joints], axis=1)
        weights = np.concatenate([weights, np.repeat(weights[:, :1], joints, axis=1)], axis=1)
        return totals / np.where(weights > 0, weights, 1), weights

    def columns(self, means: np.ndarray) -> dict[str, float]:
        """One row of `means` by name, without what this evaluation does not measure."""
        return {name: float(means[column]) for column, name in enumerate(self.measures) if self.measured[column]}

    def rows(self, label: str, groups: np.ndarray, names: Sequence[str]) -> list[Row]:
        """A table row per group that holds frames: label, frames, measures; each the mean over its frames."""
        means, weights = self.means(groups, len(names))
        return [
            {label: name, "frames": round(weights[number, 0]), **self.columns(means[number])}
            for number, name in enumerate(names)
            if weights[number, 0] > 0
        ]

    def over_actions(self, groups: np.ndarray, number: int) -> np.ndarray:
        """(M + J,) unweighted mean over groups; those without a measure (no frames, no neighbours) do not count."""
        means, weights = self.means(groups, number)
        counted = weights > 0
        return np.where(counted, means, 0).sum(0) / np.maximum(counted.sum(0), 1)

    def over_frames(self) -> np.ndarray:
        """(M + J,) mean over all frames."""
        return self.means(np.zeros(len(self.totals), np.int64), 1)[0][0]

    def frames(self) -> int:
        """Number of frames measured."""
        return round(self.weights[:, 0].sum())


def report_of(
    protocol: str,
    version: int,
    tally: Tally,
    actions: tuple[np.ndarray, Sequence[str]],
    joint_names: Sequence[str],
    *,
    tables: Mapping[str, list[Row]],
    arrays: Mapping[str, np.ndarray],
) -> Report:
    """The report of a lifting protocol: scalars are unweighted means over actions, `*_frames` means over frames.

    Args:
        protocol: name.
        version: of the protocol.
        tally: what was measured.
        actions: group of every unit, and the names of the groups.
        joint_names: of the target skeleton.
        tables: further tables, after those per action and per joint.
        arrays: long results.
    """
    by_action, by_frame = tally.over_actions(actions[0], len(actions[1])), tally.over_frames()
    rows = tally.rows("action", *actions)
    scalars = tally.columns(by_action) | {f"{name}_frames": value for name, value in tally.columns(by_frame).items()}
    footers: list[Row] = [
        {"action": "mean over actions", "frames": None, **tally.columns(by_action)},
        {"action": "mean over frames", "frames": tally.frames(), **tally.columns(by_frame)},
    ]
    joints = [
        {"joint": name, "mpjpe": float(over_actions), "mpjpe_frames": float(over_frames)}
        for name, over_actions, over_frames in zip(
            joint_names, by_action[len(tally.measures) :], by_frame[len(tally.measures) :], strict=True
        )
    ]
    return Report(
        protocol,
        version=version,
        scalars=scalars,
        tables={"action": rows, "joint": joints, **tables},
        footers={"action": footers},
        arrays=arrays,
        digits={"mpjve": 2, "acceleration": 2, "acceleration_corrected": 2},
    )


def groups_of(column: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Groups of equal strings in order of first appearance: (S,) int64 and the names."""
    names, first, group = np.unique(column, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return rank[group.reshape(-1)], [str(name) for name in names[order]]


def _sum_by(values: np.ndarray, groups: np.ndarray, number: int) -> np.ndarray:
    """(U, C) to (G, C): sums by group, without those of group -1."""
    order = np.argsort(groups, kind="stable")
    order = order[np.searchsorted(groups, 0, sorter=order) :]
    sums = np.zeros((number, values.shape[1]))
    present, first = np.unique(groups[order], return_index=True)
    if len(present):
        sums[present] = np.add.reduceat(values[order], first, axis=0)
    return sums
