"""The scripts that descend from VideoPose3D's run.py: PoseFormer V1 and V2, HMSFT, and V2's copy for MPI-INF-3DHP."""

from __future__ import annotations

from scripts.legacy_commands.flags import TEST, TRAIN, Command, Flag, LegacyError, Options, Script
from scripts.legacy_commands.videopose3d import SUBJECTS, begin, listed, shared

_SEMI = (
    "was accepted and did nothing in this script, which has no semi-supervised training; Kinema leaves it out. "
    "task=lifting_semi model=videopose3d model.trajectory=true trains with unlabelled subjects."
)
_FORM = "belongs to VideoPose3D and did nothing in this script; Kinema leaves it out."

# Read by the argument parser of all three, used by none of them.
_UNUSED = (
    Flag(
        ("-sun", "--subjects-unlabeled"),
        note="named subjects that this script never trained on; Kinema leaves it out. task=lifting_semi "
        "model=videopose3d model.trajectory=true trains on them.",
    ),
    Flag(
        ("-drop", "--dropout"),
        float,
        note="was accepted and never reached the network, whose dropout is 0; Kinema leaves it out (model.dropout sets "
        "it).",
    ),
    Flag(("--warmup",), int, note=_SEMI),
    Flag(("--linear-projection",), None, note=_SEMI),
    Flag(("--no-bone-length",), None, note=_SEMI),
    Flag(("--no-proj",), None, note=_SEMI),
    Flag(("--dense",), None, note=_FORM),
    Flag(("--disable-optimizations",), None, note=_FORM),
)

_CHUNKS = Flag(("-s", "--stride"), int, 1, here="1 only: these networks predict one frame of a window")

_DESIGN = (
    "the network that HMSFT's repository trains was never published; model=hmsft is an open design of Kinema's own, "
    "and no published number belongs to it."
)


def _window(options: Options, model: str) -> Command:
    """What the three scripts for Human3.6M have in common."""
    if options["stride"] != 1:
        raise LegacyError(
            f"-s {options['stride']}: this network predicts one frame of a window, and the script failed in its first "
            "batch. Leave -s out."
        )
    command = begin(options, model)
    command.apply(options)
    if command.mode == TRAIN:
        command.set("task.mask_invalid", False, typed=False)
        command.set("task.optimizer.weight_decay", 0.1, typed=False)  # a constant of the scripts
    return command


def _poseformer(options: Options) -> Command:
    return _window(options, "poseformer")


def _hmsft(options: Options) -> Command:
    command = _window(options, "hmsft")
    command.note(_DESIGN)
    return command


def _poseformerv2(options: Options) -> Command:
    command = _window(options, "poseformerv2")
    if options["dataset"] == "humaneva15":
        command.note("-d humaneva15: PoseFormer V2's script refused it, Kinema trains and evaluates it.")
    for name, key in (("subjects_train", "dataset.subjects_train"), ("subjects_test", "dataset.subjects_test")):
        if name in options and options["dataset"] == "h36m":
            command.note(
                f"{options.spelt(name)}: the script always took its own subjects of Human3.6M (train S1, S5 to S8; "
                f"test S9, S11), whatever was typed, and so does this command; {key}=[...] changes them."
            )
        elif name in options:
            command.set(key, options[name])
    _sizes(command, options, options["number_of_frames"])
    _devices(command, options)
    if options["std"]:
        command.set("dataset.transforms", [{"pixel_noise": {"std": options["std"]}}, "pose"])
        command.note(
            "-std: the script drew its noise once, when it loaded the data, and without a seed; here it is drawn anew "
            "for every window, from the seed."
        )
    return command


def _sizes(command: Command, options: Options, window: int) -> None:
    """Sizes of PoseFormer V2: coefficients are as many as frames unless stated; no file tells the window's length."""
    frames, coeffs = options["number_of_kept_frames"], options["number_of_kept_coeffs"]
    if command.mode == TRAIN:
        command.set("model.kept_frames", frames)
        command.set("model.kept_coeffs", coeffs or frames)
    else:
        for name, value in (("kept_frames", frames), ("kept_coeffs", coeffs)):
            if f"number_of_{name}" in options:
                command.set(f"model.{name}", value)
    command.set("model.num_frames", window)


def _devices(command: Command, options: Options) -> None:
    if "gpu" in options:
        devices = [int(digit) for digit in options["gpu"]]
        command.choose("trainer=gpu" if len(devices) == 1 else "trainer=ddp")
        command.set("trainer.devices", devices)


def digits(text: str) -> str:
    devices = text.replace(",", "")
    if not devices.isdigit():
        raise ValueError(text)
    return devices


_DIST = "belonged to a launcher that the script did not use; Kinema starts its processes itself (trainer=ddp)."

# Flags of relatives; argparse would read some of them as short flags with a value.
_OF_VIDEOPOSE3D = {
    "no-tta": "These scripts always average with the mirrored pose; Kinema's switch is task.flip_average=false.",
    **dict.fromkeys(("arc", "architecture", "ch", "channels", "causal"), "It is one of VideoPose3D's: run.py."),
}
_OF_V2 = dict.fromkeys(
    ("frame-kept", "coeff-kept", "depth", "embed-dim-ratio", "std", "g", "gpu"),
    "It is one of PoseFormer V2's: begin with poseformerv2.",
)

POSEFORMER = Script(
    system="poseformer",
    file="run_poseformer.py",
    title="PoseFormer (`run_poseformer.py`)",
    translate=_poseformer,
    hint=_OF_VIDEOPOSE3D | _OF_V2,
    flags=(
        *SUBJECTS,
        *shared(epochs=200, lr=1e-4, gamma=0.99),
        Flag(("-b", "--batch-size"), int, 512, "dataset.batch_size", modes=(TRAIN,)),
        Flag(("-frame", "--number-of-frames"), int, 81, "model.num_frames"),
        _CHUNKS,
        *_UNUSED,
    ),
)

HMSFT = Script(
    system="hmsft",
    file="run_poseformer.py",
    title="HMSFT (`run_poseformer.py`)",
    translate=_hmsft,
    hint=_OF_VIDEOPOSE3D | _OF_V2,
    flags=(
        *SUBJECTS,
        *shared(epochs=130, lr=2e-4, gamma=0.99),
        Flag(("-b", "--batch-size"), int, 256, "dataset.batch_size", modes=(TRAIN,)),
        Flag(("-frame", "--number-of-frames"), int, 81, "model.num_frames"),
        _CHUNKS,
        *_UNUSED,
    ),
)

POSEFORMERV2 = Script(
    system="poseformerv2",
    file="run_poseformer.py",
    title="PoseFormer V2 (`run_poseformer.py`)",
    translate=_poseformerv2,
    hint=_OF_VIDEOPOSE3D,
    flags=(
        Flag(
            ("-str", "--subjects-train"),
            kind=listed,
            here="`dataset.subjects_train`; for Human3.6M the script ignored it, and it is left out",
        ),
        Flag(
            ("-ste", "--subjects-test"),
            kind=listed,
            here="`dataset.subjects_test`; for Human3.6M the script ignored it, and it is left out",
        ),
        *shared(epochs=200, lr=1e-4, gamma=0.99),
        Flag(("-b", "--batch-size"), int, 1024, "dataset.batch_size", modes=(TRAIN,)),
        Flag(("-frame", "--number-of-frames"), int, 81, here="`model.num_frames`"),
        Flag(("-frame-kept", "--number-of-kept-frames"), int, 27, here="`model.kept_frames`"),
        Flag(("-coeff-kept", "--number-of-kept-coeffs"), int, here="`model.kept_coeffs` (as many as frames)"),
        Flag(("--depth",), int, 4, "model.depth"),
        Flag(("--embed-dim-ratio",), int, 32, "model.dim"),
        Flag(("-std",), float, 0.0, here="`dataset.transforms=[{pixel_noise:{std:N}},pose]`"),
        Flag(("-g", "--gpu"), digits, here="`trainer=gpu trainer.devices=[N]`; several digits: `trainer=ddp`"),
        Flag(("--local_rank",), int, note=_DIST),
        Flag(("--center-pose",), int, note="was accepted and did nothing; Kinema leaves it out."),
        _CHUNKS,
        *_UNUSED,
    ),
)


# The copy for MPI-INF-3DHP has an argument parser of its own, inherited from P-STMO.


def _inf_3dhp(options: Options) -> Command:
    training = bool(options["train"])
    for name, meaning in (("MAE", "masked pretraining"), ("refine", "P-STMO's refinement network")):
        if name in options:
            raise LegacyError(f"{options.spelt(name)}: {meaning} does not exist in this version of Kinema.")
    if options["stride"] != 1 or options["t_downsample"] != 1:
        raise LegacyError("-s and -tds other than 1 change what a window is, and have no counterpart here.")
    if not training and not options["previous_dir"]:
        raise LegacyError(
            "Without --train 1 the script evaluates, and there is no file to evaluate. Use --reload 1 --previous_dir "
            "FILE, or --train 1."
        )
    command = Command(TRAIN if training else TEST, "experiment=poseformerv2/mpi_inf_3dhp")
    command.apply(options)
    _sizes(command, options, options["frames"])
    _devices(command, options)
    if not training:
        command.set("ckpt", options["previous_dir"])
        command.set("task.protocol_options.mpi_inf_3dhp.unit", "mm")
        return command
    # The loop runs from 1 to nepoch - 1.
    command.set("trainer.max_epochs", options["nepoch"] - 1, typed="nepoch" in options)
    if options["reload"] and options["previous_dir"]:
        command.set("init", options["previous_dir"])
    if "checkpoint" in options:
        command.set("hydra.run.dir", f"checkpoint/{options['checkpoint']}_{options['frames']}_STMO")
    if options["large_decay_epoch"] < options["nepoch"]:
        command.note(
            f"every {options['large_decay_epoch']}th epoch the script multiplied its rate by "
            f"{options['lr_decay_large']} instead of -lrd; Kinema's schedule has one factor for all epochs."
        )
    return command


_STMO = "belongs to P-STMO, whose code this script was made from, and had no influence on PoseFormer V2."

RUN_3DHP = Script(
    system="poseformerv2",
    file="run_3dhp.py",
    title="PoseFormer V2 on MPI-INF-3DHP (`run_3dhp.py`)",
    translate=_inf_3dhp,
    flags=(
        Flag(("-f", "--frames"), int, 243, here="`model.num_frames`"),
        Flag(("-frame-kept", "--number-of-kept-frames"), int, 27, here="`model.kept_frames`"),
        Flag(("-coeff-kept", "--number-of-kept-coeffs"), int, here="`model.kept_coeffs` (as many as frames)"),
        Flag(("--train",), int, 0, here="1: training; 0: `mode=test`"),
        Flag(("--test",), int, 1, note="is on in every documented command; Kinema tests after training by itself."),
        Flag(("--reload",), int, 0, here="with `--train 1`: `init=FILE`"),
        Flag(("--previous_dir",), default="", here="`ckpt=FILE`, and `task.protocol_options.mpi_inf_3dhp.unit=mm`"),
        Flag(("-c", "--checkpoint"), here="`hydra.run.dir=checkpoint/NAME_F_STMO`"),
        Flag(("-b", "--batchSize"), int, 160, "dataset.batch_size", modes=(TRAIN,)),
        Flag(("--nepoch",), int, 80, here="`trainer.max_epochs`, one less: the script's loop ends before its last"),
        Flag(("--lr",), float, 1e-3, "task.optimizer.lr", modes=(TRAIN,)),
        Flag(("-lrd", "--lr_decay"), float, 0.95, "task.scheduler.gamma", modes=(TRAIN,)),
        Flag(("--lr_decay_large",), float, 0.5, here="none; said where it would have mattered"),
        Flag(("--large_decay_epoch",), int, 80, here="none; said where it would have mattered"),
        Flag(("--manualSeed",), int, 1, "seed"),
        Flag(("--gpu",), digits, here="`trainer=gpu trainer.devices=[N]`; several: `trainer=ddp`"),
        Flag(("--workers",), int, key="dataset.num_workers"),
        Flag(("--downsample",), int, 1, "dataset.downsample"),
        Flag(("--subset",), float, 1.0, "dataset.subset", modes=(TRAIN,)),
        Flag(("--root_path",), key="dataset.root"),
        Flag(("-s", "--stride"), int, 1, here="1 only"),
        Flag(("-tds", "--t_downsample"), int, 1, here="1 only"),
        Flag(("--MAE",), None, here="refused: there is no masked pretraining in this version"),
        Flag(("--refine",), None, here="refused: there is no refinement network"),
        *(
            Flag(names, kind, note=_STMO)
            for names, kind in (
                (("--naive",), str),
                (("--layers",), int),
                (("--channel",), int),
                (("--d_hid",), int),
                (("--dataset",), str),
                (("-k", "--keypoints"), str),
                (("-a", "--actions"), str),
                (("--data_augmentation",), str),
                (("--reverse_augmentation",), str),
                (("--test_augmentation",), str),
                (("--crop_uv",), int),
                (("--lr_refine",), float),
                (("--pad",), int),
                (("--refine_reload",), int),
                (("--n_joints",), int),
                (("--out_joints",), int),
                (("--out_all",), int),
                (("--in_channels",), int),
                (("--out_channels",), int),
                (("-previous_best_threshold",), float),
                (("-previous_name",), str),
                (("--previous_refine_name",), str),
                (("-tmr", "--temporal_mask_rate"), float),
                (("-smn", "--spatial_mask_num"), int),
                (("--MAE_reload",), int),
                (("-r", "--resume"), None),
            )
        ),
    ),
)
