"""MPI-INF-3DHP: joints, cameras, units and valid frames of the published files, and sentences for other input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scripts.convert_mpi_inf_3dhp import main

from kinema.data.convert import mpi_inf_3dhp as converter
from kinema.data.convert.mpi_inf_3dhp import ACTIVITIES, TEST, TRAIN, convert
from kinema.data.readers import mpi_inf_3dhp
from kinema.data.safe_pickle import load_npz
from kinema.errors import DataError
from tests.data.convert import originals

pytest.importorskip("scipy.io", reason="the converter of MPI-INF-3DHP needs SciPy (kinema[mat])")
pytest.importorskip("h5py", reason="the converter of MPI-INF-3DHP needs h5py (kinema[mat])")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two training sequences, and two tests in the folder of their own archive."""
    folder = tmp_path_factory.mktemp("original")
    originals.mpi_training(folder / "S1" / "Seq1" / "annot.mat", 0, 10)
    originals.mpi_training(folder / "S3" / "Seq2" / "annot.mat", 50, 8)
    originals.mpi_test(folder / "mpi_inf_3dhp_test_set" / "TS1" / "annot_data.mat", 90, 12, (2048, 2048))
    originals.mpi_test(folder / "mpi_inf_3dhp_test_set" / "TS5" / "annot_data.mat", 91, 9, (1920, 1080))
    return folder


@pytest.fixture(scope="module")
def converted(source: Path) -> Path:
    output = source.parent / "mpi_converted"
    if not output.exists():
        convert([source], output, partial=True)
    return output


def test_training_is_eight_cameras_of_seventeen_joints(converted: Path) -> None:
    data = load_npz(converted / TRAIN)["data"]
    assert {name: entry[1] for name, entry in data.items()} == {"S1 Seq1": 25, "S3 Seq2": 50}
    cameras = data["S1 Seq1"][0]
    assert list(cameras) == ["0", "1", "2", "4", "5", "6", "7", "8"]
    for camera, view in cameras.items():
        flat, solid = originals.mpi_view(int(camera), 10, (2048, 2048))
        named = [originals.MPI28.index(name) for name in originals.MPI17.joints]
        np.testing.assert_array_equal(view["data_2d"], flat[:, named])
        np.testing.assert_array_equal(view["data_3d"], solid[:, named])


def test_the_test_set_keeps_all_frames_and_which_are_valid(converted: Path) -> None:
    data = load_npz(converted / TEST)["data"]
    assert list(data) == ["TS1", "TS5"]
    flat, solid = originals.mpi_view(91, 9, (1920, 1080))
    named = [originals.MPI28.index(name) for name in originals.MPI17.joints]
    np.testing.assert_array_equal(data["TS5"]["data_2d"], flat[:, named])
    np.testing.assert_array_equal(data["TS5"]["data_3d"], solid[:, named])
    np.testing.assert_array_equal(data["TS5"]["valid"], np.arange(9) % 3 != 1)
    labels = load_npz(converted / ACTIVITIES)
    np.testing.assert_array_equal(labels["TS1"], [1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3])


def test_the_reader_takes_the_result(converted: Path) -> None:
    read = mpi_inf_3dhp.read(converted)
    assert len(read) == 2 * 8 + 2
    assert read.table["width"][-1] == 1920 and read.table["fps"][0] == 25
    assert read.sequence(17)["activity"].tolist() == [1, 1, 1, 1, 2, 2, 2, 2, 3]
    assert read.sequence(17)["valid"].sum() == 6


def test_frames_after_the_last_picture_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(converter.SEQUENCES, "S1 Seq1", (7, 25))
    originals.mpi_training(tmp_path / "S1" / "Seq1" / "annot.mat", 0, 10)
    convert([tmp_path], tmp_path / "out", partial=True)
    assert load_npz(tmp_path / "out" / TRAIN)["data"]["S1 Seq1"][0]["0"]["data_2d"].shape == (7, 17, 2)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [TRAIN]


def test_versions_of_matlab_files_do_not_matter(tmp_path: Path, source: Path, converted: Path) -> None:
    frames, views = 10, [originals.mpi_view(camera, 10, (2048, 2048)) for camera in range(14)]
    originals.mat73(
        tmp_path / "S1" / "Seq1" / "annot.mat",
        annot2=originals.cells([flat.reshape(frames, 56) for flat, _ in views]),
        univ_annot3=originals.cells([solid.reshape(frames, 84) for _, solid in views]),
        cameras=np.arange(14.0)[None],
    )
    convert([tmp_path], tmp_path / "out", partial=True)
    np.testing.assert_equal(
        load_npz(tmp_path / "out" / TRAIN)["data"]["S1 Seq1"], load_npz(converted / TRAIN)["data"]["S1 Seq1"]
    )


def test_what_is_missing_is_named(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(source), "--output", str(tmp_path / "out")])
    assert ended.value.code == 2
    assert "error: 18 of 22 sequences are missing: S1 Seq2, S2 Seq1," in capsys.readouterr().err
    main([str(source), "--output", str(tmp_path / "out"), "--partial"])
    assert "TS1: 12 frames, 8 of them valid" in capsys.readouterr().out


def test_complete_data_is_told_by_its_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converter, "VALID_FRAMES", {"TS1": 603})
    monkeypatch.setattr(converter, "SEQUENCES", {"S1 Seq1": (6416, 25)})
    originals.mpi_training(tmp_path / "S1" / "Seq1" / "annot.mat", 0, 10)
    test = originals.mpi_test(tmp_path / "TS1" / "annot_data.mat", 1, 12, (2048, 2048))
    with pytest.raises(DataError, match=r"annot\.mat, camera 0: 10 frames, 6416 expected\. Complete the download"):
        convert([tmp_path], tmp_path / "out")
    monkeypatch.setattr(converter, "SEQUENCES", {"S1 Seq1": (10, 25)})
    with pytest.raises(DataError, match=r"annot_data\.mat: 8 valid frames, 603 expected\. Complete the download"):
        convert([tmp_path], tmp_path / "out")
    monkeypatch.setattr(converter, "VALID_FRAMES", {"TS1": 8})
    convert([tmp_path], tmp_path / "out")
    test.unlink()
    with pytest.raises(DataError, match=r"1 of \d+ sequences are missing: TS1"):
        convert([tmp_path], tmp_path / "other")


def _gap() -> np.ndarray:
    values = [originals.mpi_view(camera, 6, (2048, 2048))[1].reshape(6, 84) for camera in range(14)]
    values[4][3, 12] = np.nan  # x of joint 4, the pelvis
    return originals.cells(values)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"univ_annot3": _gap()}, r"camera 4, univ_annot3: 1 of 6 frames hold NaN or infinity \(first 3\)"),
        (
            {"annot2": originals.cells([np.zeros((6, 34))] * 14)},
            r"camera 0, annot2: float64 \(6, 34\), expected \(frames, 56\), 2 of each of 28 joints",
        ),
        ({"annot2": originals.cells([np.zeros((6, 56))] * 3)}, r"annot2: 3 cells for 14 cameras"),
        ({"annot2": originals.cells([np.zeros((5, 56))] * 14)}, r"camera 0: 2D and 3D have different lengths"),
        ({"cameras": np.arange(14)[None] + 1}, r"has no camera 0, only 1, 2"),
        (
            {"univ_annot3": originals.cells([originals.mpi_view(0, 6, (2048, 2048))[1].reshape(6, 84) / 1000] * 14)},
            r"camera 0: bones average 0\.\d+, but the original files hold millimetres",
        ),
    ],
)
def test_other_training_files_give_a_sentence(tmp_path: Path, changes: dict[str, np.ndarray], sentence: str) -> None:
    originals.mpi_training(tmp_path / "S1" / "Seq1" / "annot.mat", 0, 6, **changes)
    with pytest.raises(DataError, match=sentence):
        convert([tmp_path], tmp_path / "out", partial=True)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"annot2": np.zeros((2, 28, 1, 6))}, r"annot2: float64 \(2, 28, 1, 6\), expected \(2, 17 joints, 1, 6 frames"),
        ({"annot2": np.full((2, 17, 1, 6), np.inf)}, r"annot2, valid frames: 4 of 4 frames hold NaN"),
        ({"activity_annotation": np.ones((5, 1))}, r"activity_annotation: 5 labels for 6 frames"),
    ],
)
def test_other_test_files_give_a_sentence(tmp_path: Path, changes: dict[str, np.ndarray], sentence: str) -> None:
    originals.mpi_test(tmp_path / "TS2" / "annot_data.mat", 0, 6, (2048, 2048), **changes)
    with pytest.raises(DataError, match=sentence):
        convert([tmp_path], tmp_path / "out", partial=True)


def test_a_truncated_file_and_an_empty_folder_give_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no sequence of MPI-INF-3DHP\. Expected <folder>/S1/Seq1/annot\.mat"):
        convert([tmp_path], tmp_path / "out", partial=True)
    path = originals.mpi_test(tmp_path / "TS2" / "annot_data.mat", 0, 6, (2048, 2048))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"annot_data\.mat cannot be read as a MATLAB file \("):
        convert([tmp_path], tmp_path / "out", partial=True)
