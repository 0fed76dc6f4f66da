"""The protocol of VideoPose3D and its successors: errors per action, weighted by frames inside an action."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from kinema.core import pose_errors
from kinema.core.align import root_relative
from kinema.core.shapes import expect
from kinema.errors import ConfigError
from kinema.protocols.measures import FRAME_COLUMNS, MEASURES, SCALARS, Tally, frame_measures, groups_of, report_of
from kinema.protocols.report import Protocol, Report, Row

if TYPE_CHECKING:
    from kinema.data.windows import Windows

log = logging.getLogger(__name__)
_MILLIMETRES = 1000.0  # predictions and targets are metres
ROOTS = ("kept", "subtracted", "global")


class VideoPose3DProtocol(Protocol):
    """Protocols 1 to 3 and MPJVE on camera-space poses, in millimetres.

    Per action: mean over the frames of all its takes, subjects and cameras; the scalars are the unweighted means over
    actions, `*_frames` the means over all frames. The velocity error of a sequence, a mean over its T - 1 steps, is
    weighted by T (published behaviour), the acceleration error likewise. Velocity and acceleration exist only where
    every window is a whole sequence. Joint errors are means over actions as well; PCK is below 150 mm, AUC the mean of
    PCK over 0, 5, ..., 150 mm, both in percent.

    States are sums per sequence, so the result does not depend on batch size or number of ranks.

    Args:
        windows: evaluation windows; their sequences give lengths, actions and subjects.
        root: "kept" measures the prediction as it is against the root-relative target, the predicted root counts as
            one of the joints (published behaviour); "subtracted" makes both root-relative; "global" neither.
        by_subject: add a table per subject and action.
        groups: further table rows by name, each a list of subjects, for example those absent from the training set.

    Source: VideoPose3D, run.py (evaluate); PoseFormer, run_poseformer.py.
    """

    name: ClassVar[str] = "videopose3d"
    version: ClassVar[int] = 1
    scalars: ClassVar[tuple[str, ...]] = SCALARS
    needs: ClassVar[frozenset[str]] = frozenset({"pose3d", "index"})
    frames: Tensor
    sums: Tensor
    joints: Tensor
    motion: Tensor

    def __init__(
        self,
        windows: Windows,
        *,
        root: str = "kept",
        by_subject: bool = False,
        groups: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        super().__init__()
        if root not in ROOTS:
            raise ConfigError(f"root={root!r} is unknown to the videopose3d protocol. Use one of {', '.join(ROOTS)}.")
        sequences = windows.sequences
        if sequences.skeleton is None:
            raise ConfigError("The videopose3d protocol needs 3D truth, and this data set has none. Use mode=predict.")
        self.skeleton = sequences.skeleton
        self.root = root
        self.by_subject = by_subject
        table = sequences.table
        self._labels = {key: table[key] for key in ("subject", "action", "camera") if key in table}
        self._action = table["trial"] if "trial" in table else table["action"]
        self._groups = _subjects_of(groups or {}, table["subject"])
        rows = np.asarray(windows.table)
        lengths = table["length"][rows[:, 0]]
        self.whole = bool((rows[:, 1] == 0).all() and (rows[:, 2] == lengths).all())
        # No buffer: what averages the weights of a module averages its buffers too.
        self._sequence_of = torch.from_numpy(rows[:, 0].astype(np.int64))
        count, joints = len(table["length"]), len(self.skeleton)
        for state, columns in (("frames", 1), ("sums", len(FRAME_COLUMNS)), ("joints", joints), ("motion", 4)):
            self.add_state(state, torch.zeros(count, columns, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, batch: Mapping[str, Tensor]) -> None:
        """Add the errors of a batch of windows.

        Args:
            prediction: (B, L, J, 3) metres.
            batch: `pose3d` (B, L, J, 3) camera-space metres, root not subtracted; `index` (B,) rows of the windows,
                -1 = filler; optional `valid` (B, L) or (B, L, J): frames with a missing joint do not count.
        """
        sizes = expect(batch["pose3d"], "B L J 3", "pose3d", J=len(self.skeleton))
        expect(prediction, "B L J 3", "prediction", **sizes)
        target = batch["pose3d"]
        if self.root != "global":
            target = root_relative(target, self.skeleton)
        if self.root == "subtracted":
            prediction = root_relative(prediction, self.skeleton)
        index = batch["index"]
        valid = (index >= 0)[:, None].expand(target.shape[:2])
        if "valid" in batch:
            known = batch["valid"].bool()
            valid = valid & (known if known.ndim == 2 else known.all(-1))
        self._sequence_of = self._sequence_of.to(index.device)
        sequence = self._sequence_of[index.clamp_min(0)]
        measures, joints = frame_measures(prediction, target, _MILLIMETRES)
        self._add("frames", sequence, valid[..., None].double(), valid)
        self._add("sums", sequence, measures, valid)
        self._add("joints", sequence, joints, valid)
        if self.whole:
            self._add("motion", sequence, *_steps(prediction, target, valid))

    def _add(self, state: str, sequence: Tensor, values: Tensor, valid: Tensor) -> None:
        """Add (B, L, C) values of valid frames to the rows of their sequences."""
        # where, not a product: what padding predicts may be NaN
        kept = torch.where(valid[..., None], values, 0).sum(1)
        setattr(self, state, getattr(self, state).index_add(0, sequence, kept))

    def compute(self) -> Report:
        """The report: scalars, tables per action, joint, subject (and group), arrays per sequence."""
        frames, sums, joints, motion = (
            getattr(self, state).cpu().numpy() for state in ("frames", "sums", "joints", "motion")
        )
        totals = np.zeros((len(frames), len(MEASURES)))
        weights = np.repeat(frames, len(MEASURES), axis=1)
        for column, name in enumerate(FRAME_COLUMNS):
            totals[:, MEASURES.index(name)] = sums[:, column]
        for name, total, count in (("mpjve", 0, 1), ("acceleration", 2, 3)):
            # published behaviour: the mean over T - 1 steps of a sequence is weighted by its T frames
            exists = motion[:, count] > 0
            mean = motion[:, total] / np.where(exists, motion[:, count], 1)
            totals[:, MEASURES.index(name)] = mean * frames[:, 0]
            weights[:, MEASURES.index(name)] = np.where(exists, frames[:, 0], 0)
        tally = Tally(totals, weights, joints)
        actions = groups_of(self._labels["action"])
        return report_of(
            self.name,
            self.version,
            tally,
            actions,
            self.skeleton.joints,
            tables=self._tables(tally, actions),
            arrays=self._arrays(tally),
        )

    def _tables(self, tally: Tally, actions: tuple[np.ndarray, list[str]]) -> dict[str, list[Row]]:
        """Per subject (means over its actions), per subject and action, per group of subjects (means over frames)."""
        tables: dict[str, list[Row]] = {"subject": []}
        subject_of, subjects = groups_of(self._labels["subject"])
        detailed: list[Row] = []
        for number, subject in enumerate(subjects):
            mine = np.where(subject_of == number, actions[0], -1)
            rows = tally.rows("action", mine, actions[1])
            if not rows:
                continue
            mean = tally.columns(tally.over_actions(mine, len(actions[1])))
            tables["subject"].append({"subject": subject, "frames": sum(row["frames"] for row in rows), **mean})
            detailed += [{"subject": subject, **row} for row in rows]
        if self.by_subject:
            tables["subject_action"] = detailed
        for name, members in self._groups.items():
            tables.setdefault("group", []).extend(tally.rows("group", np.where(members, 0, -1), [name]))
        return tables

    def _arrays(self, tally: Tally) -> dict[str, np.ndarray]:
        """Errors per sequence, for comparisons of two runs."""
        means, weights = tally.means(np.arange(len(tally.totals)), len(tally.totals))
        measured = {
            name: np.where(weights[:, column] > 0, means[:, column], np.nan) for column, name in enumerate(MEASURES)
        }
        labels: dict[str, np.ndarray] = {key: np.asarray(column, dtype=str) for key, column in self._labels.items()}
        return {
            **labels,
            "trial": np.asarray(self._action, dtype=str),
            "frames": weights[:, 0].astype(np.int64),
            **measured,
        }


def _steps(prediction: Tensor, target: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Velocity and acceleration errors with their counts, (B, L, 4), zero where there is none; and that all count."""
    length = valid.shape[1]
    out = torch.zeros(*valid.shape, 4, dtype=torch.float64, device=valid.device)
    for column, order in ((0, 1), (2, 2)):
        if length <= order:
            continue
        neighbours = torch.stack([valid[:, shift : length - order + shift] for shift in range(order + 1)]).all(0)
        error = pose_errors.mpjve if order == 1 else pose_errors.acceleration_error
        step = error(prediction, target).double() * _MILLIMETRES
        out[:, : length - order, column] = torch.where(neighbours, step, 0)
        out[:, : length - order, column + 1] = neighbours.double()
    return out, torch.ones_like(valid)


def _subjects_of(groups: Mapping[str, Sequence[str]], subjects: np.ndarray) -> dict[str, np.ndarray]:
    """Which sequences belong to each group. Subjects that this split does not hold are left out, with one line."""
    names = np.asarray(subjects, dtype=str)
    found = {}
    for name, members in groups.items():
        missing = sorted(set(members) - set(names.tolist()))
        if missing:
            log.info("group %r: this split does not hold %s", name, ", ".join(missing))
        if len(missing) < len(set(members)):
            found[name] = np.isin(names, list(members))
    return found
