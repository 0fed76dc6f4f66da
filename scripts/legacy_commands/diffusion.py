"""main.py of HumanMAC and of SMRNet, whose script is HumanMAC's with fewer modes."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path

from scripts.legacy_commands.diffusion_config import HUMANMAC, KEYS, SMRNET, read
from scripts.legacy_commands.flags import PREDICT, TEST, TRAIN, Command, Flag, LegacyError, Options, Script
from scripts.legacy_commands.videopose3d import every_epochs

SWITCH, CONTROL, ZERO_SHOT = "switch", "control", "zero_shot"
_PICTURES = (PREDICT, SWITCH, CONTROL, ZERO_SHOT)
_ALL = (TRAIN, TEST, *_PICTURES)
# Modes of the script and ours.
_MODES = {
    "train": TRAIN, "eval": TEST, "pred": PREDICT, "gif": PREDICT, "switch": SWITCH, "control": CONTROL,
    "zero_shot": ZERO_SHOT,
}  # fmt: skip
_SHARED = ("train", "eval", "pred", "gif")
# Samples that Kinema draws of each window without a word.
_SAMPLES = 10


def _mode(system: str) -> Callable[[str], str]:
    """Reads --mode."""

    def mode(text: str) -> str:
        if text not in _MODES:
            raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(_MODES)}")
        if system == SMRNET and text not in _SHARED:
            raise argparse.ArgumentTypeError(
                f"{text} is a mode of HumanMAC's script. Kinema has it for SMRNet, too: "
                f"python run.py mode={text} experiment=smrnet/h36m ckpt=FILE"
            )
        return text

    return mode


def milestones(text: str) -> list[int]:
    """Epochs as they were meant."""
    words = re.split(r"[\s,]+", text.strip("[]() "))
    if not all(word.isdigit() for word in words):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of epochs such as 75,150,225")
    return [int(word) for word in words]


def device(text: str) -> str:
    """A device as PyTorch writes it."""
    if not re.fullmatch(r"cpu|cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is neither cpu nor cuda, cuda:0, ...")
    return text


def _translate(options: Options) -> Command:
    config = read(options["cfg"], options.script.system)
    old = options["mode"]
    mode = _MODES[old]
    if mode in (SWITCH, CONTROL, ZERO_SHOT) and config.data != "h36m":
        why = "the clips of AMASS have the 17 joints of h36m."
        if mode != ZERO_SHOT:
            why = f"Kinema does it: python run.py mode={mode} experiment={config.experiment} ckpt=FILE."
        raise LegacyError(f"main.py --mode {old} was for --cfg h36m alone; {why}")
    command = Command(mode, f"experiment={config.experiment}")
    config.write(command)
    if mode == ZERO_SHOT:
        command.choose("dataset=amass_motion")
        command.set("dataset.root", "data/amass_retargeted.npy")
        command.set("dataset.reader_options.sides", "published")
        command.set("motion.count", 15)
    command.apply(options)
    _device(command, options)
    if mode == TRAIN:
        _train(command, options)
        return command
    command.set("ckpt", str(Path(options["ckpt"])))
    if mode in _PICTURES:
        _draw(command, options, old)
    return command


def _train(command: Command, options: Options) -> None:
    if "ckpt" in options:
        command.note("--ckpt: without effect there in a command that trains; init=FILE starts from its weights.")
    if "save_model_interval" in options:
        every_epochs(command, options["save_model_interval"])
    if "milestone" in options:
        command.note(
            "--milestone: was split into characters there, so that the rate fell at no epoch; here the epochs count."
        )
    if "ema" in options:
        if options["ema"]:
            command.note(
                "--ema: any text meant true there, and the weights are averaged here, too; not with callbacks.ema=null."
            )
        else:
            command.set("callbacks.ema", None)


def _draw(command: Command, options: Options, old: str) -> None:
    if "vis_col" in options and options["vis_col"] > _SAMPLES:
        command.set("motion.num_samples", options["vis_col"])
    if old == "gif":
        command.set("motion.windows", [0])
        command.note(
            "gif was the picture of one window by chance that training drew, and no mode of its own; "
            "motion.windows=[17] draws another one."
        )
    if old == "switch":
        command.note(
            "a picture there showed one window of each action; here motion.rows windows with motion.columns samples "
            "each."
        )


def _device(command: Command, options: Options) -> None:
    if "device" not in options:
        return
    name, _, number = options["device"].partition(":")
    if command.mode in _PICTURES:
        command.note(
            "--device: pictures are made on the GPU where there is one; CUDA_VISIBLE_DEVICES=1 before the command "
            "chooses it, CUDA_VISIBLE_DEVICES= takes the CPU."
        )
    elif name == "cpu":
        command.choose("trainer=cpu")
    else:
        command.choose("trainer=gpu")
        command.set("trainer.devices", [int(number or 0)])


def _flags(system: str) -> tuple[Flag, ...]:
    metrics = (
        ""
        if system == HUMANMAC
        else "measured nothing in this script, which keeps the last weights; here it is the epochs between validations."
    )
    return (
        Flag(
            ("--cfg",),
            default="h36m",
            here=f"`experiment=` of conf/experiment/{system}, and what the yaml changes; keys below",
        ),
        Flag(
            ("--mode",),
            _mode(system),
            "train",
            here="train; eval: `mode=test`; pred, gif: `mode=predict`"
            + ("; switch, control, zero_shot: `mode=` of that name" if system == HUMANMAC else ""),
        ),
        Flag(("--iter",), int, note="was read by nothing; Kinema goes on with resume=auto."),
        Flag(("--seed",), int, 0, "seed", modes=_ALL),
        Flag(("--device",), device, here="`trainer=cpu`, or `trainer=gpu trainer.devices=[N]`"),
        Flag(
            ("--multimodal_threshold",),
            float,
            0.5,
            "task.protocol_options.prediction.threshold",
            modes=(TRAIN, TEST),
        ),
        Flag(
            ("--multimodal_th_high",),
            float,
            note="was read by nothing; windows are grouped by --multimodal_threshold alone.",
        ),
        Flag(("--milestone",), milestones, None, "task.scheduler.epochs", modes=(TRAIN,)),
        Flag(("--gamma",), float, 0.9, "task.scheduler.gamma", modes=(TRAIN,)),
        Flag(
            ("--save_model_interval",),
            int,
            here="`+callbacks.epochs...`: a checkpoint every N epochs beside best.ckpt and last.ckpt",
        ),
        Flag(
            ("--save_gif_interval",),
            int,
            note="drew one window every N epochs; mode=predict draws windows of any checkpoint.",
        ),
        Flag(
            ("--save_metrics_interval",),
            int,
            100,
            "trainer.check_val_every_n_epoch",
            note=metrics,
            modes=(TRAIN,),
        ),
        Flag(("--ckpt",), default="./checkpoints/h36m_ckpt.pt", here="`ckpt`"),
        Flag(("--ema",), here="on, as the recipe has it; `--ema ''`: `callbacks.ema=null`"),
        Flag(("--vis_switch_num",), int, 10, "motion.count", modes=(SWITCH,)),
        Flag(("--vis_col",), int, 5, "motion.columns", modes=_PICTURES),
        Flag(("--vis_row",), int, 3, "motion.rows", modes=_PICTURES),
    )


# Keys of the yaml files that users look for among the flags.
_HINTS = {key.name: f"It is a key of cfg/*.yml. Here: -- {key.key}=..." for key in KEYS if key.key}


def _script(system: str, name: str) -> Script:
    return Script(
        system=system,
        file="main.py",
        title=f"{name} (`main.py`)",
        translate=_translate,
        flags=_flags(system),
        hint=_HINTS,
    )


SMRNET_MAIN = _script(SMRNET, "SMRNet")
HUMANMAC_MAIN = _script(HUMANMAC, "HumanMAC")
