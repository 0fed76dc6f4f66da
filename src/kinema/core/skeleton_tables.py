"""The named skeletons of `skeleton.py` as they are published: joint names, parents, left/right pairs, index tables."""

from __future__ import annotations

from typing import Any

# Parts that a motion can be held by, as groups of `parts` (HumanMAC, modes fix_0 to fix_6).
_CONTROL: dict[str, tuple[str, ...]] = {
    "right_leg": ("right_leg",),
    "left_leg": ("left_leg",),
    "torso": ("torso",),
    "left_arm": ("left_arm",),
    "right_arm": ("right_arm",),
    "fix_lower": ("right_leg", "left_leg"),
    "fix_upper": ("torso", "left_arm", "right_arm"),
}

_H36M17_TABLES: dict[str, Any] = {
    # MotionBERT, lib/model/loss.py: limb vectors (start, end) and pairs of limbs whose angle is measured.
    "limbs": (
        (0, 1), (1, 2), (2, 3), (0, 4), (4, 5), (5, 6), (0, 7), (7, 8),
        (8, 9), (9, 10), (8, 11), (11, 12), (12, 13), (8, 14), (14, 15), (15, 16),
    ),
    "angle_pairs": (
        (0, 3), (0, 6), (3, 6), (0, 1), (1, 2), (3, 4), (4, 5), (6, 7), (7, 10),
        (7, 13), (8, 13), (10, 13), (7, 8), (8, 9), (10, 11), (11, 12), (13, 14), (14, 15),
    ),
    "parts": {
        "torso": (0, 7, 8, 9, 10),
        "right_leg": (1, 2, 3),
        "left_leg": (4, 5, 6),
        "left_arm": (11, 12, 13),
        "right_arm": (14, 15, 16),
    },
    "control": _CONTROL,
    # Pairs (child, parent) of the bone stream: ours, the graph's edges (core/graphs.py); the thorax has none.
    "bone_stream": (
        (7, 8), (0, 7), (1, 0), (2, 1), (3, 2), (4, 0), (5, 4), (6, 5),
        (9, 8), (10, 9), (11, 8), (12, 11), (13, 12), (14, 8), (15, 14), (16, 15),
    ),
    # First frame's centre, spine (lower, upper) and shoulders (turned to z and x) of clip_preprocess "pyskl_3d": ours.
    "prenormalise": {"centre": 7, "spine": (0, 8), "shoulders": (14, 11)},
    # Weights of joints in losses (MotionAGFormer and PoseMamba, loss/pose3d.py): outer joints count more.
    "joint_weights": (1, 1, 2.5, 2.5, 1, 2.5, 2.5, 1, 1, 1, 1.5, 1.5, 4, 4, 1.5, 4, 4),
}  # fmt: skip

BODIES: tuple[dict[str, Any], ...] = (
    # Human3.6M reduced to 17 joints (VideoPose3D, MotionBERT).
    dict(
        name="h36m17",
        joints=(
            "pelvis", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "spine", "thorax",
            "nose", "head", "left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow", "right_wrist",
        ),
        parents=(-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15),
        left=(4, 5, 6, 11, 12, 13),
        right=(1, 2, 3, 14, 15, 16),
        tables=_H36M17_TABLES,
    ),
    # The 32 joints of the Human3.6M archive, with its parents (VideoPose3D, common/h36m_dataset.py).
    dict(
        name="h36m32",
        joints=(
            "pelvis", "right_hip", "right_knee", "right_ankle", "right_toe_base", "right_toe_end",
            "left_hip", "left_knee", "left_ankle", "left_toe_base", "left_toe_end",
            "spine_base", "spine", "thorax", "nose", "head",
            "left_collar", "left_shoulder", "left_elbow", "left_wrist", "left_hand", "left_thumb", "left_fist", "left_end",
            "right_collar", "right_shoulder", "right_elbow", "right_wrist", "right_hand", "right_thumb", "right_fist",
            "right_end",
        ),
        parents=(
            -1, 0, 1, 2, 3, 4, 0, 6, 7, 8, 9, 0, 11, 12, 13, 14,
            12, 16, 17, 18, 19, 20, 19, 22, 12, 24, 25, 26, 27, 28, 27, 30,
        ),
        left=(6, 7, 8, 9, 10, 16, 17, 18, 19, 20, 21, 22, 23),
        right=(1, 2, 3, 4, 5, 24, 25, 26, 27, 28, 29, 30, 31),
    ),
    # HumanEva-I, 15 joints (VideoPose3D).
    dict(
        name="humaneva15",
        joints=(
            "pelvis", "thorax", "left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow", "right_wrist",
            "left_hip", "left_knee", "left_ankle", "right_hip", "right_knee", "right_ankle", "head",
        ),
        parents=(-1, 0, 1, 2, 3, 1, 5, 6, 0, 8, 9, 0, 11, 12, 1),
        left=(2, 3, 4, 8, 9, 10),
        right=(5, 6, 7, 11, 12, 13),
        tables={
            "parts": {
                "torso": (0, 1, 14),
                "left_arm": (2, 3, 4),
                "right_arm": (5, 6, 7),
                "left_leg": (8, 9, 10),
                "right_leg": (11, 12, 13),
            },
            "control": _CONTROL,
        },
    ),
    # MPI-INF-3DHP, the 17 joints of its test set in the order of the lifting files (P-STMO, MotionAGFormer).
    dict(
        name="mpi_inf_3dhp17",
        joints=(
            "head_top", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
            "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "pelvis", "spine", "head",
        ),
        parents=(16, 15, 1, 2, 3, 1, 5, 6, 14, 8, 9, 14, 11, 12, -1, 14, 1),
        left=(5, 6, 7, 11, 12, 13),
        right=(2, 3, 4, 8, 9, 10),
        root=14,
        tables={
            # For each Human3.6M joint (h36m17) the one here that stands for it: nose and head are head and head_top.
            "h36m17": (14, 8, 9, 10, 11, 12, 13, 15, 1, 16, 0, 5, 6, 7, 2, 3, 4),
            # Columns of the official PCK report (mpii_get_pck_auc.m); pelvis, spine and head are in none of them.
            "pck_groups": {
                "Head": (0,), "Neck": (1,), "Shou": (2, 5), "Elbow": (3, 6),
                "Wrist": (4, 7), "Hip": (8, 11), "Knee": (9, 12), "Ankle": (10, 13),
            },
            "parts": {
                "torso": (0, 1, 14, 15, 16),
                "right_arm": (2, 3, 4),
                "left_arm": (5, 6, 7),
                "right_leg": (8, 9, 10),
                "left_leg": (11, 12, 13),
            },
        },
    ),
    # COCO keypoints; the tree is ours (COCO itself defines none), rooted at the nose.
    dict(
        name="coco17",
        joints=(
            "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
            "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
            "right_ankle",
        ),
        parents=(-1, 0, 0, 1, 2, 0, 0, 5, 6, 7, 8, 5, 6, 11, 12, 13, 14),
        left=(1, 3, 5, 7, 9, 11, 13, 15),
        right=(2, 4, 6, 8, 10, 12, 14, 16),
        tables={
            "parts": {
                "head": (0, 1, 2, 3, 4),
                "left_arm": (5, 7, 9),
                "right_arm": (6, 8, 10),
                "left_leg": (11, 13, 15),
                "right_leg": (12, 14, 16),
            },
            # pyskl, JointToBone (coco): the hips hang on the nose here.
            "bone_stream": (
                (1, 0), (2, 0), (3, 1), (4, 2), (5, 0), (6, 0), (7, 5), (8, 6),
                (9, 7), (10, 8), (11, 0), (12, 0), (13, 11), (14, 12), (15, 13), (16, 14),
            ),
        },
    ),
    # NTU RGB+D, the 25 joints of Kinect v2; the tree is Kinect's, rooted at the base of the spine.
    dict(
        name="ntu25",
        joints=(
            "spine_base", "spine_middle", "neck", "head", "left_shoulder", "left_elbow", "left_wrist", "left_hand",
            "right_shoulder", "right_elbow", "right_wrist", "right_hand", "left_hip", "left_knee", "left_ankle",
            "left_foot", "right_hip", "right_knee", "right_ankle", "right_foot", "spine_shoulder", "left_hand_tip",
            "left_thumb", "right_hand_tip", "right_thumb",
        ),
        parents=(-1, 0, 20, 2, 20, 4, 5, 6, 20, 8, 9, 10, 0, 12, 13, 14, 0, 16, 17, 18, 1, 7, 7, 11, 11),
        left=(4, 5, 6, 7, 12, 13, 14, 15, 21, 22),
        right=(8, 9, 10, 11, 16, 17, 18, 19, 23, 24),
        tables={
            "parts": {
                "torso": (0, 1, 2, 3, 20),
                "left_arm": (4, 5, 6, 7, 21, 22),
                "right_arm": (8, 9, 10, 11, 23, 24),
                "left_leg": (12, 13, 14, 15),
                "right_leg": (16, 17, 18, 19),
            },
            # pyskl, JointToBone (nturgb+d): tips of hands hang on thumbs here.
            "bone_stream": (
                (0, 1), (1, 20), (2, 20), (3, 2), (4, 20), (5, 4), (6, 5), (7, 6), (8, 20), (9, 8), (10, 9), (11, 10),
                (12, 0), (13, 12), (14, 13), (15, 14), (16, 0), (17, 16), (18, 17), (19, 18), (21, 22), (22, 7),
                (23, 24), (24, 11),
            ),
            # pyskl, PreNormalize3D.
            "prenormalise": {"centre": 1, "spine": (0, 1), "shoulders": (8, 4)},
        },
    ),
    # PoseTrack18; the tree is ours, rooted at the bottom of the head.
    dict(
        name="posetrack17",
        joints=(
            "nose", "head_bottom", "head_top", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
            "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
            "right_ankle",
        ),
        parents=(1, -1, 0, 0, 0, 1, 1, 5, 6, 7, 8, 5, 6, 11, 12, 13, 14),
        left=(3, 5, 7, 9, 11, 13, 15),
        right=(4, 6, 8, 10, 12, 14, 16),
        root=1,
    ),
    # Halpe-26 of AlphaPose (Halpe-FullBody); tree rooted at the hip.
    dict(
        name="halpe26",
        joints=(
            "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
            "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
            "right_ankle", "head", "neck", "hip", "left_big_toe", "right_big_toe", "left_small_toe", "right_small_toe",
            "left_heel", "right_heel",
        ),
        parents=(17, 0, 0, 1, 2, 18, 18, 5, 6, 7, 8, 19, 19, 11, 12, 13, 14, 18, 19, -1, 15, 16, 15, 16, 15, 16),
        left=(1, 3, 5, 7, 9, 11, 13, 15, 20, 22, 24),
        right=(2, 4, 6, 8, 10, 12, 14, 16, 21, 23, 25),
        root=19,
    ),
    # MMN, MA-52: Halpe-26 with six points of the face and of each hand. The tree is ours, rooted at the hip; which side
    # of the face a point is on is not published, so the face has no pairs.
    dict(
        name="mmn44",
        joints=(
            "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
            "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
            "right_ankle", "head", "neck", "hip", "left_big_toe", "right_big_toe", "left_small_toe", "right_small_toe",
            "left_heel", "right_heel", *(f"face_{i}" for i in range(1, 7)),
            *(f"right_hand_{i}" for i in range(1, 7)), *(f"left_hand_{i}" for i in range(1, 7)),
        ),
        parents=(
            17, 0, 0, 1, 2, 18, 18, 5, 6, 7, 8, 19, 19, 11, 12, 13, 14, 18, 19, -1, 15, 16, 15, 16, 15, 16,
            *[0] * 6, *[10] * 6, *[9] * 6,
        ),
        left=(1, 3, 5, 7, 9, 11, 13, 15, 20, 22, 24, *range(38, 44)),
        right=(2, 4, 6, 8, 10, 12, 14, 16, 21, 23, 25, *range(32, 38)),
        root=19,
        tables={
            "parts": {
                "torso": (0, 1, 2, 3, 4, 17, 18, 19, *range(26, 32)),
                "left_arm": (5, 7, 9, *range(38, 44)),
                "right_arm": (6, 8, 10, *range(32, 38)),
                "left_leg": (11, 13, 15, 20, 22, 24),
                "right_leg": (12, 14, 16, 21, 23, 25),
            }
        },
    ),
    # PCAN, MA-52: the 18 points of OpenPose's COCO model and five of each hand; the tree is PCAN's, rooted at the neck.
    dict(
        name="openpose28",
        joints=(
            "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
            "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "right_eye", "left_eye",
            "right_ear", "left_ear", *(f"left_hand_{i}" for i in range(1, 6)), *(f"right_hand_{i}" for i in range(1, 6)),
        ),
        parents=(1, -1, 1, 2, 3, 1, 5, 6, 2, 8, 9, 5, 11, 12, 0, 0, 14, 15, *[7] * 5, *[4] * 5),
        left=(5, 6, 7, 11, 12, 13, 15, 17, *range(18, 23)),
        right=(2, 3, 4, 8, 9, 10, 14, 16, *range(23, 28)),
        root=1,
        tables={
            "parts": {
                "head": (0, 1, 14, 15, 16, 17),
                "left_arm": (5, 6, 7, *range(18, 23)),
                "right_arm": (2, 3, 4, *range(23, 28)),
                "left_leg": (11, 12, 13),
                "right_leg": (8, 9, 10),
            }
        },
    ),
    # OpenPose BODY_25; the tree is that of its part affinity fields.
    dict(
        name="body25",
        joints=(
            "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
            "mid_hip", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "right_eye",
            "left_eye", "right_ear", "left_ear", "left_big_toe", "left_small_toe", "left_heel", "right_big_toe",
            "right_small_toe", "right_heel",
        ),
        parents=(1, 8, 1, 2, 3, 1, 5, 6, -1, 8, 9, 10, 8, 12, 13, 0, 0, 15, 16, 14, 19, 14, 11, 22, 11),
        left=(5, 6, 7, 12, 13, 14, 16, 18, 19, 20, 21),
        right=(2, 3, 4, 9, 10, 11, 15, 17, 22, 23, 24),
        root=8,
    ),
    # MediaPipe Pose (BlazePose); the tree is ours, rooted at the nose.
    dict(
        name="mediapipe33",
        joints=(
            "nose", "left_eye_inner", "left_eye", "left_eye_outer", "right_eye_inner", "right_eye", "right_eye_outer",
            "left_ear", "right_ear", "mouth_left", "mouth_right", "left_shoulder", "right_shoulder", "left_elbow",
            "right_elbow", "left_wrist", "right_wrist", "left_pinky", "right_pinky", "left_index", "right_index",
            "left_thumb", "right_thumb", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
            "right_ankle", "left_heel", "right_heel", "left_foot_index", "right_foot_index",
        ),
        parents=(
            -1, 0, 1, 2, 0, 4, 5, 3, 6, 0, 0, 0, 0, 11, 12, 13, 14, 15, 16, 15, 16, 15, 16, 11, 12, 23, 24, 25, 26,
            27, 28, 27, 28,
        ),
        left=(1, 2, 3, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31),
        right=(4, 5, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32),
    ),
    # The first 22 joints of SMPL, the same in SMPL-H and SMPL-X: the body without hands (AMASS).
    dict(
        name="smpl22",
        joints=(
            "pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle", "right_ankle",
            "spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head", "left_shoulder",
            "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
        ),
        parents=(-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19),
        left=(1, 4, 7, 10, 13, 16, 18, 20),
        right=(2, 5, 8, 11, 14, 17, 19, 21),
        tables={
            "parts": {
                "torso": (0, 3, 6, 9, 12, 15),
                "left_leg": (1, 4, 7, 10),
                "right_leg": (2, 5, 8, 11),
                "left_arm": (13, 16, 18, 20),
                "right_arm": (14, 17, 19, 21),
            }
        },
    ),
)  # fmt: skip
