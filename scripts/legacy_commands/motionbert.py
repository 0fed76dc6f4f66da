"""MotionBERT's train.py (3D pose) and infer_wild.py."""

from __future__ import annotations

from pathlib import Path

from kinema.errors import KinemaError
from kinema.viz.video import Video
from scripts.legacy_commands.flags import PREDICT, TEST, TRAIN, Command, Flag, LegacyError, Options, Script
from scripts.legacy_commands.motionbert_config import Config, read
from scripts.legacy_commands.videopose3d import every_epochs, resume

# infer_wild.py without -e.
_WILD = "checkpoint/pose3d/FT_MB_lite_MB_ft_h36m_global_lite/best_epoch.bin"


def _train(options: Options) -> Command:
    if "config" not in options:
        raise LegacyError(
            "train.py needs --config: its default, configs/pretrain.yaml, does not exist in MotionBERT's repository "
            "either."
        )
    config = read(options["config"])
    mode = TEST if "evaluate" in options else TRAIN
    command = Command(mode, f"experiment={config.experiment}")
    config.write(command)
    if mode == TEST:
        command.set("ckpt", options["evaluate"])
        return command
    if "checkpoint" in options:
        command.set("hydra.run.dir", options["checkpoint"])
    if config.every is not None:
        every_epochs(command, config.every)
    if "resume" in options:
        resume(command, options["resume"])
    elif config.finetune:
        command.set("init", str(Path(options["pretrained"]) / options["selection"]))
    elif "checkpoint" in options:
        command.note(
            "train.py goes on by itself where the output folder holds a latest_epoch.bin; Kinema does with resume=auto."
        )
    return command


def _wild(options: Options) -> Command:
    for name, what in (("json_path", "the keypoints"), ("out_path", "where the result goes")):
        if name not in options:
            raise LegacyError(f"infer_wild.py needs --{name}: {what}.")
    config: Config = read(options["config"])
    command = Command(PREDICT, "dataset=custom")
    command.set("dataset.preprocess", "motionbert")
    command.set("dataset.space", "image")
    config.write_prediction(command)
    command.set("ckpt", options["evaluate"])
    command.set("input", options["json_path"])
    command.set("predict.layout", "halpe26")
    if options["focus"] is not None:
        command.set("predict.track", options["focus"])
    else:
        command.note(
            "without --focus the script took every detection of the file as a frame, whoever it showed; Kinema takes "
            "the person who is seen most (predict.track=all is the script's way)."
        )
    if "pixel" in options:
        width, height = _size(options["vid_path"])
        command.set("predict.width", width)
        command.set("predict.height", height)
        command.note(
            "--pixel: the script wrote its result in pixels; Kinema writes network units (half image widths), with the "
            "unit in the file."
        )
    if options["clip_len"] != config.frames:
        command.note(
            f"--clip_len {options['clip_len']}: Kinema cuts a video into clips of the length that the network was "
            "built for, and shortens only the last."
        )
    command.set("predict.output", str(Path(options["out_path"]) / "X3D.npz"))
    command.note(
        "the result is X3D.npz (one array per person, and what its numbers mean) in place of X3D.npy; no X3D.mp4 is "
        "drawn (mode=render with the same input= does)."
    )
    return command


def _size(video: str | None) -> tuple[int, int]:
    """Width and height of a video."""
    remedy = (
        "Leave --pixel and --vid_path out and add the size of the images behind two dashes: "
        "-- predict.width=1920 predict.height=1080."
    )
    if video is None or not Path(video).is_file():
        raise LegacyError(f"--pixel takes the image size from --vid_path, and {video} is no file here. {remedy}")
    try:
        return Video(Path(video)).size
    except KinemaError as error:
        raise LegacyError(f"--pixel takes the image size from --vid_path. {error} {remedy}") from error


_CONFIG = Flag(
    ("--config",),
    here="`experiment=` of conf/experiment/motionbert, and what the yaml changes; keys below",
)

TRAIN_POSE = Script(
    system="motionbert",
    file="train.py",
    title="MotionBERT, 3D pose (`train.py`)",
    translate=_train,
    flags=(
        _CONFIG,
        Flag(("-c", "--checkpoint"), default="checkpoint", here="`hydra.run.dir=DIR`"),
        Flag(("-p", "--pretrained"), default="checkpoint", here="`init=DIR/FILE` where the yaml says `finetune: True`"),
        Flag(("-ms", "--selection"), default="latest_epoch.bin", here="the file of `init`"),
        Flag(("-r", "--resume"), here="`resume=FILE` for a .ckpt; `init=FILE` for a .bin (weights only)"),
        Flag(("-e", "--evaluate"), here="`mode=test ckpt=FILE`"),
    ),
)

INFER_WILD = Script(
    system="motionbert",
    file="infer_wild.py",
    title="MotionBERT in the wild (`infer_wild.py`)",
    translate=_wild,
    flags=(
        Flag(
            ("--config",),
            default="configs/pose3d/MB_ft_h36m_global_lite.yaml",
            here="`task.target`, `task.flip_average` as its `rootrel`, `flip`; the file tells the network",
        ),
        Flag(("-e", "--evaluate"), default=_WILD, here="`mode=predict ckpt=FILE`"),
        Flag(("-j", "--json_path"), here="`input=FILE predict.layout=halpe26`"),
        Flag(
            ("-v", "--vid_path"),
            here="read for its image size with `--pixel`, else not needed",
        ),
        Flag(("-o", "--out_path"), here="`predict.output=DIR/X3D.npz`"),
        Flag(("--pixel",), None, here="`predict.width=W predict.height=H`, from the video"),
        Flag(("--focus",), int, here="`predict.track=N`"),
        Flag(("--clip_len",), int, 243, here="none: clips are as long as the network takes them"),
    ),
)
