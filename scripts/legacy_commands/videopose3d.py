"""VideoPose3D's run.py, and what the scripts that descend from it share: data, checkpoints, evaluation, drawing."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from scripts.legacy_commands.flags import PREDICT, RENDER, TEST, TRAIN, Command, Flag, LegacyError, Options, Script

# Subjects of Human3.6M that have keypoints, but no 3D.
_ONLY_2D = ("S2", "S3", "S4")
_CUSTOM_COCO = (
    "VideoPose3D's script fed the keypoints of custom videos as they are, COCO-17, so dataset.skeleton2d=coco17 is "
    "written. Leave it out for a network trained on Human3.6M's joints: Kinema then converts them."
)
_CUSTOM_H36M = (
    "the script fed the COCO keypoints of custom videos as they are to networks trained on Human3.6M's joints; Kinema "
    "converts them first."
)


def listed(text: str) -> list[str]:
    """A list separated by commas."""
    return [one for one in text.split(",") if one]


def chosen_actions(text: str) -> list[str] | None:
    """The action filter; * is none."""
    return None if text == "*" else listed(text)


def off(_: Any) -> bool:
    """What a switch that turns something off means for the key that has it on."""
    return False


def none(_: Any) -> int:
    """The same for a key that counts."""
    return 0


def shared(*, epochs: int, lr: float, gamma: float) -> tuple[Flag, ...]:
    """Flags that run.py and its descendants read alike, with their defaults."""
    return (
        Flag(
            ("-d", "--dataset"),
            default="h36m",
            here="`dataset=h36m_gt` or `h36m_cpn` by `-k`; `humaneva15`; `custom`",
        ),
        Flag(
            ("-k", "--keypoints"),
            default="cpn_ft_h36m_dbb",
            here="`dataset=h36m_gt` for gt, `dataset=h36m_cpn`; other files: `dataset.reader_options.keypoints=NAME`",
        ),
        Flag(("-a", "--actions"), default="*", key="dataset.actions", value=chosen_actions, modes=(TRAIN, TEST)),
        Flag(("-c", "--checkpoint"), default="checkpoint", here="training: `hydra.run.dir=DIR`; else part of `ckpt`"),
        Flag(
            ("--checkpoint-frequency",),
            int,
            here="`+callbacks.epochs...`: a checkpoint every N epochs beside best.ckpt and last.ckpt",
        ),
        Flag(("-r", "--resume"), here="`resume=FILE` for a .ckpt; `init=DIR/FILE` for a .bin (weights only)"),
        Flag(("--evaluate",), here="`mode=test ckpt=DIR/FILE`"),
        Flag(("--render",), None, here="`mode=render` (needs `--evaluate`)"),
        Flag(
            ("--by-subject",), None, key="task.protocol_options.videopose3d.by_subject", modes=(TRAIN, TEST),
        ),
        Flag(
            ("--export-training-curves",),
            None,
            note="drew PNG files; Kinema writes the curves of every run for TensorBoard and as CSV, without a flag.",
        ),
        Flag(("-e", "--epochs"), int, epochs, "trainer.max_epochs", modes=(TRAIN,)),
        Flag(("-lr", "--learning-rate"), float, lr, "task.optimizer.lr", modes=(TRAIN,)),
        Flag(("-lrd", "--lr-decay"), float, gamma, "task.scheduler.gamma", modes=(TRAIN,)),
        Flag(
            ("-no-da", "--no-data-augmentation"), None, key="dataset.windows.both_views", value=off, modes=(TRAIN,)
        ),
        Flag(("--subset",), float, 1.0, "dataset.subset", modes=(TRAIN,)),
        Flag(("--downsample",), int, 1, "dataset.downsample", modes=(TRAIN, TEST)),
        Flag(("--no-eval",), None, key="trainer.limit_val_batches", value=none, modes=(TRAIN,)),
        *_DRAWING,
    )  # fmt: skip


_DRAWING = (
    Flag(("--viz-subject",), key="render.subject", modes=(RENDER,)),
    Flag(("--viz-action",), key="render.action", modes=(RENDER,)),
    Flag(("--viz-camera",), int, key="render.camera", modes=(RENDER,)),
    Flag(("--viz-video",), key="render.video", modes=(RENDER,)),
    Flag(("--viz-skip",), int, key="render.skip", modes=(RENDER,)),
    Flag(("--viz-output",), key="render.output", modes=(RENDER,)),
    Flag(("--viz-export",), key="render.export", modes=(RENDER,)),
    Flag(("--viz-bitrate",), int, key="render.bitrate", modes=(RENDER,)),
    Flag(("--viz-no-ground-truth",), None, key="render.show_ground_truth", value=off, modes=(RENDER,)),
    Flag(("--viz-limit",), int, key="render.limit", modes=(RENDER,)),
    Flag(("--viz-downsample",), int, key="render.downsample", modes=(RENDER,)),
    Flag(("--viz-size",), float, key="render.size", modes=(RENDER,)),
)

SUBJECTS = (
    Flag(("-str", "--subjects-train"), key="dataset.subjects_train", value=listed),
    Flag(("-ste", "--subjects-test"), key="dataset.subjects_test", value=listed),
)


def begin(options: Options, model: str) -> Command:
    """Mode, model, data and checkpoint of a command line of this family; what its flags mean besides is not in it.

    Raises:
        LegacyError: for what the script refused too, and for data that Kinema has no reader for.
    """
    if "resume" in options and "evaluate" in options:
        raise LegacyError("--resume and --evaluate exclude each other, there as here.")
    custom = options["dataset"].startswith("custom")
    if "render" in options and "evaluate" not in options:
        raise LegacyError(
            "--render without --evaluate trained first and drew then. Translate the training without --render, and "
            "then this with --evaluate."
        )
    mode = TRAIN
    if "evaluate" in options:
        mode = RENDER if "render" in options else PREDICT if custom else TEST
    if custom and mode == TRAIN:
        raise LegacyError("Custom videos have no 3D to train on. Give --evaluate, and --render for a picture.")
    command = Command(mode, f"model={model}")
    _data(command, options)
    if mode == PREDICT:
        command.note("custom videos have no 3D to measure against, so their poses are written (mode=predict).")
    if mode != TRAIN:
        command.set("ckpt", str(Path(options["checkpoint"]) / options["evaluate"]))
        return command
    if "checkpoint" in options:
        command.set("hydra.run.dir", options["checkpoint"])
    if "resume" in options:
        resume(command, str(Path(options["checkpoint"]) / options["resume"]))
    if "checkpoint_frequency" in options:
        every_epochs(command, options["checkpoint_frequency"])
    return command


def resume(command: Command, path: str) -> None:
    """Go on with a training, or start it from the weights of an old one."""
    if path.endswith(".ckpt"):
        command.set("resume", path)
        return
    command.set("init", path)
    command.note(
        "the file of an old script gives its weights (init=); epochs, learning rate and optimiser begin anew. A .ckpt "
        "of Kinema's own goes on exactly where it stopped (resume=)."
    )


def every_epochs(command: Command, epochs: int) -> None:
    """Keep a checkpoint every so many epochs, beside the best and the last."""
    values: dict[str, Any] = {
        "_target_": "lightning.pytorch.callbacks.ModelCheckpoint",
        "dirpath": "${paths.output_dir}/checkpoints",
        "filename": "epoch_{epoch}",
        "every_n_epochs": epochs,
        "save_top_k": -1,
    }
    for key, value in values.items():
        command.set(f"+callbacks.epochs.{key}", value)


def _data(command: Command, options: Options) -> None:
    dataset, keypoints = options["dataset"], options["keypoints"]
    coco = "coco" in keypoints
    subject = options["viz_subject"] or ""
    if dataset == "h36m":
        if keypoints.startswith("sh_"):
            raise LegacyError(
                f"-k {keypoints}: these Stacked Hourglass files have 16 joints, which Kinema has no skeleton for. "
                "MotionBERT's Stacked Hourglass file with 17 joints is dataset=h36m_sh."
            )
        command.choose("dataset=h36m_gt" if keypoints == "gt" else "dataset=h36m_cpn")
        if keypoints not in ("gt", "cpn_ft_h36m_dbb"):
            command.set("dataset.reader_options.keypoints", keypoints)
        only_2d = subject in _ONLY_2D
    elif dataset == "humaneva15":
        if "keypoints" not in options:
            raise LegacyError("-d humaneva15 needs -k: there is no CPN file of it. Use -k gt or -k detectron_pt_coco.")
        command.choose("dataset=humaneva15")
        if keypoints != "gt":
            command.set("dataset.reader_options.keypoints", keypoints)
        if coco:
            command.set("dataset.num_joints", 17)
        only_2d = subject.startswith("Unlabeled")
    elif dataset.startswith("custom"):
        _custom(command, options)
        coco = only_2d = False
    else:
        raise LegacyError(f"-d {dataset}: Kinema reads h36m, humaneva15 and custom here, not this one.")
    if coco:
        command.set("dataset.skeleton2d", "coco17")
    if command.mode == RENDER and only_2d:
        command.set("dataset.has_3d", False)


def _custom(command: Command, options: Options) -> None:
    command.choose("dataset=custom")
    if options["dataset"] != "custom":
        command.set("dataset.reader_options.dataset", options["dataset"])
    command.set("dataset.reader_options.keypoints", options["keypoints"])
    weights = Path(options["evaluate"] or "").name
    if options.script.system == "videopose3d" and "cpn" not in weights:
        command.set("dataset.skeleton2d", "coco17")
        command.note(_CUSTOM_COCO)
    else:
        command.note(_CUSTOM_H36M)


def widths(text: str) -> list[int]:
    return [int(width) for width in text.split(",")]


def translate(options: Options) -> Command:
    """run.py of VideoPose3D."""
    command = begin(options, "videopose3d")
    if command.mode != TRAIN:
        command.apply(options)
        return command
    command.choose("task/optimizer=adam")
    if options["subjects_unlabeled"]:
        _with_unlabelled(command, options)
    else:
        _without_unlabelled(command, options)
    command.apply(options)
    stride = options["stride"]
    if not 1 <= stride <= options["batch_size"]:
        raise LegacyError(f"-s {stride}: chunks hold between 1 and -b {options['batch_size']} frames. Use -s 1.")
    command.set("dataset.batch_size", options["batch_size"] // stride, typed="batch_size" in options or stride > 1)
    if stride > 1:
        command.set("dataset.frames", math.prod(options["architecture"]) - 1 + stride)
    command.set("task.mask_invalid", False, typed=False)
    command.set("callbacks.checkpoint.monitor", None, typed=False)  # the script's last epoch is what it measures
    command.set("+callbacks.bn_momentum._target_", "kinema.callbacks.bn_momentum.BatchNormMomentum")
    return command


def _with_unlabelled(command: Command, options: Options) -> None:
    command.choose("task=lifting_semi")
    command.set("model.trajectory", True)
    command.set("dataset.subjects_unlabeled", options["subjects_unlabeled"])
    command.set("task.warmup", options["warmup"], typed="warmup" in options)
    for name, key, value in (
        ("linear_projection", "task.linear_projection", True),
        ("no_bone_length", "task.losses.bone_length", 0),
        ("no_proj", "task.losses.projection", 0),
    ):
        if name in options:
            command.set(key, value)


def _without_unlabelled(command: Command, options: Options) -> None:
    names = ("warmup", "linear_projection", "no_bone_length", "no_proj")
    typed = [options.spelt(name) for name in names if name in options]
    if typed:
        command.note(f"{', '.join(typed)}: without effect there, too, as long as -sun names nobody.")


_SEMI = "with `-sun`: "

RUN = Script(
    system="videopose3d",
    file="run.py",
    title="VideoPose3D (`run.py`)",
    translate=translate,
    flags=(
        *SUBJECTS,
        Flag(
            ("-sun", "--subjects-unlabeled"),
            listed,
            here="`task=lifting_semi model.trajectory=true dataset.subjects_unlabeled=[S5,S6]`",
        ),
        *shared(epochs=60, lr=1e-3, gamma=0.95),
        Flag(("-s", "--stride"), int, 1, here="`dataset.frames=R-1+N`, with `dataset.batch_size` in windows of N"),
        Flag(("-b", "--batch-size"), int, 1024, here="`dataset.batch_size` (divided by `-s`)"),
        Flag(("-drop", "--dropout"), float, 0.25, "model.dropout", modes=(TRAIN,)),
        Flag(("-no-tta", "--no-test-time-augmentation"), None, key="task.flip_average", value=off),
        Flag(("-arc", "--architecture"), widths, [3, 3, 3], "model.filter_widths"),
        Flag(("--causal",), None, key="model.causal"),
        Flag(("-ch", "--channels"), int, 1024, "model.channels"),
        Flag(("--dense",), None, key="model.dense"),
        Flag(
            ("--disable-optimizations",),
            None,
            note="trained with the slower of two equal forms; Kinema takes the fast one by itself, the numbers agree.",
        ),
        Flag(("--warmup",), int, 1, here=_SEMI + "`task.warmup`"),
        Flag(("--linear-projection",), None, here=_SEMI + "`task.linear_projection=true`"),
        Flag(("--no-bone-length",), None, here=_SEMI + "`task.losses.bone_length=0`"),
        Flag(("--no-proj",), None, here=_SEMI + "`task.losses.projection=0`"),
    ),
)
