"""Scripts of tasks that do not exist in this version: their flags are read, and the answer is a sentence."""

from __future__ import annotations

from scripts.legacy_commands.flags import Command, Flag, LegacyError, Options, Script

_THERE = "(its tasks are lifting, lifting_semi, action and prediction), so this command has no counterpart"
_NONE = "none yet"


def _refuse(what: str) -> Command:
    raise LegacyError(f"{what} does not exist in this version of Kinema {_THERE}.")


def _mesh(options: Options) -> Command:
    return _refuse(f"Mesh recovery ({options.script.file})")


def _demo(options: Options) -> Command:
    raise LegacyError(
        "vis.py finds people in the video itself (YOLOv3, HRNet); Kinema has no 2D detector. Find the keypoints with "
        "one, then: python run.py mode=predict dataset=custom input=keypoints.json ckpt=checkpoint/27_243_45.2.bin "
        "model=poseformerv2_243_27_27 model.num_frames=243 (docs/own_data.md)."
    )


MESH = Script(
    "motionbert",
    "train_mesh.py",
    (
        Flag(("--config",), here=_NONE),
        Flag(("-c", "--checkpoint"), default="checkpoint", here=_NONE),
        Flag(("-p", "--pretrained"), default="checkpoint", here=_NONE),
        Flag(("-r", "--resume"), here=_NONE),
        Flag(("-e", "--evaluate"), here=_NONE),
        Flag(("-freq", "--print_freq"), int, 100, here=_NONE),
        Flag(("-ms", "--selection"), here=_NONE),
    ),
    _mesh,
    "MotionBERT, meshes (`train_mesh.py`)",
)
INFER_MESH = Script(
    "motionbert",
    "infer_wild_mesh.py",
    (
        Flag(("--config",), here=_NONE),
        Flag(("-e", "--evaluate"), here=_NONE),
        Flag(("-j", "--json_path"), here=_NONE),
        Flag(("-v", "--vid_path"), here=_NONE),
        Flag(("-o", "--out_path"), here=_NONE),
        Flag(("--ref_3d_motion_path",), here=_NONE),
        Flag(("--pixel",), None, here=_NONE),
        Flag(("--focus",), int, here=_NONE),
        Flag(("--clip_len",), int, 243, here=_NONE),
    ),
    _mesh,
    "MotionBERT, meshes in the wild (`infer_wild_mesh.py`)",
)

VIS = Script(
    "poseformerv2",
    "vis.py",
    (Flag(("--video",), here="none: there is no 2D detector"), Flag(("--gpu",), here="none")),
    _demo,
    "PoseFormer V2's video demo (`demo/vis.py`)",
)
