"""NTU RGB+D: raw .skeleton files to the published 3D container, and which tracked bodies become its persons."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from scripts.convert_ntu import main

from kinema.data.convert import ntu as converter
from kinema.data.convert.ntu import convert
from kinema.data.convert.ntu_files import Track, parse, persons, without_skeleton
from kinema.data.safe_pickle import load_pickle
from kinema.errors import DataError

Bodies = Mapping[str, tuple[int, np.ndarray]]


def body(seed: int, frames: int, *, wide: bool = False, amount: float = 0.02) -> np.ndarray:
    """(T, 25, 3) metres of somebody who stands upright, or lies, and moves by `amount`."""
    random = np.random.default_rng(seed)
    pose = random.uniform(-1, 1, (25, 3)) * ((0.9, 0.2, 0.1) if wide else (0.2, 0.9, 0.1)) + (0.1 * seed, 0, 3)
    return (pose + np.cumsum(random.normal(0, amount, (frames, 1, 3)), axis=0)).astype(np.float32)


def raw(bodies: Bodies, frames: int) -> bytes:
    """A .skeleton file: bodies by number, each with its first frame and its joints."""
    lines = [str(frames)]
    for frame in range(frames):
        here = [(number, points[frame - first]) for number, (first, points) in bodies.items()
                if first <= frame < first + len(points)]  # fmt: skip
        lines.append(str(len(here)))
        for number, points in here:
            lines += [f"{number} 0 1 1 1 1 0 0.01 -0.02 2", "25"]
            lines += [" ".join(map(repr, point.tolist())) + " 1 2 3 4 0.1 0.2 0.3 nan 2" for point in points]
    return ("\n".join(lines) + "\n").encode()


def written(folder: Path, name: str, *, frames: int = 14, seed: int = 1) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.skeleton"
    path.write_bytes(raw({"72057594037931101": (0, body(seed, frames))}, frames))
    return path


def test_a_file_is_read_joint_by_joint_and_frames_without_bodies_are_not_counted() -> None:
    one, other = body(1, 6), body(2, 3)
    # Numbers that a float could not tell apart.
    tracks = parse(raw({"72057594037931101": (2, one), "72057594037931102": (4, other)}, 9), "clip")
    assert [track.start for track in tracks] == [0, 2]
    np.testing.assert_array_equal(tracks[0].points, one)
    np.testing.assert_array_equal(tracks[1].points, other)
    assert tracks[0].motion == pytest.approx(one.reshape(-1, 3).var(0).sum(), rel=1e-5)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda data: data[:2000], r"clip is no skeleton file of NTU RGB\+D"),
        (lambda data: data + b"7\n", r"words, \d+ expected"),
        (lambda data: data.replace(b"\n25\n", b"\n24\n"), "a body of 24 joints"),
        (lambda data: b"", "no skeleton file"),
        (
            lambda data: data.replace(b" 1 2 3 4 ", b" x 2 3 4 ").replace(b"0 1 1 1 1 0", b"0 1 1 1 1 0 0"),
            "no skeleton",
        ),
    ],
)
def test_a_damaged_file_gives_a_sentence(change, sentence: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DataError, match=sentence):
        parse(change(raw({"1": (0, body(1, 4))}, 4)), "clip")


def test_nan_gives_a_sentence() -> None:
    points = body(1, 4)
    points[2, 3, 1] = np.nan
    with pytest.raises(DataError, match="holds NaN"):
        parse(raw({"1": (0, points)}, 4), "clip")


def track(start: int, points: np.ndarray) -> Track:
    return Track(start, points, float(points.reshape(-1, 3).var(0).sum()))


def test_a_single_track_is_taken_as_it_is_however_short() -> None:
    one = body(1, 5, wide=True)
    chosen = persons([track(3, one)])
    assert chosen is not None
    np.testing.assert_array_equal(chosen, one[None])
    assert persons([]) is None


def test_short_and_lying_tracks_are_no_persons() -> None:
    one, short, lying = body(1, 30), body(2, 11, amount=1.0), body(3, 30, wide=True, amount=1.0)
    for others in ([track(0, short)], [track(0, lying)], [track(0, short), track(0, lying)]):
        chosen = persons([*others, track(0, one)])
        assert chosen is not None
        np.testing.assert_array_equal(chosen, one[None])
    assert persons([track(0, short), track(2, short)]) is None
    assert persons([track(0, lying), track(0, lying + 1)]) is None


def test_the_strongest_comes_first_and_others_fill_what_is_free() -> None:
    strong, weak = body(1, 20, amount=0.3), body(2, 20, amount=0.001)
    chosen = persons([track(0, weak), track(5, strong)])
    assert chosen is not None and chosen.shape == (2, 25, 25, 3)
    # Only the weak one is there in frame 0: it comes first after all.
    np.testing.assert_array_equal(chosen[0, :20], weak)
    np.testing.assert_array_equal(chosen[1, 5:], strong)
    assert not chosen[1, :5].any() and not chosen[0, 20:].any()
    # A track after the strong one goes on as the same person; a third at the same time is nobody.
    after, third = body(3, 15, amount=0.0005), body(4, 12, amount=0.0001)
    chosen = persons([track(0, strong), track(0, weak), track(20, after), track(1, third)])
    assert chosen is not None and chosen.shape == (2, 35, 25, 3)
    np.testing.assert_array_equal(chosen[0], np.concatenate([strong, after]))
    np.testing.assert_array_equal(chosen[1, :20], weak)
    assert not chosen[1, 20:].any()


def test_frames_in_which_a_track_is_wide_do_not_make_it_the_strongest() -> None:
    steady, jumpy = body(1, 20, amount=0.3), body(2, 20, amount=0.001)
    jumpy[:8] = body(2, 8, wide=True, amount=2.0)
    assert track(0, jumpy).motion > track(0, steady).motion
    chosen = persons([track(0, jumpy), track(0, steady)])
    assert chosen is not None
    np.testing.assert_array_equal(chosen[0], steady)
    np.testing.assert_array_equal(chosen[1], jumpy)


def test_empty_ends_are_cut() -> None:
    one, two = body(1, 14), body(2, 14)
    one[0] = two[0] = 0
    one[-2:] = two[-2:] = 0
    one[-2, 5] = 0.1  # the last but one is not empty
    for points in (one, two):  # all joints at one place are as wide as high: such frames are no lying body
        assert not points[0].any()
    chosen = persons([track(0, one), track(0, two)])
    assert chosen is not None
    assert chosen.shape == (2, 12, 25, 3)


NAMES = (
    "S001C001P001R001A001", "S001C002P001R001A001", "S002C001P003R002A060", "S018C003P008R001A061",
    "S019C001P042R001A120",
)  # fmt: skip


def test_containers_have_the_published_layout_and_splits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, name in enumerate(NAMES):
        written(tmp_path / "raw" / "nested", name, frames=12 + seed, seed=seed)
    written(tmp_path / "raw", "S001C002P005R002A008")  # known to have no usable skeleton
    main([str(tmp_path / "raw"), "--output", str(tmp_path / "out"), "--partial", "--workers", "1"])
    said = capsys.readouterr().out
    assert "6 files, 1 of them known to have no usable skeleton" in said
    assert "ntu120_3danno.pkl: 5 clips (xsub_train 3, xsub_val 2, xset_train 2, xset_val 3)" in said
    small, large = (load_pickle(tmp_path / "out" / f"ntu{n}_3danno.pkl") for n in (60, 120))
    assert [each["frame_dir"] for each in large["annotations"]] == sorted(NAMES)
    assert [each["label"] for each in small["annotations"]] == [0, 0, 59]
    assert small["split"] == {
        "xsub_train": list(NAMES[:2]), "xsub_val": [NAMES[2]],
        "xview_train": [NAMES[1]], "xview_val": [NAMES[0], NAMES[2]],
    }  # fmt: skip
    assert large["split"]["xset_train"] == [NAMES[2], NAMES[3]]
    for seed, each in enumerate(large["annotations"]):
        assert each["total_frames"] == 12 + seed
        assert each["keypoint"].dtype == np.float16
        np.testing.assert_array_equal(each["keypoint"], body(seed, 12 + seed)[None].astype(np.float16))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["ntu120_3danno.pkl", "ntu60_3danno.pkl"]


def test_archives_give_the_same_as_folders_and_processes_the_same_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(converter, "_PART", 2)
    with zipfile.ZipFile(tmp_path / "skeletons.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for seed, name in enumerate(NAMES):
            archive.write(written(tmp_path / "raw", name, seed=seed), f"nturgb+d_skeletons/{name}.skeleton")
    convert([tmp_path / "raw"], tmp_path / "one", partial=True, workers=1)
    convert([tmp_path / "skeletons.zip"], tmp_path / "two", partial=True, workers=2)
    for name in ("ntu60_3danno.pkl", "ntu120_3danno.pkl"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_stopped_conversion_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converter, "_PART", 2)
    sizes = [(*each[:3], count) for each, count in zip(converter.CONTAINERS, (3, 5), strict=True)]
    monkeypatch.setattr(converter, "CONTAINERS", tuple(sizes))  # five clips are the complete data set
    files = [written(tmp_path / "raw", name, seed=seed) for seed, name in enumerate(NAMES)]
    read: list[str] = []
    monkeypatch.setattr(converter, "parse", lambda data, label: (read.append(label), parse(data, label))[1])
    whole = files[3].read_bytes()
    files[3].write_bytes(whole[:500])
    with pytest.raises(DataError, match=r"1 files are damaged, the first: S018C003P008R001A061 is no .* --partial"):
        convert([tmp_path / "raw"], tmp_path / "out", workers=1)
    assert len(read) == 5
    files[3].write_bytes(whole)
    read.clear()
    convert([tmp_path / "raw"], tmp_path / "out", partial=True, workers=1)
    assert read == sorted(NAMES)[2:4]  # the part with the damaged file, and no other
    assert len(load_pickle(tmp_path / "out" / "ntu120_3danno.pkl")["annotations"]) == 5


def test_damaged_files_and_clips_without_person_are_left_out_and_named(tmp_path: Path) -> None:
    files = [written(tmp_path / "raw", name, seed=seed) for seed, name in enumerate(NAMES)]
    files[0].write_bytes(b"3\n0\n0\n0\n")
    files[1].write_bytes(b"garbage")
    said = convert([tmp_path / "raw"], tmp_path / "out", partial=True, workers=1)
    assert f"left out, damaged: {NAMES[1]} is no skeleton file" in said
    assert f"no track can be a person: 1 clips ({NAMES[0]})" in said
    assert "ntu60_3danno.pkl: 1 clips" in said


def test_what_cannot_be_converted_gives_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not found"):
        convert([tmp_path / "nowhere"], tmp_path / "out")
    (tmp_path / "raw").mkdir()
    with pytest.raises(DataError, match=r"There is no \.skeleton file"):
        convert([tmp_path / "raw"], tmp_path / "out")
    written(tmp_path / "raw", NAMES[0])
    with pytest.raises(DataError, match=r"takes 56578 clips, 1 are here\. .*--partial"):
        convert([tmp_path / "raw"], tmp_path / "out")
    written(tmp_path / "raw" / "again", NAMES[0])
    with pytest.raises(DataError, match=r"Name one copy"):
        convert([tmp_path / "raw"], tmp_path / "out", partial=True)
    written(tmp_path / "own", "jump_01")
    with pytest.raises(DataError, match=r"'jump_01' is no name of an NTU RGB\+D clip .*dataset=clip_folder"):
        convert([tmp_path / "own"], tmp_path / "out", partial=True)
    written(tmp_path / "good", NAMES[0])
    convert([tmp_path / "good"], tmp_path / "out", partial=True, workers=1)
    with pytest.raises(DataError, match="--overwrite"):
        convert([tmp_path / "good"], tmp_path / "out", partial=True)
    (tmp_path / "bad.zip").write_bytes(b"PK no")
    with pytest.raises(DataError, match=r"bad\.zip is no readable zip archive"):
        convert([tmp_path / "bad.zip"], tmp_path / "out", partial=True)


def test_lists_of_clips_without_skeleton(tmp_path: Path) -> None:
    known = without_skeleton()
    assert len(known) == 535 and sum(int(name[-3:]) <= 60 for name in known) == 302
    assert "S032C003P067R002A077" in known
    for seed, name in enumerate(NAMES):
        written(tmp_path / "raw", name, seed=seed)
    own = tmp_path / "missing.txt"
    own.write_text(f"2 of the samples have missing skeletons.\n\n{NAMES[0]}\n{NAMES[4]}\n")
    convert([tmp_path / "raw"], tmp_path / "out", missing=own, partial=True, workers=1)
    left = load_pickle(tmp_path / "out" / "ntu120_3danno.pkl")["annotations"]
    assert [each["frame_dir"] for each in left] == list(NAMES[1:4])
    own.write_text("nothing\n")
    with pytest.raises(DataError, match="names no clip"):
        convert([tmp_path / "raw"], tmp_path / "out", missing=own, partial=True, overwrite=True)
