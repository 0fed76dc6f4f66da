"""The protocol of VideoPose3D and its successors: errors per action, weighted by frames inside an action."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

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
# Frames that are measured at once: so many that the cost of calling an operator no longer shows.
BLOCK = 8192


class VideoPose3DProtocol(Protocol):
    """Protocols 1 to 3 and MPJVE on camera-space poses, in millimetres.

    Per action: mean over the frames of all its takes, subjects and cameras; the scalars are the unweighted means over
    actions, `*_frames` the means over all frames. The velocity error of a sequence, a mean over its T - 1 steps, is
    weighted by T (published behaviour), the acceleration error likewise. Velocity and acceleration exist only where
    every window is a whole sequence. Joint errors are means over actions as well; PCK is below 150 mm, AUC the mean of
    PCK over 0, 5, ..., 150 mm, both in percent.

    States are sums per sequence, so the result does not depend on batch size or number of ranks. Windows wait until
    `BLOCK` frames are there and are then measured in one pass, without asking the device for a number.

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
    space: ClassVar[str] = "camera"
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
        self._waiting: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []  # prediction, pose3d, index, valid
        self._frames_waiting = 0
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

    @classmethod
    def root_options(cls, root_relative: bool) -> dict[str, Any]:
        """Treatment of the root for a network of root-relative targets, or of others."""
        return {"root": "kept" if root_relative else "subtracted"}

    def update(self, prediction: Tensor, batch: Mapping[str, Tensor]) -> None:
        """Add the errors of a batch of windows.

        Args:
            prediction: (B, L, J, 3) metres.
            batch: `pose3d` (B, L, J, 3) camera-space metres, root not subtracted; `index` (B,) rows of the windows,
                -1 = filler; optional `valid` (B, L) or (B, L, J): frames with a missing joint do not count.
        """
        sizes = expect(batch["pose3d"], "B L J 3", "pose3d", J=len(self.skeleton))
        expect(prediction, "B L J 3", "prediction", **sizes)
        index = batch["index"]
        valid = (index >= 0)[:, None].expand(prediction.shape[:2])
        if "valid" in batch:
            known = batch["valid"].bool()
            valid = valid & (known if known.ndim == 2 else known.all(-1))
        # A copy: what a compiled or a captured network returns may be written over by its next call.
        self._waiting.append((prediction.detach().clone(), batch["pose3d"], index, valid))
        self._frames_waiting += valid.numel()
        if self._frames_waiting >= BLOCK:
            self.measure()

    def measure(self) -> None:
        """Add the errors of the windows that wait to the states, all at once."""
        if not self._waiting:
            return
        waiting, self._waiting, self._frames_waiting = self._waiting, [], 0
        device = self.sums.device
        prediction = torch.cat([one[0].to(device).flatten(0, 1) for one in waiting])  # (N, J, 3)
        target = torch.cat([one[1].to(device).flatten(0, 1) for one in waiting])
        valid = torch.cat([one[3].to(device).flatten() for one in waiting])
        index = torch.cat([one[2].to(device) for one in waiting])
        lengths = [one[3].shape[1] for one in waiting for _ in range(len(one[3]))]
        # The number of values is given: the device would have to be asked for it.
        window = torch.arange(len(index), device=device).repeat_interleave(
            torch.tensor(lengths, device=device), output_size=len(valid)
        )
        self._sequence_of = self._sequence_of.to(device)
        sequence = self._sequence_of[index.clamp_min(0)][window]
        if self.root != "global":
            target = root_relative(target, self.skeleton)
        if self.root == "subtracted":
            prediction = root_relative(prediction, self.skeleton)
        measures, joints = frame_measures(prediction, target, _MILLIMETRES)
        # where, not a product: what padding predicts may be NaN
        self.frames.index_add_(0, sequence, valid[:, None].double())
        self.sums.index_add_(0, sequence, torch.where(valid[:, None], measures, 0))
        self.joints.index_add_(0, sequence, torch.where(valid[:, None], joints, 0))
        if self.whole:
            self.motion.index_add_(0, sequence, _steps(prediction, target, valid, window))

    def reset(self) -> None:
        """Forget everything added so far."""
        super().reset()
        self._waiting, self._frames_waiting = [], 0

    def sync(self, *args: Any, **options: Any) -> None:
        """torchmetrics' hook ahead of `compute`: nothing may wait when ranks add up their states."""
        self.measure()
        super().sync(*args, **options)

    def forward(self, *args: Any, **options: Any) -> Any:
        """torchmetrics' `update` that returns the report of the batch; it sets the states aside meanwhile."""
        self.measure()
        return super().forward(*args, **options)

    def standing(self) -> dict[str, Any]:
        """What this rank has added so far."""
        self.measure()
        return super().standing()

    def state_dict(self, *args: Any, **options: Any) -> Any:
        """States that hold every window added."""
        self.measure()
        return super().state_dict(*args, **options)

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


def _steps(prediction: Tensor, target: Tensor, valid: Tensor, window: Tensor) -> Tensor:
    """Velocity and acceleration errors of (N, J, 3) frames with their counts, (N, 4), zero where a neighbour lacks."""
    out = torch.zeros(len(valid), 4, dtype=torch.float64, device=valid.device)
    for column, order in ((0, 1), (2, 2)):
        length = len(valid) - order
        if length < 1:
            continue
        neighbours = window[order:] == window[:length]
        for shift in range(order + 1):
            neighbours = neighbours & valid[shift : length + shift]
        error = pose_errors.mpjve if order == 1 else pose_errors.acceleration_error
        step = error(prediction, target).double() * _MILLIMETRES
        out[:length, column] = torch.where(neighbours, step, 0)
        out[:length, column + 1] = neighbours.double()
    return out


def _subjects_of(groups: Mapping[str, Sequence[str]], subjects: np.ndarray) -> dict[str, np.ndarray]:
    """Which sequences belong to each group; subjects that this split does not hold are left out, with one line."""
    names = np.asarray(subjects, dtype=str)
    found = {}
    for name, members in groups.items():
        missing = sorted(set(members) - set(names.tolist()))
        if len(missing) == len(set(members)):
            continue
        if missing:
            log.info("group %r: this split does not hold %s", name, ", ".join(missing))
        found[name] = np.isin(names, list(members))
    return found
