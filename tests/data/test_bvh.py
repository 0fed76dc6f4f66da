"""BVH: positions against a plain loop over joints, every order of channels, and a sentence for every broken file."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kinema.data.bvh import Bvh, load, parse
from kinema.errors import DataError
from tests.data.motion_layouts import PERSON, bvh, moving

CHAIN = (("root", "", (1.0, 2.0, 3.0)), ("arm", "root", (0.0, 10.0, 0.0)), ("", "arm", (0.0, 5.0, 0.0)))


def turned(axis: str, degrees: float) -> list[list[float]]:
    """A rotation about one axis, written out."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return {
        "X": [[1, 0, 0], [0, c, -s], [0, s, c]],
        "Y": [[c, 0, s], [0, 1, 0], [-s, 0, c]],
        "Z": [[c, -s, 0], [s, c, 0], [0, 0, 1]],
    }[axis]


def plain(motion: Bvh) -> np.ndarray:
    """Positions by the book: joint by joint, frame by frame."""
    made = np.zeros((len(motion.frames), len(motion.joints), 3))
    for t, row in enumerate(motion.frames):
        values, turns = iter(row), {}
        for j, names in enumerate(motion.channels):
            local, turn = list(motion.offsets[j]), np.eye(3)
            for name in names:
                value = next(values)
                if name.endswith("position"):
                    local["XYZ".index(name[0])] = value
                else:
                    turn = turn @ np.array(turned(name[0], value))
            parent = motion.parents[j]
            made[t, j] = local if parent < 0 else made[t, parent] + turns[parent] @ local
            turns[j] = turn if parent < 0 else turns[parent] @ turn
    return made


@pytest.mark.parametrize("order", ["".join(axes) for axes in itertools.permutations("XYZ")])
def test_positions_of_every_order_of_rotations_equal_the_plain_loop(order: str) -> None:
    text = bvh(moving(7, seed=3), rotation=[f"{axis}rotation" for axis in order])
    motion = parse(text, "a.bvh")
    np.testing.assert_allclose(motion.positions(), plain(motion), atol=1e-9)


def test_a_turned_arm_is_where_it_should_be() -> None:
    frames = np.array([[0.0, 0, 0, 0, 0, 0, 0, 0, 0], [4.0, 5, 6, 90, 0, 0, 90, 0, 0]])
    place = parse(bvh(frames, CHAIN), "a.bvh").positions()
    np.testing.assert_allclose(place[0], [[0, 0, 0], [0, 10, 0], [0, 15, 0]], atol=1e-12)
    # Both joints turn by 90 degrees about z: up becomes -x, and the end comes back down.
    np.testing.assert_allclose(place[1], [[4, 5, 6], [-6, 5, 6], [-6, 0, 6]], atol=1e-9)


def test_bones_keep_the_length_of_their_offsets() -> None:
    motion = parse(bvh(moving(9)), "a.bvh")
    place = motion.positions()
    for joint, parent in enumerate(motion.parents):
        if parent >= 0:
            length = np.linalg.norm(place[:, joint] - place[:, parent], axis=-1)
            np.testing.assert_allclose(length, np.linalg.norm(motion.offsets[joint]), atol=1e-9)


def test_joints_parents_and_ends_are_those_of_the_file() -> None:
    motion = parse(bvh(moving(2)), "a.bvh")
    assert motion.joints[:5] == ("Hips", "LeftUpLeg", "LeftLeg", "LeftFoot", "LeftFoot_end")
    assert motion.parents[:6] == (-1, 0, 1, 2, 3, 0)
    assert motion.ends.sum() == sum(not name for name, _, _ in PERSON)
    assert motion.channels[0][:3] == ("Xposition", "Yposition", "Zposition") and motion.channels[4] == ()


@pytest.mark.parametrize(("seconds", "fps"), [("0.0083333", 120), ("0.0333333", 30), ("0.0167", 60), ("0.02", 50)])
def test_rounded_frame_times_are_the_rates_that_are_meant(seconds: str, fps: float) -> None:
    text = bvh(moving(2)).replace("Frame Time: 0.020000", f"Frame Time: {seconds}")
    assert parse(text, "a.bvh").fps == fps


def test_an_odd_frame_rate_is_kept() -> None:
    text = bvh(moving(2)).replace("0.020000", f"{1 / 12.5:.6f}")
    assert parse(text, "a.bvh").fps == pytest.approx(12.5)


SIX = """HIERARCHY
ROOT a {
 OFFSET 0 0 0
 CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
 JOINT b {
  OFFSET 0 1 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
 }
}
MOTION
Frames: 2
Frame Time: 0.02
0 0 0 0 0 0  {b} 0 0 0
0 0 0 0 0 0  {b} 0 0 0
"""


@pytest.mark.parametrize(("b", "there"), [("0 2 0", (0, 2, 0)), ("0 0 0", (0, 1, 0))])
def test_positions_below_the_root_replace_the_offset_unless_nobody_wrote_them(b: str, there: tuple[int, ...]) -> None:
    place = parse(SIX.replace("{b}", b), "a.bvh").positions()
    np.testing.assert_allclose(place[:, 1], [there, there])


def test_windows_line_ends_names_with_spaces_and_lower_case_channels_are_read() -> None:
    text = bvh(moving(2)).replace("JOINT LeftLeg", "JOINT Bip01 L Calf").replace("Zrotation", "zrotation")
    motion = parse(text.replace("\n", "\r\n"), "a.bvh")
    assert motion.joints[2] == "Bip01 L Calf" and motion.channels[2][0] == "Zrotation"


def test_nan_as_windows_prints_it_stays_nan() -> None:
    text = bvh(np.zeros((2, 9)), CHAIN)
    first = text.splitlines()[-2]
    motion = parse(text.replace(first, first.replace("0.000000", "-1.#IND00", 1), 1), "a.bvh")
    assert np.isnan(motion.frames[0, 0]) and np.isfinite(motion.frames[1]).all()


def line(number: int, change: Callable[[str], str]) -> Callable[[str], str]:
    """Change one line of the text, counted from the end."""

    def tamper(text: str) -> str:
        lines = text.splitlines()
        lines[-number] = change(lines[-number])
        return "\n".join(lines)

    return tamper


def gone(*words: str) -> Callable[[str], str]:
    return lambda text: text.replace(*(words if len(words) == 2 else (words[0], "")), 1)


BROKEN = {
    "cut off in a frame": (lambda text: text[:-200], r"says Frames: 6, but holds [0-5] whole ones: it was cut off\."),
    "cut off between frames": (lambda text: "\n".join(text.splitlines()[:-3]), r"Frames: 6, but holds 3 whole ones"),
    "cut off in the hierarchy": (lambda text: text[:900] + "\nMOTION\n", r"ends inside the joint \w+: it was cut off"),
    "cut off before the motion": (lambda text: text.partition("MOTION")[0], r"it has no MOTION part"),
    "no BVH": (lambda text: "hello", r"is no BVH: it has no HIERARCHY part"),
    "too many frames": (gone("Frames: 6", "Frames: 4"), r"holds 6 frames, but says Frames: 4\. Correct the number"),
    "a channel too few in a frame": (
        line(4, lambda row: row.rpartition(" ")[0]),
        r"frame 2 has 62 numbers, but the joints have 63 channels",
    ),
    "a channel too few in the hierarchy": (
        gone("CHANNELS 3 Zrotation Xrotation Yrotation", "CHANNELS 3 Zrotation Xrotation"),
        r"LeftUpLeg should have 3 channels, but only Zrotation Xrotation stand there before 'JOINT'",
    ),
    "a word for a number": (line(3, lambda row: row.replace("0", "O", 1)), r"'\S*O\S*' in frame 3 is no number"),
    "decimal commas": (line(6, lambda row: row.replace(".", ",")), r"in frame 0 is no number\. Write decimal points"),
    "an offset of two numbers": (gone("OFFSET 9.000000", "OFFSET"), r"'CHANNELS' is no number, an offset of LeftUpLeg"),
    "milliseconds": (
        gone("Frame Time: 0.020000", "Frame Time: 20"),
        r"would be 0\.05 frames per second; it is the sec",
    ),
    "no time": (gone("Frame Time: 0.020000", "Frame Time: 0"), r"would be 0 frames per second.*file_fps=30"),
    "no frame time": (gone("Frame Time: 0.020000\n"), r"`Frames:` and `Frame Time:` do not follow MOTION"),
    "two of one name": (gone("JOINT RightLeg", "JOINT LeftLeg"), r"two joints are called 'LeftLeg'"),
    "an unknown word": (gone("OFFSET 9.0", "OFSET 9.0"), r"'OFSET' has no place in a hierarchy"),
    "a second person": (
        lambda text: text.replace("MOTION", "ROOT Other\n{\n}\nMOTION"),
        r"second skeleton with the root Other\. Export every person as a file of its own",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_get_their_sentence(name: str) -> None:
    tamper, message = BROKEN[name]
    with pytest.raises(DataError, match=message) as refused:
        parse(tamper(bvh(moving(6))), "walk.bvh")
    assert str(refused.value).startswith("walk.bvh")


def test_no_frames_get_their_sentence() -> None:
    with pytest.raises(DataError, match=r"a\.bvh has no frame\. Export it again with its motion"):
        parse(bvh(moving(1)).replace("Frames: 1", "Frames: 0").rpartition("0.020000")[0] + "0.02\n", "a.bvh")


def test_a_missing_file_gets_its_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.bvh cannot be read"):
        load(tmp_path / "none.bvh")
