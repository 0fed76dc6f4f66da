"""Scripts for actions: MotionBERT's train_action.py and train_action_1shot.py, and those of its fork for MA-52."""

from __future__ import annotations

from pathlib import Path

from scripts.legacy_commands.action_config import CLASSES, FORK, ONESHOT, read
from scripts.legacy_commands.flags import DOCTOR, MONITOR, TEST, TRAIN, Command, Flag, LegacyError, Options, Script
from scripts.legacy_commands.videopose3d import resume

_LATEST, _BEST = "latest_epoch.bin", "best_epoch.bin"
# Folder into which the fork trains and its monitor looks, where none is typed.
_FORK_FOLDER = "checkpoint_custom"


def _train(options: Options) -> Command:
    script = options.script.file
    if options["config"] is None:
        raise LegacyError(
            f"{script} needs --config: its default, configs/pretrain.yaml, does not exist in MotionBERT's repository "
            "either."
        )
    config = read(options["config"], script)
    command = Command(TEST if "evaluate" in options else TRAIN, f"experiment={config.experiment}")
    command.apply(options)
    config.write(command)
    if command.mode == TEST:
        _evaluate(command, options)
        return command
    if "checkpoint" in options or script == FORK:
        command.set("hydra.run.dir", options["checkpoint"])
    if "print_freq" in options:
        command.set("trainer.log_every_n_steps", options["print_freq"])
    if "resume" in options:
        resume(command, options["resume"])
    elif config.finetune:
        start = _BEST if script == ONESHOT else options["selection"]
        command.set("init", str(Path(options["pretrained"]) / start))
    _say_latest(command, options)
    return command


def _evaluate(command: Command, options: Options) -> None:
    given, below = Path(options["evaluate"]), Path(options["checkpoint"]) / options["evaluate"]
    if not given.is_file() and below.is_file():
        command.note(f"there is no {given} here; {below} is taken. The script would have taken the path as it stands.")
        given = below
    command.set("ckpt", str(given))
    if options.script.file == ONESHOT:
        # Evaluation opened the file of the novel classes only; here either of them will do.
        command.set("dataset.reader_options.file", ["ntu120_hrnet_oneshot.pkl", "ntu120_hrnet.pkl"])
        command.note("the script evaluated with dropout switched on, so its accuracy varied; here it is off.")
    if "resume" in options:
        command.note("--resume: without effect there beside --evaluate.")


def _say_latest(command: Command, options: Options) -> None:
    """What the script would have gone on with."""
    latest = Path(options["checkpoint"]) / _LATEST
    if latest.is_file():
        command.note(
            f"{latest} is there: the script would have gone on with it, whatever --resume says. Here --resume decides; "
            f"init={latest} takes its weights."
        )
    elif "checkpoint" in options and "resume" not in options:
        command.note(
            f"{options.script.file} goes on by itself where the output folder holds a {_LATEST}; Kinema does with "
            "resume=auto."
        )


def _monitor(options: Options) -> Command:
    if options["what"] not in (None, "plot"):
        raise LegacyError(f"{options.script.file} knows the word plot, and {options['what']!r} is none of its words.")
    command = Command(MONITOR)
    command.set("monitor.folder", _FORK_FOLDER)
    if options["what"] == "plot":
        command.note(
            "plot: wrote training_progress.png with two empty axes; Kinema draws the curves into monitor.png and "
            "monitor.html of the folder."
        )
    return command


def _verify(options: Options) -> Command:
    command = Command(DOCTOR, "dataset=ma52_fork")
    command.set("dataset.root", "data")
    command.set("dataset.reader_options.missing", "error")
    command.set("dataset.unlabeled", "error")
    command.note(
        f"{options.script.file} looked at three training clips and always ended well; the doctor opens every clip, and "
        "ends with an exit code other than 0 where it finds a fault."
    )
    return command


def _flags(checkpoint: str, config: str | None, pretrained: str, selection: Flag) -> tuple[Flag, ...]:
    start = f"`init={pretrained}` where the yaml says `finetune: True`"
    return (
        Flag(("--config",), default=config, here="`experiment=`, and what the yaml changes; keys below"),
        Flag(("-c", "--checkpoint"), default=checkpoint, here="`hydra.run.dir=DIR`"),
        Flag(("-p", "--pretrained"), default="checkpoint", here=start),
        Flag(("-r", "--resume"), here="`resume=FILE` for a .ckpt; `init=FILE` for a .bin (weights only)"),
        Flag(("-e", "--evaluate"), here="`mode=test ckpt=FILE`"),
        Flag(("-freq", "--print_freq"), int, 100, here="`trainer.log_every_n_steps`"),
        selection,
    )


_SELECTION = Flag(("-ms", "--selection"), default=_LATEST, here="the file of `init`")

ACTION = Script(
    system="motionbert",
    file=CLASSES,
    title="MotionBERT, actions (`train_action.py`)",
    translate=_train,
    flags=_flags("checkpoint", None, "DIR/FILE", _SELECTION),
)

ONE_SHOT = Script(
    system="motionbert",
    file=ONESHOT,
    title="MotionBERT, one-shot actions (`train_action_1shot.py`)",
    translate=_train,
    flags=_flags(
        "checkpoint",
        None,
        f"DIR/{_BEST}",
        Flag(
            _SELECTION.names,
            default=_BEST,
            note=f"was ignored by this script, which always started from {_BEST}; Kinema leaves it out.",
        ),
    ),
)

MICRO = Script(
    system="motionbert",
    file=FORK,
    title="MA-52 fork of MotionBERT (`train_action_custom.py`)",
    translate=_train,
    flags=_flags(_FORK_FOLDER, "configs/action/MB_train_custom.yaml", "DIR/FILE", _SELECTION),
)

MONITORING = Script(
    system="motionbert",
    file="monitor_training.py",
    title="MA-52 fork of MotionBERT (`monitor_training.py`)",
    translate=_monitor,
    flags=(Flag(("what",), here="none, or `plot`: `mode=monitor monitor.folder=checkpoint_custom`"),),
)

VERIFY = Script(
    system="motionbert",
    file="verify_data_format.py",
    title="MA-52 fork of MotionBERT (`verify_data_format.py`)",
    translate=_verify,
    flags=(),
)
