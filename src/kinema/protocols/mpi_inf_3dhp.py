"""The protocol of MPI-INF-3DHP: MPJPE, PCK and AUC of the valid test frames, and the sheets of the official report."""

from __future__ import annotations

import csv
import importlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from kinema.core import align
from kinema.core.preprocess import preprocess
from kinema.core.shapes import expect
from kinema.core.skeleton import Skeleton
from kinema.errors import ConfigError
from kinema.protocols.measures import STEP_MM, STEPS
from kinema.protocols.report import Protocol, Report, Row

if TYPE_CHECKING:
    from kinema.data.windows import Windows

ACTIVITIES = (
    "Standing/Walking", "Exercising", "Sitting", "Reaching/Crouching", "On The Floor", "Sports", "Miscellaneous",
)  # fmt: skip
SCENES = {
    "studio, green screen": ("TS1", "TS2"),
    "studio, no green screen": ("TS3", "TS4"),
    "outdoors": ("TS5", "TS6"),
}
_DASH = "-"


class MPIINF3DHPProtocol(Protocol):
    """Root-relative errors in millimetres on every valid frame, in universal height.

    Image units become millimetres by half the width of the sequence's image. `mpjpe` is the mean over all 17 joints,
    the root with its zero included (published behaviour); `mpjpe_no_root` is 17/16 of it. PCK counts errors below 150
    mm, AUC is the mean of the PCK at 0, 5, ..., 150 mm (31 thresholds, of which the first counts nothing: the best
    value is 96.8); both over the 14 joints of the official report, without pelvis, spine and head. Every frame weighs
    the same.

    Published is one window around every frame (`eval_windows.kind=centred`). Any other windows will do, such as whole
    sequences: only frames that are `valid` count, and of a frame that several windows predict the mean pose is judged.

    Args:
        windows: evaluation windows.
        root_relative: set the predicted root to zero first, other joints as predicted (published behaviour for models
            of root-relative targets). False subtracts the predicted root.
        unit: of predictions: "image" (half image widths, as the targets), or "mm" as the official
            weights of PoseFormer V2 give, which were trained on unscaled targets.

    Source: MotionAGFormer, train_3dhp.py, and the Matlab evaluation of the data set (test_util).
    """

    name: ClassVar[str] = "mpi_inf_3dhp"
    version: ClassVar[int] = 1
    space: ClassVar[str] = "image"
    scalars: ClassVar[tuple[str, ...]] = ("mpjpe", "mpjpe_no_root", "pck", "auc")
    needs: ClassVar[frozenset[str]] = frozenset({"frames", "index"})
    poses: Tensor
    counts: Tensor

    def __init__(self, windows: Windows, *, root_relative: bool = True, unit: str = "image") -> None:
        super().__init__()
        if unit not in ("image", "mm"):
            raise ConfigError(
                f"task.protocol_options.mpi_inf_3dhp.unit={unit} is unknown. Use unit=image for networks trained here, "
                f"or unit=mm for weights trained on unscaled millimetres."
            )
        sequences = windows.sequences
        if sequences.skeleton is None or "pck_groups" not in sequences.skeleton.tables or sequences.space != "image":
            raise ConfigError(
                "The mpi_inf_3dhp protocol needs the 17 joints of MPI-INF-3DHP in image space. "
                "Use dataset=mpi_inf_3dhp, or task.protocol=motionbert."
            )
        self.skeleton: Skeleton = sequences.skeleton
        self.root_relative = root_relative
        self.unit = unit
        self._sequences = sequences
        self._owner, self._rows = _frames_of(windows)
        self._first = int(self._rows.min()) if len(self._rows) else 0
        slot = np.full(int(self._rows.max(initial=self._first)) - self._first + 1, -1, np.int64)
        slot[self._rows - self._first] = np.arange(len(self._rows))
        # No buffers: what averages the weights of a module averages its buffers too.
        self._slot = torch.from_numpy(slot)
        table = sequences.table
        sizes = np.stack([table["width"], table["height"]], axis=-1).astype(np.float64)
        self._size = torch.from_numpy(sizes[np.asarray(windows.table)[:, 0]])
        shape = (len(self._rows), len(self.skeleton), 3)
        self.add_state("poses", torch.zeros(*shape, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("counts", torch.zeros(shape[0], dtype=torch.float64), dist_reduce_fx="sum")

    @classmethod
    def root_options(cls, root_relative: bool) -> dict[str, Any]:
        """Treatment of the root for a network of root-relative targets, or of others."""
        return {"root_relative": root_relative}

    def millimetres(self, prediction: Tensor, size: Tensor) -> Tensor:
        """Turn predictions (B, T, J, 3) into root-relative millimetres, float64.

        Args:
            prediction: (B, T, J, 3).
            size: (B, 2) width and height in pixels.
        """
        prediction = prediction.double()
        if self.root_relative:
            is_root = torch.arange(len(self.skeleton), device=prediction.device)[:, None] == self.skeleton.root
            prediction = torch.where(is_root, 0, prediction)
        if self.unit == "mm":
            return align.root_relative(prediction, self.skeleton)
        pixels = preprocess("motionbert").image_from_network(prediction, size[:, 0], size[:, 1])
        return align.root_relative(pixels, self.skeleton)

    def update(self, prediction: Tensor, batch: Mapping[str, Tensor]) -> None:
        """Add the poses of a batch of windows.

        Args:
            prediction: (B, T, J, 3) normalised image units.
            batch: `frames` (B, T) rows of the store; `index` (B,), -1 = filler; optional `valid` (B, T) or (B, T, J).
        """
        index, frames = batch["index"], batch["frames"]
        expect(prediction, "B T J 3", "prediction", B=len(index), T=frames.shape[1], J=len(self.skeleton))
        self._slot, self._size = self._slot.to(index.device), self._size.to(index.device)
        slot = self._slot[(frames - self._first).clamp(0, len(self._slot) - 1)]
        counted = (index >= 0)[:, None] & (slot >= 0)
        if "valid" in batch:
            known = batch["valid"].bool()
            counted = counted & (known if known.ndim == 2 else known.all(-1))
        poses = self.millimetres(prediction, self._size[index.clamp_min(0)])
        slot, counted = slot.clamp_min(0).flatten(), counted.flatten()
        self.poses.index_add_(0, slot, torch.where(counted[:, None, None], poses.flatten(0, 1), 0))
        self.counts.index_add_(0, slot, counted.double())

    def compute(self) -> Report:
        """The report: scalars, tables per sequence, scene, activity, group of joints and joint; poses and errors."""
        counts = self.counts.cpu().numpy()
        used = counts > 0
        poses = self.poses.cpu().numpy()[used] / counts[used, None, None]
        errors = np.linalg.norm(poses - self._target(self._rows[used]), axis=-1)
        owner = self._owner[used]
        table = self._sequences.table
        names = [str(name) for name in table["trial"]]
        groups = {name: owner == row for row, name in enumerate(names) if (owner == row).any()}
        activities = self._activities(self._rows[used])
        scenes = {
            scene: np.isin(owner, [names.index(name) for name in members if name in groups])
            for scene, members in SCENES.items()
        }
        measured = Measured(errors, self.skeleton)
        everything = measured.row(np.ones(len(errors), bool))
        tables = {
            "sequence": measured.table("sequence", groups),
            "scene": measured.table("scene", scenes),
            "activity": measured.table("activity", activities or {}),
            "group": measured.by_group(),
            "joint": [
                {"joint": joint, "mpjpe": float(mean)}
                for joint, mean in zip(self.skeleton.joints, measured.joint_means(slice(None)), strict=True)
            ],
        }
        sequences = {f"TestSeq{name.removeprefix('TS')}": mask for name, mask in groups.items()}
        kinds: dict[str, np.ndarray | None] = {name: (activities or {}).get(name) for name in ACTIVITIES}
        everyone = {"All": np.ones(len(errors), bool)}
        arrays = {f"inference/{name}": _inference(poses[mask]) for name, mask in groups.items()}
        return Report(
            self.name,
            version=self.version,
            scalars={key: value for key, value in everything.items() if key in self.scalars},
            tables={name: rows for name, rows in tables.items() if rows},
            footers={"sequence": [{"sequence": "all frames", "frames": len(errors), **everything}]},
            arrays={
                "sequence": np.asarray(names, dtype=str)[owner] if len(owner) else np.zeros(0, str),
                "frame": (self._rows[used] - table["start"][owner]) // self._sequences.step,
                "errors": errors,
                **arrays,
            },
            files={
                "sequencewise.csv": measured.sheet(sequences),
                "activitywise.csv": measured.sheet({**kinds, **everyone}),
            },
            digits={"pck": 2, "auc": 2},
        )

    def _target(self, rows: np.ndarray) -> np.ndarray:
        """True poses of some rows of the store, (F, J, 3) root-relative millimetres."""
        owner = np.searchsorted(self._rows, rows)
        pose = np.asarray(self._sequences.arrays["pose3d"][rows], np.float64)
        half = self._sequences.table["width"][self._owner[owner]] / 2
        return (pose - pose[:, [self.skeleton.root]]) * half[:, None, None]

    def _activities(self, rows: np.ndarray) -> dict[str, np.ndarray] | None:
        """Which frames show each activity; None where the data does not say."""
        if "activity" not in self._sequences.arrays:
            return None
        label = np.asarray(self._sequences.arrays["activity"][rows])
        if not (label > 0).any():
            return None
        return {name: label == number for number, name in enumerate(ACTIVITIES, start=1)}


class Measured:
    """Errors of frames, averaged in groups.

    Args:
        errors: (F, J) millimetres.
        skeleton: with the table "pck_groups".
    """

    def __init__(self, errors: np.ndarray, skeleton: Skeleton) -> None:
        self.errors = errors
        self.skeleton = skeleton
        self.groups: dict[str, tuple[int, ...]] = skeleton.tables["pck_groups"]
        self.judged = [joint for joints in self.groups.values() for joint in joints]
        # NaN is below no threshold.
        self.passed = errors < STEP_MM * STEPS
        self.area = np.mean([errors < STEP_MM * step for step in range(STEPS + 1)], axis=0)

    def joint_means(self, frames: Any) -> np.ndarray:
        """(J,) mean error of each joint."""
        mean: np.ndarray = self.errors[frames].mean(0)
        return mean

    def row(self, frames: np.ndarray) -> dict[str, float]:
        """Scalars over some frames; empty where there are none."""
        if not frames.any():
            return {}
        means = self.joint_means(frames)
        return {
            "mpjpe": float(means.mean()),
            "mpjpe_no_root": float(np.delete(means, self.skeleton.root).mean()),
            "pck": self._percent(self.passed, frames, self.judged),
            "auc": self._percent(self.area, frames, self.judged),
        }

    def table(self, label: str, groups: Mapping[str, np.ndarray]) -> list[Row]:
        """A row per group that has frames."""
        return [
            {label: name, "frames": int(mask.sum()), **self.row(mask)} for name, mask in groups.items() if mask.any()
        ]

    def by_group(self) -> list[Row]:
        """PCK and AUC of each group of joints over all frames."""
        frames = np.ones(len(self.errors), bool)
        if not len(frames):
            return []
        return [
            {
                "group": name,
                "pck": self._percent(self.passed, frames, list(joints)),
                "auc": self._percent(self.area, frames, list(joints)),
            }
            for name, joints in self.groups.items()
        ]

    def sheet(self, groups: Mapping[str, np.ndarray | None]) -> str:
        """The sheet of the official report: MPJPE per joint, then PCK and AUC per group of joints; "-" where unknown.

        Args:
            groups: frames of each row, by its name; None = not known.

        Source: MPI-INF-3DHP, test_util/mpii_evaluate_errors.m and its tables, as MotionAGFormer publishes them.
        """
        width = len(self.skeleton) + 2
        lines: list[list[str]] = [["", *self.skeleton.joints, "Average"]]
        for name, frames in groups.items():
            if frames is None or not frames.any():
                lines.append([name, *[_DASH] * (width - 1)])
                continue
            means = self.joint_means(frames)
            lines.append([name, *(f"{value:.12g}" for value in (*means, means.mean()))])
        for title, values in (("PCK", self.passed), ("AUC", self.area)):
            lines.append([title, *self.groups, "Total"])
            for name, frames in groups.items():
                if frames is None or not frames.any():
                    lines.append([name, *[_DASH] * (len(self.groups) + 1)])
                    continue
                parts = [*(list(joints) for joints in self.groups.values()), self.judged]
                lines.append([name, *(f"{self._percent(values, frames, joints):.12g}" for joints in parts)])
        file = io.StringIO()
        csv.writer(file, lineterminator="\n").writerows([line + [""] * (width - len(line)) for line in lines])
        return file.getvalue()

    @staticmethod
    def _percent(values: np.ndarray, frames: np.ndarray, joints: list[int]) -> float:
        return float(values[frames][:, joints].mean() * 100)


def save_inference(report: Report, path: str | Path) -> Path:
    """Write the predicted poses for the official Matlab evaluation: an array [3, 17, 1, frames] per test sequence.

    Args:
        report: of this protocol.
        path: a `.mat` file (needs SciPy) or a `.npz` file.

    Raises:
        ConfigError: SciPy is not installed, or another kind of file is wanted.
    """
    path = Path(path)
    poses = {name.removeprefix("inference/"): value for name, value in report.arrays.items() if "inference/" in name}
    if path.suffix == ".npz":
        np.savez(path, **poses)  # type: ignore[arg-type]
    elif path.suffix == ".mat":
        try:
            io_of_scipy = importlib.import_module("scipy.io")
        except ImportError as error:
            raise ConfigError(f"{path.name} needs SciPy. Use pip install scipy, or a .npz file.") from error
        io_of_scipy.savemat(str(path), poses)
    else:
        raise ConfigError(f"{path.name} is neither .mat nor .npz. Use inference_data.npz.")
    return path


def _inference(poses: np.ndarray) -> np.ndarray:
    """(F, J, 3) to the layout of the official evaluation, (3, J, 1, F) float32."""
    return poses.transpose(2, 1, 0)[:, :, None].astype(np.float32)


def _frames_of(windows: Windows) -> tuple[np.ndarray, np.ndarray]:
    """Every valid frame of the sequences that have windows: its sequence and its row of the store, ascending."""
    sequences = windows.sequences
    shown = np.unique(np.asarray(windows.table)[:, 0])
    length = sequences.table["length"][shown]
    owner = np.repeat(shown, length)
    inside = np.arange(len(owner)) - np.repeat(np.cumsum(length) - length, length)
    rows = sequences.table["start"][owner] + inside * sequences.step
    if "valid" in sequences.arrays:
        valid = np.asarray(sequences.arrays["valid"][rows])
        kept = valid if valid.ndim == 1 else valid.all(-1)
        owner, rows = owner[kept], rows[kept]
    order = np.argsort(rows, kind="stable")
    return owner[order].astype(np.int64), rows[order].astype(np.int64)
