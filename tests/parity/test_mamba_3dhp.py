"""MPI-INF-3DHP on the golden files: clips, evaluation windows, results of the stub network, and the official sheets."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kinema.core.skeleton import skeleton
from kinema.data.draws import Draws
from kinema.data.readers import mpi_inf_3dhp
from kinema.data.sequences import Sequences
from kinema.data.transforms import flip, pose
from kinema.data.windows import SEQUENCE, Windows
from kinema.inference.flip import flip_average, mirror_pose
from kinema.protocols.mpi_inf_3dhp import ACTIVITIES, Measured, MPIINF3DHPProtocol
from tests.parity.golden import Arrays, Case, cases

pytestmark = pytest.mark.parity

BODY = skeleton("mpi_inf_3dhp17")
TRAIN, TEST = "data_train_3dhp.npz", "data_test_3dhp.npz"
# Normalised arrays; millimetres. The store keeps absolute positions in float32.
NORMAL, MM = 1e-6, 1e-3


def gathered(windows: Windows, batch_size: int) -> Iterator[dict[str, Tensor]]:
    """Batches in order, with the network's input made as in a run."""
    for start in range(0, len(windows), batch_size):
        rows = torch.arange(start, min(start + batch_size, len(windows)))
        batch = windows[torch.stack([torch.zeros_like(rows), rows, rows], dim=1)]
        yield pose(batch, Draws(0, 0, batch["draw"], batch["draw"][:1]), channels=3, confidence=True)


def joined(windows: Windows, batch_size: int = 64) -> dict[str, Tensor]:
    parts = list(gathered(windows, batch_size))
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


def relative(pose3d: Tensor) -> Tensor:
    return pose3d - pose3d[..., BODY.root : BODY.root + 1, :]


def split_of(read: Sequences, split: str) -> Sequences:
    return read.select(read.table["split"] == split)


def check_clips(case: Case, read: Sequences, config: dict[str, Any], expected: Arrays) -> None:
    frames, stride = config["n_frames"], config["stride"]
    train = joined(Windows.stretched(split_of(read, "train"), frames, stride))
    case.close("training input", train["pose"], expected["train_poses_2d"], atol=NORMAL)
    case.close("training label", relative(train["pose3d"]), expected["train_poses_3d"], atol=NORMAL)
    first = {key: value[:1] for key, value in train.items()}
    draws = Draws(0, 0, first["draw"], first["draw"][:1])
    mirrored = flip(first, draws, probability=1.0, skeleton=BODY, skeleton2d=BODY)
    case.close("flipped input", mirrored["pose"][0], expected["train_item0_flipped_2d"], atol=NORMAL)
    case.close("flipped label", relative(mirrored["pose3d"])[0], expected["train_item0_flipped_3d"], atol=NORMAL)
    sequences = split_of(read, "test")
    windows = Windows.stretched(sequences, frames, frames)
    test = joined(windows)
    case.close("test input", test["pose"], expected["test_clips_2d"], atol=NORMAL)
    case.close("test label", relative(test["pose3d"]), expected["test_clips_3d"], atol=NORMAL)
    case.close("valid", test["valid"], expected["test_clips_valid"])
    with case.check("sequence of each clip"):
        found = sequences.table["subject"][windows.table[:, SEQUENCE]]
        assert found.tolist() == expected["test_clips_seq"].tolist()


def check_windows(case: Case, windows: Windows, config: dict[str, Any], expected: Arrays) -> None:
    batch = joined(windows)
    case.close("number of windows", len(windows), expected["window_count"])
    views = batch["pose"]
    if config["test_augmentation"]:
        views = torch.stack([views, mirror_pose(views, BODY)], dim=1)
    case.close("windows", views, expected["window_2d"], atol=NORMAL)
    with case.check("only the middle of a window counts"):
        middle = batch["valid"].shape[1] // 2
        assert batch["valid"][:, middle].all()
        assert int(batch["valid"].sum()) == len(windows)
    # Joints are relative to the root, which itself stays where it is.
    table = windows.sequences.table
    rows = windows.table[:, SEQUENCE]
    width, height = (torch.from_numpy(table[name][rows]).double()[:, None, None] for name in ("width", "height"))
    centre = batch["pose3d"][:, middle].double()
    corner = torch.cat([torch.ones_like(width), height / width, torch.zeros_like(width)], dim=-1)
    target = relative(centre)
    target[:, BODY.root] = (centre + corner)[:, BODY.root]
    case.close("window targets", (target * width / 2)[:, None], expected["window_3d"], atol=MM)
    with case.check("sequence of each window"):
        assert table["subject"][rows].tolist() == expected["window_seq"].tolist()


class Stub:
    """The network of the golden numbers: every joint from its own neighbourhood in time."""

    def __init__(self, arrays: Arrays) -> None:
        self.weight, self.bias, self.kernel = (torch.from_numpy(arrays[f"stub_{key}"]) for key in ("W", "b", "kernel"))

    def __call__(self, pose: Tensor) -> Tensor:
        places = pose[..., :2] - pose[..., BODY.root : BODY.root + 1, :2]
        x = torch.cat([places, pose[..., 2:]], dim=-1)
        padded = torch.cat([x[:, :1], x, x[:, -1:]], dim=1)
        v = sum(self.kernel[k] * padded[:, k : k + x.shape[1]] for k in range(len(self.kernel)))
        return torch.einsum("btjc,jcd->btjd", v, self.weight) + self.bias


def rows_of(text: str) -> list[list[str]]:
    return list(csv.reader(text.splitlines()))


def check_sheet(case: Case, what: str, found: str, expected: Path, slack: tuple[str, str] | None = None) -> None:
    """Compare every cell: labels exactly, millimetres to 1e-3, shares to 1e-6.

    Args:
        case: takes the differences.
        what: the sheet's name in messages.
        found: text of our sheet.
        expected: the file.
        slack: sheets of the lowest and the highest shares that rounding of the errors allows; None = none.
    """
    mine, theirs = rows_of(found), rows_of(expected.read_text())
    with case.check(f"{what}: layout"):
        assert [row[0] for row in mine] == [row[0] for row in theirs]
        assert [len(row) for row in mine] == [len(row) for row in theirs]
    lowest, highest = [rows_of(text) for text in slack] if slack else [theirs, theirs]
    block = ""
    for a, b, low, high in zip(mine, theirs, lowest, highest, strict=True):
        if b[0] in ("", "PCK", "AUC"):
            block = b[0]
            with case.check(f"{what}: header {block}"):
                assert a == b
            continue
        with case.check(f"{what}: empty cells of {b[0]}"):
            assert [cell in ("", "-") for cell in a] == [cell in ("", "-") for cell in b]
        values = [np.array([float(cell) for cell in row[1:] if cell not in ("", "-")]) for row in (a, b, low, high)]
        if block == "":
            case.close(f"{what}: {b[0]}", values[0], values[1], atol=MM)
            continue
        with case.check(f"{what}: {block} of {b[0]}"):
            apart = np.abs(values[0] - values[1])
            assert (apart <= 1e-6 + (values[3] - values[2])).all(), f"{values[0]}, expected {values[1]}"


def check_results(case: Case, windows: Windows, config: dict[str, Any], expected: Arrays) -> None:
    stub = Stub(expected)
    averaged = config["test_augmentation"]
    protocol = MPIINF3DHPProtocol(windows)
    for batch in gathered(windows, config["test_batch_size"]):
        protocol.update(flip_average(stub, batch["pose"], BODY, BODY) if averaged else stub(batch["pose"]), batch)
    report = protocol.compute()
    errors = expected["errors_mm"]
    case.close("MPJPE", report.scalars["mpjpe"], expected["mpjpe_mm"], atol=MM)
    case.close("MPJPE without root", report.scalars["mpjpe_no_root"], expected["mpjpe_mm"] * 17 / 16, atol=MM)
    case.close("errors", report.arrays["errors"], errors, atol=MM)
    for name in expected.names("inference/"):
        case.close(name, report.arrays[name], expected[name], atol=MM)
    # An error within float32 rounding of a threshold may fall on either side of it.
    judged = errors[:, [joint for joints in BODY.tables["pck_groups"].values() for joint in joints]]
    near = [int((np.abs(judged - t) < MM).sum()) for t in range(5, 151, 5)]
    case.close("PCK", report.scalars["pck"], expected["pck150"], atol=1e-6 + 100 * near[-1] / judged.size)
    case.close("AUC", report.scalars["auc"], expected["auc"], atol=1e-6 + 100 * sum(near) / 31 / judged.size)
    exact = Measured(errors, BODY)
    everything = exact.row(np.ones(len(errors), bool))
    case.close("PCK of the errors", everything["pck"], expected["pck150"], atol=1e-6)
    case.close("AUC of the errors", everything["auc"], expected["auc"], atol=1e-6)
    # The sheets: once from the stub's predictions, once exactly from the stored errors.
    sequence, frame = report.arrays["sequence"], report.arrays["frame"]
    labels = {name: expected[f"activity/{name}"] for name in np.unique(sequence)}
    label = np.asarray([labels[name][at] for name, at in zip(sequence, frame, strict=True)])
    seen = {f"TestSeq{name[2:]}": sequence == name for name in dict.fromkeys(sequence.tolist())}
    kinds = {name: label == number for number, name in enumerate(ACTIVITIES, start=1)}
    for name, groups in (
        ("sequencewise.csv", seen),
        ("activitywise.csv", {**kinds, "All": np.ones(len(errors), bool)}),
    ):
        path = case.file(f"expected_{name}")
        # An error within float32 rounding of a threshold may fall on either side of it.
        slack = Measured(errors + MM, BODY).sheet(groups), Measured(errors - MM, BODY).sheet(groups)
        check_sheet(case, name, report.files[name], path, slack)
        check_sheet(case, f"{name} of the errors", exact.sheet(groups), path)


@cases("mamba", "mpi_inf_3dhp")
def test_mpi_inf_3dhp(case: Case, tmp_path: Path) -> None:
    config, expected = case.json(), case.arrays("expected.npz")
    activities = tmp_path / "labels.npz"
    np.savez(activities, **{name.removeprefix("activity/"): expected[name] for name in expected.names("activity/")})
    for name in (TRAIN, TEST):
        (tmp_path / name).symlink_to(case.file(name))
    read = mpi_inf_3dhp.read(tmp_path, activities=activities.name)
    check_clips(case, read, config, expected)
    windows = Windows.centred(split_of(read, "test"), config["n_frames"])
    check_windows(case, windows, config, expected)
    check_results(case, windows, config, expected)
    case.finish()


@cases("mamba", "mpi_inf_3dhp")
def test_windows_of_a_case_without_the_mirrored_view(case: Case, tmp_path: Path) -> None:
    expected, config = case.arrays("expected.npz"), case.json()
    if not config["test_augmentation"]:
        pytest.skip("the case itself has one view")
    one = {name: expected[name] for name in ("window_count", "window_3d", "window_seq")}
    np.savez(tmp_path / "expected.npz", window_2d=expected["window_2d"][:, 0], **one)
    windows = Windows.centred(split_of(mpi_inf_3dhp.read(case.path), "test"), config["n_frames"])
    single = Case(tmp_path)
    check_windows(single, windows, {**config, "test_augmentation": False}, single.arrays("expected.npz"))
    single.finish()


@cases("mamba", "mpi_inf_3dhp")
def test_every_cell_of_a_sheet_is_compared(case: Case, tmp_path: Path) -> None:
    path = case.path / "expected_activitywise.csv"
    text = path.read_text()
    rows = rows_of(text)
    checked = 0
    for number, row in enumerate(rows):
        for column, cell in enumerate(row):
            if not cell or cell == "-":
                continue
            changed = [list(other) for other in rows]
            changed[number][column] = f"{cell}x" if number in headers(rows) or not column else f"{float(cell) + 0.01}"
            tampered = "\n".join(",".join(other) for other in changed)
            copy = Case(tmp_path)
            check_sheet(copy, "sheet", tampered, path, (text, text))
            with pytest.raises(pytest.fail.Exception, match="sheet: "):
                copy.finish()
            checked += 1
    assert checked > 100
    same = Case(tmp_path)
    check_sheet(same, "sheet", text, path, (text, text))
    same.finish()


def headers(rows: list[list[str]]) -> list[int]:
    return [number for number, row in enumerate(rows) if row[0] in ("", "PCK", "AUC")]
