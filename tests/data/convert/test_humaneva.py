"""HumanEva-I: chunks of valid frames under the published names, and sentences for what is no such export."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from scripts.convert_humaneva import main

from kinema.data.convert.humaneva import convert
from kinema.data.readers import videopose3d
from kinema.data.safe_pickle import load_npz
from kinema.errors import DataError
from tests.data.convert import originals

pytest.importorskip("scipy.io", reason="the converter of HumanEva-I needs SciPy (kinema[mat])")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return originals.humaneva(tmp_path_factory.mktemp("exported"))


@pytest.fixture(scope="module")
def converted(exported: Path) -> Path:
    output = exported.parent / "humaneva_converted"
    if not output.exists():
        convert([exported], output)
    return output


def loaded(folder: Path) -> tuple[dict, dict, dict]:
    two = load_npz(folder / "data_2d_humaneva15_gt.npz")
    return load_npz(folder / "data_3d_humaneva15.npz")["positions_3d"], two["positions_2d"], two["metadata"]


def test_valid_stretches_become_chunks_that_count_the_invalid_ones(converted: Path) -> None:
    world, flat, metadata = loaded(converted)
    assert list(world) == ["Train/S1", "Train/S2", "Train/S3", "Validate/S1", "Validate/S2", "Validate/S3"]
    # frame 0 is missing (run 0), 1 to 3 are run 1, 4 and 5 run 2, the rest run 3
    assert list(world["Train/S3"]) == [
        "Box 1 chunk0", "Gestures 1 chunk0", "Jog 1 chunk0", "Walking 1 chunk1", "Walking 1 chunk3",
    ]  # fmt: skip
    assert metadata == {
        "layout_name": "humaneva15", "num_joints": 15,
        "keypoints_symmetry": [[2, 3, 4, 8, 9, 10], [5, 6, 7, 11, 12, 13]],
    }  # fmt: skip
    number = originals.HUMANEVA_FILES.index("Train/S1/Walking_1.mat")
    pose, views = originals.humaneva_pose("S1", 12 + number % 3, number)
    for chunk, frames in (("chunk1", slice(1, 4)), ("chunk3", slice(6, None))):
        found = world["Train/S1"][f"Walking 1 {chunk}"]
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, pose[frames].astype(np.float32) / np.float32(1000))
        np.testing.assert_array_equal(flat["Train/S1"][f"Walking 1 {chunk}"], views[:, frames].astype(np.float32))
    assert {key: list(actions) for key, actions in flat.items()} == {
        key: list(actions) for key, actions in world.items()
    }


def test_files_of_version_7_3_are_read_alike(tmp_path: Path) -> None:
    pose, views = originals.humaneva_pose("S2", 9)
    originals.mat(tmp_path / "a" / "Train" / "S2" / "Jog_1.mat", poses_3d=pose, poses_2d=views)
    originals.mat73(tmp_path / "b" / "Train" / "S2" / "Jog_1.mat", poses_3d=pose, poses_2d=views)
    for name in ("a", "b"):
        convert([tmp_path / name], tmp_path / "out" / name, partial=True)
    np.testing.assert_equal(loaded(tmp_path / "out" / "b"), loaded(tmp_path / "out" / "a"))


def test_the_reader_takes_the_result(converted: Path) -> None:
    read = videopose3d.read(
        converted, dataset="humaneva15", keypoints="gt", cameras="humaneva15", skeleton="humaneva15",
        skeleton2d="humaneva15",
    )  # fmt: skip
    assert len(read) == 3 * (28 + 6)  # the six recordings of walking have two chunks
    assert set(read.table["action"].tolist()) == {"Box", "Gestures", "Jog", "ThrowCatch", "Walking"}
    assert set(read.table["fps"].tolist()) == {60.0}


def test_the_program_names_missing_recordings(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(exported / "Train" / "S1", tmp_path / "in" / "Train" / "S1")
    words = [str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "error: 23 of 28 recordings are missing: Train/S2/Box 1" in capsys.readouterr().err
    main([*words, "--partial"])
    assert "Train/S1: 6 chunks" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("case", "sentence"),
    [
        ("20 joints", r"Jog_1\.mat, poses_3d: shape \(9, 20, 3\), .*Export the 15 joints"),
        ("two cameras", r"Jog_1\.mat, poses_2d: shape \(2, 9, 15, 2\), expected \(3, 9, 15, 2\): cameras C1 to C3"),
        ("torn", r"Jog_1\.mat: in 1 frames \(first 2\) only one of poses_3d and poses_2d is missing"),
        ("metres", r"Jog_1\.mat: bones average 0\.\d+, but the original files hold millimetres"),
        ("empty", r"None of the 1 recordings has a valid frame"),
        ("variable", r"Jog_1\.mat has no variable 'poses_2d'; found poses_3d"),
        ("truncated", r"Jog_1\.mat cannot be read as a MATLAB file \("),
        ("trial", r"Train/S2/Jog 2 is no recording of the protocol"),
        ("nothing", r"in holds no exported recording\. Expected <folder>/Train/S1/Walking_1\.mat"),
    ],
)
def test_other_input_gives_a_sentence_and_no_output(tmp_path: Path, case: str, sentence: str) -> None:
    pose, views = originals.humaneva_pose("S2", 9)
    path = tmp_path / "in" / "Train" / "S2" / ("Jog_2.mat" if case == "trial" else "Jog_1.mat")
    if case == "20 joints":
        pose = np.concatenate([pose, pose[:, :5]], axis=1)
    elif case == "two cameras":
        views = views[:2]
    elif case == "torn":
        views[1, 2, 3] = np.nan
    elif case == "metres":
        pose /= 1000
    elif case == "empty":
        pose[:], views[:] = np.nan, np.nan
    originals.mat(path, **({"poses_3d": pose} if case == "variable" else {"poses_3d": pose, "poses_2d": views}))
    if case == "truncated":
        path.write_bytes(path.read_bytes()[:900])
    if case == "nothing":
        path.unlink()
    with pytest.raises(DataError, match=sentence):
        convert([tmp_path / "in"], tmp_path / "out", partial=True)
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []
