"""Scripts of tasks that do not exist in this version: their flags are read, and the answer is a sentence."""

from __future__ import annotations

from scripts.legacy_commands.flags import Command, Flag, LegacyError, Options, Script

_THERE = "(its tasks are lifting, lifting_semi and action), so this command has no counterpart"
_NONE = "none yet"


def _refuse(what: str) -> Command:
    raise LegacyError(f"{what} does not exist in this version of Kinema {_THERE}.")


def _mesh(options: Options) -> Command:
    return _refuse(f"Mesh recovery ({options.script.file})")


def _motion(options: Options) -> Command:
    return _refuse(f"Motion prediction ({options.script.file} --mode {options['mode']})")


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

# SMRNet and HumanMAC have one script between them.
_DIFFUSION = (
    Flag(("--cfg",), default="h36m", here=_NONE),
    Flag(("--mode",), default="train", here=_NONE),
    Flag(("--iter",), int, here=_NONE),
    Flag(("--seed",), int, 0, here=_NONE),
    Flag(("--device",), here=_NONE),
    Flag(("--multimodal_threshold",), float, 0.5, here=_NONE),
    Flag(("--multimodal_th_high",), float, 0.1, here=_NONE),
    Flag(("--milestone",), here=_NONE),
    Flag(("--gamma",), float, 0.9, here=_NONE),
    Flag(("--save_model_interval",), int, 10, here=_NONE),
    Flag(("--save_gif_interval",), int, 10, here=_NONE),
    Flag(("--save_metrics_interval",), int, 100, here=_NONE),
    Flag(("--ckpt",), default="./checkpoints/h36m_ckpt.pt", here=_NONE),
    Flag(("--ema",), here=_NONE),
    Flag(("--vis_switch_num",), int, 10, here=_NONE),
    Flag(("--vis_col",), int, 5, here=_NONE),
    Flag(("--vis_row",), int, 3, here=_NONE),
)
SMRNET = Script("smrnet", "main.py", _DIFFUSION, _motion, "SMRNet (`main.py`)")
HUMANMAC = Script("humanmac", "main.py", _DIFFUSION, _motion, "HumanMAC (`main.py`)")

VIS = Script(
    "poseformerv2",
    "vis.py",
    (Flag(("--video",), here="none: there is no 2D detector"), Flag(("--gpu",), here="none")),
    _demo,
    "PoseFormer V2's video demo (`demo/vis.py`)",
)
