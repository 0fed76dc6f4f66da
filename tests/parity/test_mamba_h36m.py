"""Human3.6M clips and their evaluation as MotionAGFormer, PoseMamba and DBMambaPose have them."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import Tensor

from kinema.data.readers import motionbert_h36m
from kinema.data.sequences import Sequences
from kinema.data.windows import Windows
from kinema.inference.flip import flip_average
from kinema.protocols.motionagformer import MotionAGFormerProtocol
from kinema.protocols.report import Report
from tests.parity.golden import Arrays, Case, cases

pytestmark = pytest.mark.parity

EVALUATION = ("pose2d", "pose3d", "pose3d_eval", "factor", "size")
# Means over actions, and values per action, by the names of the file.
MEANS = {"p1": "mpjpe", "p2": "p_mpjpe", "acc": "acceleration"}
PER_ACTION = {**MEANS, "mpjve": "mpjve"}


@cases("mamba", "h36m_eval")
def test_h36m_clips_and_metrics(case: Case) -> None:
    arrays, config = case.arrays("expected.npz"), case.json()
    (pickle,) = [path for path in case.path.iterdir() if path.suffix == ".pkl"]
    sequences = motionbert_h36m.read(case.file(pickle.name).parent, file=pickle.name)
    clips = {split: clips_of(sequences, split, config["n_frames"], config[f"data_stride_{split}"])
             for split in ("train", "test")}  # fmt: skip
    batches = {split: windows[every(windows)] for split, windows in clips.items()}
    for split, batch in batches.items():
        first = int(clips[split].sequences.table["start"][0])
        case.close(f"split_{split}", batch["frames"] - first, arrays[f"split_{split}"])
        case.close(f"{split}_input", batch["pose2d"], arrays[f"{split}_input"])
        case.close(f"{split}_label", batch["pose3d"], arrays[f"{split}_label"])
    stub = Stub(arrays)
    for key in dict.fromkeys(name.split("/")[0] for name in arrays if "/" in name):
        match = re.fullmatch(r"flip([01])_rootrel([01])", key)
        with case.check(key):
            assert match, "a name of unknown meaning"
            flip, relative = (value == "1" for value in match.groups())
            check_metrics(case, arrays, key, clips["test"], batches["test"], stub, flip=flip, relative=relative)
    case.finish()


def clips_of(sequences: Sequences, split: str, frames: int, stride: int) -> Windows:
    """Clips of one split; numpy's generator is seeded with 0 before each."""
    part = sequences.select(sequences.table["split"] == split)
    keys = EVALUATION if split == "test" else EVALUATION[:2]
    return Windows.strided(part, frames, stride, random=np.random.RandomState(0), keys=keys)


def every(windows: Windows) -> Tensor:
    """Picks of all rows in order."""
    rows = torch.arange(len(windows))
    return torch.stack([torch.zeros_like(rows), rows, rows], dim=1)


class Stub:
    """The stand-in network of the golden data: a short filter in time and a matrix per joint."""

    def __init__(self, arrays: Arrays) -> None:
        self.kernel, self.matrix, self.bias = (
            torch.from_numpy(arrays[f"stub_{name}"]).double() for name in ("kernel", "W", "b")
        )

    def __call__(self, pose: Tensor) -> Tensor:
        pose = pose.double()
        places = pose[..., :2] - pose[..., :1, :2]
        seen = torch.cat([places, 0.1 * pose[..., 2:]], dim=-1)
        padded = torch.cat([seen[:, :1], seen, seen[:, -1:]], dim=1)
        moved = sum(weight * padded[:, k : k + seen.shape[1]] for k, weight in enumerate(self.kernel))
        return torch.einsum("btjc,jcd->btjd", moved, self.matrix) + self.bias


def check_metrics(
    case: Case,
    arrays: Arrays,
    key: str,
    windows: Windows,
    batch: dict[str, Tensor],
    stub: Stub,
    *,
    flip: bool,
    relative: bool,
) -> None:
    """Errors of the stub's predictions, in one batch and in three."""
    skeleton = windows.sequences.skeleton
    assert skeleton is not None
    pred = flip_average(stub, batch["pose2d"], skeleton, skeleton) if flip else stub(batch["pose2d"])
    protocol = MotionAGFormerProtocol(windows, **MotionAGFormerProtocol.root_options(relative))
    protocol.update(pred, batch)
    check_report(case, arrays, key, protocol.compute())
    protocol.reset()
    for part in torch.arange(len(pred)).chunk(3):
        protocol.update(pred[part], {name: value[part] for name, value in batch.items()})
    check_report(case, arrays, key, protocol.compute())


def check_report(case: Case, arrays: Arrays, key: str, report: Report) -> None:
    rows = {row["action"]: row for row in report.tables["action"]}
    names = [str(name) for name in arrays[f"{key}/actions"]]
    with case.check(f"{key}/actions"):
        assert sorted(rows) == sorted(names)
    for short, measure in MEANS.items():
        case.close(f"{key}/{short}", report.scalars[measure], arrays[f"{key}/{short}"], atol=1e-3)
    for short, measure in PER_ACTION.items():
        found = [rows[name][measure] for name in names]
        case.close(f"{key}/{short}_action", found, arrays[f"{key}/{short}_action"], atol=1e-3)
    joints = [row["mpjpe"] for row in report.tables["joint"]]
    case.close(f"{key}/joint_errors", joints, arrays[f"{key}/joint_errors"], atol=1e-3)
