"""Human3.6M: every form of the original files gives the same two files, and faults give sentences."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from scripts.convert_h36m import main

from kinema.core.camera import recorded_camera
from kinema.data.convert.h36m import convert
from kinema.data.convert.h36m_files import SUBJECTS
from kinema.data.readers import videopose3d
from kinema.data.safe_pickle import load_npz
from kinema.errors import DataError
from tests.data.convert import originals

pytest.importorskip("cdflib", reason="the converter of Human3.6M needs cdflib (kinema[mat])")


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All 210 files, a few frames each."""
    return originals.h36m(tmp_path_factory.mktemp("original"), SUBJECTS)


@pytest.fixture(scope="module")
def converted(unpacked: Path) -> Path:
    output = unpacked.parent / "converted"
    if not output.exists():
        convert([unpacked], output)
    return output


def loaded(folder: Path) -> tuple[dict, dict, dict]:
    two = load_npz(folder / "data_2d_h36m_gt.npz")
    return load_npz(folder / "data_3d_h36m.npz")["positions_3d"], two["positions_2d"], two["metadata"]


def test_poses_are_the_originals_in_metres(unpacked: Path, converted: Path) -> None:
    world, _, _ = loaded(converted)
    assert list(world) == list(SUBJECTS)
    assert {subject: len(actions) for subject, actions in world.items()} == {s: 30 - (s == "S11") for s in SUBJECTS}
    assert "Directions" not in world["S11"] and "Directions 1" in world["S11"] and "Directions" in world["S9"]
    assert {"Photo", "Photo 1", "WalkDog", "WalkDog 2"} <= set(world["S5"])
    found = world["S6"]["Photo 1"]
    assert found.dtype == np.float32 and found.shape == (5, 32, 3)
    original = originals.h36m_pose(2, 5).astype(np.float32)
    np.testing.assert_array_equal(found, original / np.float32(1000))


def test_keypoints_are_projections_with_distortion(converted: Path) -> None:
    world, flat, metadata = loaded(converted)
    assert metadata == {
        "num_joints": 17, "keypoints_symmetry": [[4, 5, 6, 11, 12, 13], [1, 2, 3, 14, 15, 16]],
    }  # fmt: skip
    kept = list(originals.H36M32.map_to(originals.H36M17))
    for index, view in enumerate(flat["S9"]["Eating"]):
        camera = recorded_camera("h36m", "S9", index)
        lens = {"fx fy cx cy k p": camera["intrinsics"].astype(np.float64)}
        # The textbook order of operations in float64; only the pairing of p1 and p2 is that of the released constants.
        q, t = camera["orientation"].astype(np.float64), camera["translation"].astype(np.float64)
        local = world["S9"]["Eating"][:, kept].astype(np.float64) - t
        axis = -np.broadcast_to(q[1:], local.shape)
        local = local + 2 * (q[0] * np.cross(axis, local) + np.cross(axis, np.cross(axis, local)))
        flatter = local[..., :2] / local[..., 2:]
        fx, fy, cx, cy, k1, k2, k3, p1, p2 = lens["fx fy cx cy k p"]
        r2 = (flatter**2).sum(-1, keepdims=True)
        bend = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3 + (flatter * [p1, p2]).sum(-1, keepdims=True)
        screen = (flatter * bend + np.array([p1, p2]) * r2) * [fx, fy] + [cx, cy]
        expected = (screen + np.array([1, camera["height"] / camera["width"]])) * camera["width"] / 2
        assert view.dtype == np.float32 and view.shape == (4, 17, 2)
        np.testing.assert_allclose(view, expected, atol=1e-3)  # float32 at a thousand pixels


def test_the_reader_takes_the_result(converted: Path) -> None:
    read = videopose3d.read(
        converted, dataset="h36m", keypoints="gt", cameras="h36m", skeleton="h36m17", skeleton2d="h36m17",
        source_skeleton="h36m32",
    )  # fmt: skip
    assert len(read) == (7 * 30 - 1) * 4


def test_archives_as_downloaded_give_the_same_files(unpacked: Path, converted: Path, tmp_path: Path) -> None:
    downloads = tmp_path / "downloads"
    for subject in SUBJECTS[1:]:
        # Some archives hold the subject's folder, others begin inside it.
        prefix = f"{subject}/" if subject != "S5" else ""
        originals.packed(unpacked, subject, downloads / f"Poses_D3_Positions_{subject}.tgz", prefix)
    shutil.copytree(unpacked / "S1", downloads / "S1")
    originals.packed(unpacked, "S1", downloads / "Poses_D3_Positions_S1.tgz", "S1/")  # packed and unpacked: taken once
    convert([downloads], tmp_path / "out")
    for before, after in zip(loaded(converted), loaded(tmp_path / "out"), strict=True):
        np.testing.assert_equal(after, before)


def test_matlab_and_older_archives_give_the_same_poses(converted: Path, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    world, _, _ = loaded(converted)
    source = tmp_path / "source"
    for take, name in enumerate(originals.h36m_takes()):
        pose = originals.h36m_pose(0, 4 + take % 2).astype(np.float32)
        rows = originals.cells([pose.reshape(1, len(pose), 96)])
        originals.mat(source / "pose" / "S1" / "MyPoseFeatures" / "D3_Positions" / f"{name}.cdf.mat", data=rows)
    older = source / "h36m.zip"
    with zipfile.ZipFile(older, "w") as archive:
        for take, name in enumerate(originals.h36m_takes()):
            pose = originals.h36m_pose(1, 4 + take % 2).astype(np.float32)
            with h5py.File(tmp_path / "one.h5", "w") as file:
                file["3D_positions"] = pose.reshape(len(pose), 96).T
            named = name.replace("TakingPhoto", "Photo").replace("WalkingDog", "WalkDog")
            archive.write(tmp_path / "one.h5", f"h36m/S5/MyPoses/3D_positions/{named}.h5")
    convert([source, older], tmp_path / "out", partial=True)
    found, _, _ = loaded(tmp_path / "out")
    assert list(found) == ["S1", "S5"]
    for subject in found:
        np.testing.assert_equal(found[subject], world[subject])


def copied(unpacked: Path, tmp_path: Path) -> Path:
    """One subject that a test may damage; the only one it converts."""
    shutil.copytree(unpacked / "S1", tmp_path / "in" / "S1")
    return tmp_path / "in" / "S1" / "MyPoseFeatures" / "D3_Positions"


def test_a_missing_take_is_named(unpacked: Path, tmp_path: Path) -> None:
    folder = copied(unpacked, tmp_path)
    (folder / "Eating 1.cdf").unlink()
    with pytest.raises(DataError, match=r"S1 has 29 files, 30 expected: 2 of every action, but Eating 1\..*--partial"):
        convert([tmp_path / "in"], tmp_path / "out")
    summary = convert([tmp_path / "in"], tmp_path / "out", partial=True)
    assert "29 recordings of 1 subjects" in summary and "(complete data as papers use it: 1,559,752)" in summary
    with pytest.raises(DataError, match=r"data_3d_h36m\.npz is there already\. Use --overwrite"):
        convert([tmp_path / "in"], tmp_path / "out", partial=True)


def test_a_missing_subject_is_named(unpacked: Path, tmp_path: Path) -> None:
    copied(unpacked, tmp_path)
    with pytest.raises(DataError, match=r"There is nothing of subject S5\. Complete the download"):
        convert([tmp_path / "in"], tmp_path / "out")


def _truncated(folder: Path) -> None:
    path = folder / "Walking.cdf"
    path.write_bytes(path.read_bytes()[:700])


def _other_variable(folder: Path) -> None:
    originals.cdf(folder / "Walking.cdf", originals.h36m_pose(0, 4), variable="Angles")


def _joints(folder: Path) -> None:
    originals.cdf(folder / "Walking.cdf", originals.h36m_pose(0, 4)[:, :26])


def _gap(folder: Path) -> None:
    pose = originals.h36m_pose(0, 4)
    pose[2, 5] = np.nan
    originals.cdf(folder / "Walking.cdf", pose)


def _metres(folder: Path) -> None:
    originals.cdf(folder / "Walking.cdf", originals.h36m_pose(0, 4) / 1000)


def _mono(folder: Path) -> None:
    originals.cdf(folder / "Walking.cdf", originals.h36m_pose(0, 4) + np.array([0, 0, 5000]))


def _name(folder: Path) -> None:
    (folder / "Walking.cdf").rename(folder / "Juggling.cdf")


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (_truncated, r"Walking\.cdf cannot be read \(.*download it again"),
        (_other_variable, r"Walking\.cdf has no variable 'Pose', only Angles"),
        (_joints, r"Walking\.cdf: float32 \(1, 4, 78\), expected rows of 96 numbers"),
        (_gap, r"Walking\.cdf: 1 of 4 frames hold NaN or infinity \(first 2\)"),
        (_metres, r"Walking\.cdf: bones average 0\.\d+, but the original files hold millimetres"),
        (_mono, r"S1/Walking: camera \d+ sees \d+% of the joints\..*not D3_Positions_mono"),
        (_name, r"Juggling is no action of Human3\.6M"),
    ],
)
def test_damaged_input_gives_a_sentence_and_no_output(unpacked: Path, tmp_path: Path, damage, sentence: str) -> None:
    damage(copied(unpacked, tmp_path))
    with pytest.raises(DataError, match=sentence):
        convert([tmp_path / "in"], tmp_path / "out", partial=True)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_truncated_archive_gives_a_sentence(unpacked: Path, tmp_path: Path) -> None:
    archive = originals.packed(unpacked, "S1", tmp_path / "Poses_D3_Positions_S1.tgz", "S1/")
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    with pytest.raises(DataError, match=r"Poses_D3_Positions_S1\.tgz cannot be unpacked \(.*download it again"):
        convert([archive], tmp_path / "out", partial=True)


def test_other_sources_are_refused(unpacked: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere not found\. Name the folder"):
        convert([tmp_path / "nowhere"], tmp_path / "out")
    (tmp_path / "in" / "S1" / "MyPoseFeatures" / "D3_Positions_mono").mkdir(parents=True)
    with pytest.raises(DataError, match=r"in holds no 3D positions of Human3\.6M\. Expected .*D3_Positions_mono"):
        convert([tmp_path / "in"], tmp_path / "out")
    with pytest.raises(DataError, match=r"S1/Directions 1 occurs twice"):
        copied(unpacked, tmp_path / "twice")
        convert([unpacked, tmp_path / "twice" / "in"], tmp_path / "out")


def test_the_program_converts_and_ends_with_a_sentence_otherwise(
    unpacked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied(unpacked, tmp_path)
    words = [str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    main([*words, "--partial"])
    assert f"wrote {tmp_path / 'out' / 'data_3d_h36m.npz'}" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'out' / 'data_3d_h36m.npz'} is there already.")
