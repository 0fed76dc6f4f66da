"""Joints of Human3.6M found among those of common programs, by their names and the tree."""

from __future__ import annotations

import re

import numpy as np
import pytest

from kinema.core.skeleton import Skeleton, skeleton
from kinema.data.joint_map import joint_map
from kinema.errors import ConfigError, DataError

H36M = skeleton("h36m17")

# Joint and parent as each program writes them; "<name>_end" is the end of a chain.
MIXAMO = """mixamorig:Hips - | Spine mixamorig:Hips | Spine1 Spine | Spine2 Spine1 | Neck Spine2 | Head Neck |
HeadTop_End Head | LeftShoulder Spine2 | LeftArm LeftShoulder | LeftForeArm LeftArm |
LeftHand LeftForeArm | LeftHandThumb1 LeftHand |
RightShoulder Spine2 | RightArm RightShoulder | RightForeArm RightArm | RightHand RightForeArm |
LeftUpLeg mixamorig:Hips | LeftLeg LeftUpLeg | LeftFoot LeftLeg | LeftToeBase LeftFoot |
RightUpLeg mixamorig:Hips | RightLeg RightUpLeg | RightFoot RightLeg"""
CMU = """Hips - | LHipJoint Hips | LeftUpLeg LHipJoint | LeftLeg LeftUpLeg | LeftFoot LeftLeg | RHipJoint Hips |
RightUpLeg RHipJoint | RightLeg RightUpLeg | RightFoot RightLeg | LowerBack Hips | Spine LowerBack | Spine1 Spine |
Neck Spine1 | Neck1 Neck | Head Neck1 | Head_end Head | LeftShoulder Spine1 | LeftArm LeftShoulder |
LeftForeArm LeftArm | LeftHand LeftForeArm | RightShoulder Spine1 | RightArm RightShoulder | RightForeArm RightArm |
RightHand RightForeArm"""
STYLE100 = """Hips - | Chest Hips | Chest2 Chest | Chest3 Chest2 | Chest4 Chest3 | Neck Chest4 | Head Neck |
Head_end Head | RightCollar Chest4 | RightShoulder RightCollar | RightElbow RightShoulder | RightWrist RightElbow |
LeftCollar Chest4 | LeftShoulder LeftCollar | LeftElbow LeftShoulder | LeftWrist LeftElbow | RightHip Hips |
RightKnee RightHip | RightAnkle RightKnee | LeftHip Hips | LeftKnee LeftHip | LeftAnkle LeftKnee"""
BIPED = """Bip01 - | Bip01 Pelvis Bip01 | Bip01 Spine Bip01 Pelvis | Bip01 Spine1 Bip01 Spine |
Bip01 Neck Bip01 Spine1 | Bip01 Head Bip01 Neck | Bip01 HeadNub Bip01 Head |
Bip01 L Clavicle Bip01 Neck | Bip01 L UpperArm Bip01 L Clavicle |
Bip01 L Forearm Bip01 L UpperArm | Bip01 L Hand Bip01 L Forearm | Bip01 R Clavicle Bip01 Neck |
Bip01 R UpperArm Bip01 R Clavicle | Bip01 R Forearm Bip01 R UpperArm | Bip01 R Hand Bip01 R Forearm |
Bip01 L Thigh Bip01 Pelvis | Bip01 L Calf Bip01 L Thigh | Bip01 L Foot Bip01 L Calf | Bip01 R Thigh Bip01 Pelvis |
Bip01 R Calf Bip01 R Thigh | Bip01 R Foot Bip01 R Calf"""
UNREAL = """root - | pelvis root | spine_01 pelvis | spine_02 spine_01 | neck_01 spine_02 | head neck_01 |
head_end head | clavicle_l spine_02 | upperarm_l clavicle_l | lowerarm_l upperarm_l |
hand_l lowerarm_l | clavicle_r spine_02 |
upperarm_r clavicle_r | lowerarm_r upperarm_r | hand_r lowerarm_r | thigh_l pelvis | calf_l thigh_l | foot_l calf_l |
thigh_r pelvis | calf_r thigh_r | foot_r calf_r"""
ACCLAIM = """root - | lhipjoint root | lfemur lhipjoint | ltibia lfemur | lfoot ltibia | rhipjoint root |
rfemur rhipjoint | rtibia rfemur | rfoot rtibia | lowerback root | upperback lowerback |
thorax upperback | lowerneck thorax |
head lowerneck | head_end head | lclavicle thorax | lhumerus lclavicle | lradius lhumerus | lwrist lradius |
rclavicle thorax | rhumerus rclavicle | rradius rhumerus | rwrist rradius"""

# What stands for the slots below in each of them.
SLOTS = ("pelvis", "right_knee", "left_ankle", "spine", "thorax", "nose", "head", "left_shoulder", "right_wrist")
FOUND = {
    "Mixamo": (MIXAMO, "mixamorig:Hips|RightLeg|LeftFoot|Spine1|Neck|Head|HeadTop_End|LeftArm|RightHand"),
    "CMU": (CMU, "Hips|RightLeg|LeftFoot|Spine|Neck|Head|Head_end|LeftArm|RightHand"),
    "100STYLE": (STYLE100, "Hips|RightKnee|LeftAnkle|Chest2|Neck|Head|Head_end|LeftShoulder|RightWrist"),
    "3ds Max": (
        BIPED,
        "Bip01 Pelvis|Bip01 R Calf|Bip01 L Foot|Bip01 Spine|Bip01 Neck|Bip01 Head|Bip01 HeadNub|Bip01 L UpperArm|"
        "Bip01 R Hand",
    ),
    "Unreal": (UNREAL, "pelvis|calf_r|foot_l|spine_01|neck_01|head|head_end|upperarm_l|hand_r"),
    "Acclaim": (ACCLAIM, "root|rtibia|lfoot|upperback|lowerneck|head|head_end|lhumerus|rwrist"),
}


def tree(text: str) -> tuple[list[str], list[int]]:
    """Names and parents; a name may hold spaces, so a parent is the longest known one that ends the entry."""
    names: list[str] = []
    parents: list[int] = []
    for entry in re.split(r"\s*\|\s*", " ".join(text.split())):
        above = max((name for name in names if entry.endswith(" " + name)), key=len, default="")
        names.append(entry.removesuffix(f" {above}").removesuffix(" -"))
        parents.append(names.index(above) if above else -1)
    return names, parents


def rest(parents: list[int]) -> np.ndarray:
    """Bones of one length."""
    return np.array([[0.0, 1.0, 0.0] if parent >= 0 else [0.0] * 3 for parent in parents])


@pytest.mark.parametrize("program", FOUND)
def test_joints_of_common_programs_are_found(program: str) -> None:
    text, expected = FOUND[program]
    names, parents = tree(text)
    found = joint_map(H36M, names, parents, rest(parents), {}, "a.bvh").sources
    assert [[names[i] for i in found[H36M.index(slot)]] for slot in SLOTS] == [[name] for name in expected.split("|")]
    assert len({picked for sources in found for picked in sources}) == len(H36M)


def test_the_spine_is_the_joint_nearest_to_the_middle() -> None:
    names, parents = tree(CMU)
    bones = rest(parents)
    bones[names.index("LowerBack")] *= 4
    found = joint_map(H36M, names, parents, bones, {}, "a.bvh").sources
    assert [names[i] for i in found[H36M.index("spine")]] == ["LowerBack"]


def test_without_a_joint_between_the_spine_is_in_the_middle() -> None:
    names, parents = tree(re.sub(r"spine_\d\d \w+ \| ", "", UNREAL).replace("spine_02", "pelvis"))
    found = joint_map(H36M, names, parents, rest(parents), {}, "a.bvh")
    assert [names[i] for i in found.sources[H36M.index("spine")]] == ["pelvis", "neck_01"]
    pose = np.random.default_rng(0).normal(size=(4, len(names), 3))
    middle = (pose[:, names.index("pelvis")] + pose[:, names.index("neck_01")]) / 2
    np.testing.assert_allclose(found(pose)[:, H36M.index("spine")], middle)


def test_what_is_stated_goes_before_what_is_guessed() -> None:
    names, parents = tree(MIXAMO)
    stated = {"spine": "Spine", "head": ["Head", "HeadTop_End"]}
    found = joint_map(H36M, names, parents, rest(parents), stated, "a.bvh").sources
    assert [names[i] for i in found[H36M.index("spine")]] == ["Spine"]
    assert [names[i] for i in found[H36M.index("head")]] == ["Head", "HeadTop_End"]


def test_equal_names_are_taken_whatever_their_order() -> None:
    own = Skeleton.from_parents([-1, 0, 1], ["Root", "Left_Arm", "LeftHand"])
    found = joint_map(own, ["left hand", "leftarm", "root"], [1, 2, -1], np.zeros((3, 3)), {}, "a.npz").sources
    assert found == ((2,), (1,), (0,))


def test_a_joint_that_nothing_stands_for_gets_its_sentence() -> None:
    names, parents = tree(MIXAMO.replace("HeadTop_End Head | ", ""))
    with pytest.raises(
        DataError, match=r"a\.bvh: no joint stands for head of h36m17; it has .*joint_map=\{head: NAME\}"
    ):
        joint_map(H36M, names, parents, rest(parents), {}, "a.bvh")


def test_a_stated_joint_that_does_not_exist_gets_the_nearest() -> None:
    names, parents = tree(MIXAMO)
    with pytest.raises(ConfigError, match=r"joint_map\.spine: a\.bvh has no joint 'Spine9'\. Did you mean 'Spine'"):
        joint_map(H36M, names, parents, rest(parents), {"spine": "Spine9"}, "a.bvh")
    with pytest.raises(ConfigError, match=r"no joint 'spline'\. Did you mean 'spine'"):
        joint_map(H36M, names, parents, rest(parents), {"spline": "Spine"}, "a.bvh")


def test_sides_of_an_own_skeleton_are_read_from_its_names() -> None:
    for text in (MIXAMO, CMU, STYLE100, BIPED, UNREAL, ACCLAIM):
        names, parents = tree(text)
        body = Skeleton.from_parents(parents, names)
        assert len(body.left) == sum(name not in ("LeftHandThumb1", "LeftToeBase") for name in names if _left(name))
        assert all(_left(names[joint]) for joint in body.left) and not any(_left(names[joint]) for joint in body.right)


def _left(name: str) -> bool:
    return bool(re.search(r"[Ll]eft|^L(?=[A-Z])| L |_l$|^l(?!ower)", name))
