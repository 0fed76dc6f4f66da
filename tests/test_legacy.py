"""scripts/legacy.py: old commands become Kinema commands that compose and fit together, or are refused by name."""

from __future__ import annotations

import functools
import json
import shlex

import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import OverrideType
from omegaconf import DictConfig, OmegaConf
from scripts.legacy import SCRIPTS, translate
from scripts.legacy_commands.flags import RENDER, Flag, LegacyError, Script, spell
from torch import nn

from kinema.composition import build_data, build_task, check, compose, make

ABSENT = ("train_mesh.py", "infer_wild_mesh.py", "vis.py")
THERE = [script for script in SCRIPTS if script.file not in ABSENT]


def words_of(command: str) -> list[str]:
    return translate(shlex.split(command)).words


@functools.lru_cache(maxsize=64)
def _composed(choices: tuple[str, ...]) -> DictConfig:
    return compose(choices)


@functools.lru_cache(maxsize=64)
def _network(node: str) -> nn.Module:
    with torch.device("meta"):
        model = make(OmegaConf.create(json.loads(node)))
    assert isinstance(model, nn.Module)
    return model


def composed(words: list[str]) -> DictConfig:
    """The configuration of a command. Its groups are composed once; every key must exist, or be added by a +."""
    parsed = OverridesParser.create().parse_overrides(words)
    plain = ("mode", "ckpt", "init", "resume", "input", "seed")
    values = [one for one in parsed if "." in one.key_or_group or one.key_or_group in plain]
    choices = tuple(word for word, one in zip(words, parsed, strict=True) if one not in values)
    config = _composed(choices).copy()
    for one in values:
        key = one.key_or_group
        if key.startswith("hydra."):
            continue
        adds = one.type is OverrideType.ADD
        assert adds or OmegaConf.select(config, key, default=...) is not ..., f"{key} is no key"
        OmegaConf.update(config, key, one.value(), force_add=adds, merge=False)
    return config


def fits(words: list[str]) -> DictConfig:
    """Compose a command, build its network without memory, and run the checks that need no data."""
    config = composed(words)
    OmegaConf.to_container(config, resolve=True)
    model = _network(json.dumps(OmegaConf.to_container(config.model, resolve=True)))
    data = build_data(config, model.signature)
    check(build_task(config, model), model.signature, data.spec, config)
    for node in config.callbacks.values():
        make(node, _partial_=True)
    return config


# Flags that have no key of their own: what is typed, and words that come out.
_SHARED = {
    "dataset": ("-d humaneva15 -k gt", ["dataset=humaneva15"]),
    "keypoints": ("-k gt", ["dataset=h36m_gt"]),
    "checkpoint": ("-c out", ["hydra.run.dir=out"]),
    "checkpoint_frequency": ("--checkpoint-frequency 5", ["+callbacks.epochs.every_n_epochs=5"]),
    "resume": ("-r a.bin", ["init=checkpoint/a.bin"]),
    "evaluate": ("--evaluate a.bin", ["mode=test", "ckpt=checkpoint/a.bin"]),
    "render": ("--evaluate a.bin --render", ["mode=render", "ckpt=checkpoint/a.bin"]),
    "stride": ("-s 1", []),
}
_SEMI = "-k gt -sun S5,S6"
_V1 = _SHARED
_SIZES = {
    "number_of_kept_frames": ("-frame-kept 3", ["model.kept_frames=3", "model.kept_coeffs=3"]),
    "number_of_kept_coeffs": ("-frame-kept 9 -coeff-kept 3", ["model.kept_frames=9", "model.kept_coeffs=3"]),
    "gpu": ("--gpu 1", ["trainer=gpu", "trainer.devices=[1]"]),
}
SPECIAL: dict[str, dict[str, tuple[str, list[str]]]] = {
    "videopose3d/run.py": _SHARED
    | {
        "stride": ("-s 4", ["dataset.frames=30", "dataset.batch_size=256"]),
        "batch_size": ("-b 64", ["dataset.batch_size=64"]),
        "subjects_unlabeled": (_SEMI, ["task=lifting_semi", "dataset.subjects_unlabeled=[S5,S6]"]),
        "warmup": (f"{_SEMI} --warmup 5", ["task.warmup=5"]),
        "linear_projection": (f"{_SEMI} --linear-projection", ["task.linear_projection=true"]),
        "no_bone_length": (f"{_SEMI} --no-bone-length", ["task.losses.bone_length=0"]),
        "no_proj": (f"{_SEMI} --no-proj", ["task.losses.projection=0"]),
    },
    "poseformer/run_poseformer.py": _V1,
    "hmsft/run_poseformer.py": _V1,
    "poseformerv2/run_poseformer.py": _SHARED
    | _SIZES
    | {
        "subjects_train": ("-d humaneva15 -k gt -str Train/S1", ["dataset.subjects_train=[Train/S1]"]),
        "subjects_test": ("-d humaneva15 -k gt -ste Validate/S1", ["dataset.subjects_test=[Validate/S1]"]),
        "number_of_frames": ("-frame 27 -frame-kept 3", ["model.num_frames=27"]),
        "std": ("-std 5", ["dataset.transforms=[{pixel_noise:{std:5.0}},pose]"]),
    },
    "poseformerv2/run_3dhp.py": {
        name: (f"--train 1 {typed}", words)
        for name, (typed, words) in (
            _SIZES
            | {
                "frames": ("-f 27 -frame-kept 3", ["model.num_frames=27"]),
                "train": ("", ["experiment=poseformerv2/mpi_inf_3dhp"]),
                "reload": ("--reload 1 --previous_dir a.pth", ["init=a.pth"]),
                "checkpoint": ("-c NAME -f 81", ["hydra.run.dir=checkpoint/NAME_81_STMO"]),
                "nepoch": ("--nepoch 11", ["trainer.max_epochs=10"]),
                "lr_decay_large": ("--lr_decay_large 0.1", []),
                "large_decay_epoch": ("--large_decay_epoch 99", []),
                "stride": ("-s 1", []),
                "t_downsample": ("-tds 1", []),
            }
        ).items()
    }
    | {"previous_dir": ("--previous_dir a.pth", ["mode=test", "ckpt=a.pth"])},
    "motionbert/train.py": {
        name: (f"--config configs/pose3d/MB_ft_h36m.yaml {typed}", words)
        for name, (typed, words) in {
            "config": ("", ["experiment=motionbert/h36m_ft", "init=checkpoint/latest_epoch.bin"]),
            "checkpoint": ("-c out", ["hydra.run.dir=out"]),
            "pretrained": ("-p released", ["init=released/latest_epoch.bin"]),
            "selection": ("-ms best_epoch.bin", ["init=checkpoint/best_epoch.bin"]),
            "resume": ("-r a/last.ckpt", ["resume=a/last.ckpt"]),
            "evaluate": ("-e a/b.bin", ["mode=test", "ckpt=a/b.bin"]),
        }.items()
    },
    "motionbert/infer_wild.py": {
        name: (f"-j a.json -o out {typed}", words)
        for name, (typed, words) in {
            "config": ("--config MB_ft_h36m.yaml", ["mode=predict", "dataset.space=image"]),
            "evaluate": ("-e a.bin", ["ckpt=a.bin"]),
            "json_path": ("", ["input=a.json", "predict.layout=halpe26"]),
            "vid_path": ("-v a.mp4", ["dataset.preprocess=motionbert"]),
            "out_path": ("", ["predict.output=out/X3D.npz"]),
            "focus": ("--focus 2", ["predict.track=2"]),
            "clip_len": ("--clip_len 81", ["mode=predict"]),
        }.items()
    },
}


def _actions(config: str, recipe: str, pretrained: list[str], selection: list[str]) -> dict[str, tuple[str, list[str]]]:
    """What the flags of an action script become."""
    typed = {
        "config": ("", [f"experiment={recipe}"]),
        "checkpoint": ("-c out", ["hydra.run.dir=out"]),
        "pretrained": ("-p released", pretrained),
        "resume": ("-r a/last.ckpt", ["resume=a/last.ckpt"]),
        "evaluate": ("-e a/b.bin", ["mode=test", "ckpt=a/b.bin"]),
        "print_freq": ("-freq 7", ["trainer.log_every_n_steps=7"]),
        "selection": ("-ms x.bin", selection),
    }
    return {name: (f"--config configs/action/{config}.yaml {flag}", words) for name, (flag, words) in typed.items()}


SPECIAL |= {
    "motionbert/train_action.py": _actions(
        "MB_ft_NTU60_xsub", "motionbert/ntu60_xsub_ft", ["init=released/latest_epoch.bin"], ["init=checkpoint/x.bin"]
    ),
    "motionbert/train_action_1shot.py": _actions(
        "MB_ft_NTU120_oneshot",
        "motionbert/ntu120_oneshot_ft",
        ["init=released/best_epoch.bin"],
        ["init=checkpoint/best_epoch.bin"],
    ),
    "motionbert/train_action_custom.py": _actions("MB_train_custom", "ma52/fork", [], []),
    "motionbert/monitor_training.py": {"what": ("plot", ["mode=monitor", "monitor.folder=checkpoint_custom"])},
}


def _motions(system: str) -> dict[str, tuple[str, list[str]]]:
    """What the flags of a diffusion script become."""
    recipe = f"experiment={system}/h36m"
    typed = {
        "cfg": ("--cfg humaneva", [f"experiment={system}/humaneva"]),
        "mode": ("--mode eval", ["mode=test", recipe, "ckpt=checkpoints/h36m_ckpt.pt"]),
        "device": ("--device cuda:1", [recipe, "trainer=gpu", "trainer.devices=[1]"]),
        "milestone": ("--milestone 75,150", ["task.scheduler.epochs=[75,150]"]),
        "save_model_interval": ("--save_model_interval 5", ["+callbacks.epochs.every_n_epochs=5"]),
        "ckpt": ("--mode pred --ckpt a.pt", ["mode=predict", recipe, "ckpt=a.pt"]),
        "ema": ("--ema ''", ["callbacks.ema=null"]),
        "vis_col": ("--mode pred --vis_col 12", ["motion.columns=12", "motion.num_samples=12"]),
        "vis_row": ("--mode pred --vis_row 2", ["motion.rows=2"]),
        "vis_switch_num": ("--vis_switch_num 3", [recipe]),
    }
    if system == "humanmac":
        typed["vis_switch_num"] = ("--mode switch --vis_switch_num 3", ["mode=switch", recipe, "motion.count=3"])
    return typed


SPECIAL |= {"smrnet/main.py": _motions("smrnet"), "humanmac/main.py": _motions("humanmac")}
_REFUSED = {"poseformerv2/run_3dhp.py": {"MAE", "refine"}, "motionbert/infer_wild.py": {"pixel"}}
_TEXTS = {
    "architecture": "3,3,3,3", "number_of_frames": "27", "embed_dim_ratio": "16",
    "subjects_train": "S1,S5", "subjects_test": "S9", "subjects_unlabeled": "S2",
    "actions": "Walk,Jog", "viz_video": "a.mp4", "viz_action": "Walking 1",
}  # fmt: skip
_BY_KIND = {int: "3", float: "0.5"}


def _id(script: Script) -> str:
    return f"{script.system}/{script.file}"


def _typed(flag: Flag) -> list[str]:
    """A flag as a user types it."""
    return (
        [flag.names[0]] if flag.kind is None else [flag.names[0], _TEXTS.get(flag.name, _BY_KIND.get(flag.kind, "2"))]
    )


@pytest.mark.parametrize(
    ("script", "flag"),
    [pytest.param(script, flag, id=f"{_id(script)} {flag.names[0]}") for script in THERE for flag in script.flags],
)
def test_every_flag_becomes_what_its_table_says(script: Script, flag: Flag) -> None:
    place = _id(script)
    start = [script.system, script.file]
    if flag.name in _REFUSED.get(place, ()):
        needed = ["-j", "a.json", "-o", "out"] if "wild" in place else ["--train", "1"]
        with pytest.raises(LegacyError, match=flag.names[0]):
            translate([*start, *needed, flag.names[0]])
        return
    if flag.name in SPECIAL[place]:
        typed, expected = SPECIAL[place][flag.name]
        words = translate([*start, *shlex.split(typed)]).words
        assert set(expected) <= set(words)
        fits(words)
        return
    context = ["--train", "1"] if script.file == "run_3dhp.py" else []
    if flag.modes == (RENDER,):
        context = ["--evaluate", "a.bin", "--render"]
    made = translate([*start, *context, *_typed(flag)])
    if flag.note:
        assert any(note.startswith(f"{flag.names[0]}: ") for note in made.notes)
    if flag.key:
        value = True if flag.kind is None else flag.kind(_typed(flag)[1])
        assert f"{flag.key}={spell(flag.override(value))}" in made.words
        composed(made.words)
    else:
        assert flag.note, f"{flag.names[0]} is neither translated nor explained"
        assert made.words == translate([*start, *context]).words


DOCUMENTED = [
    # HMSFT, both documented commands
    "hmsft run_poseformer.py -k cpn_ft_h36m_dbb -f 81 -lr 0.0002 -lrd 0.98",
    "hmsft run_poseformer.py -k cpn_ft_h36m_dbb -f 81 -c checkpoint --evaluate cpn81f.bin",
    # PoseFormer
    "python run_poseformer.py -k cpn_ft_h36m_dbb -f 27 -lr 0.00004 -lrd 0.99",
    "python run_poseformer.py -k gt -f 81 -lr 0.0004 -lrd 0.99",
    "python run_poseformer.py -k gt -f 81 -c checkpoint --evaluate gt81f.bin",
    # VideoPose3D
    "python run.py -k cpn_ft_h36m_dbb -arc 3,3,3,3,3 -c checkpoint --evaluate pretrained_h36m_cpn.bin",
    "python run.py -d humaneva15 -k detectron_pt_coco -str Train/S1,Train/S2,Train/S3 -ste "
    "Validate/S1,Validate/S2,Validate/S3 -a Walk,Jog,Box --by-subject -c checkpoint --evaluate "
    "pretrained_humaneva15_detectron.bin",
    "python run.py -e 80 -k cpn_ft_h36m_dbb -arc 3,3,3,3,3",
    "python run.py -d humaneva15 -k detectron_pt_coco -str Train/S1,Train/S2,Train/S3 -ste "
    "Validate/S1,Validate/S2,Validate/S3 -b 128 -e 1000 -lrd 0.996 -a Walk,Jog,Box --by-subject",
    "python run.py -k gt --subjects-train S1 --subset 0.1 --subjects-unlabeled S5,S6,S7,S8 -e 200 -lrd 0.98 -arc 3,3,3 "
    "--warmup 5 -b 64",
    "python run.py -k cpn_ft_h36m_dbb -arc 3,3,3,3,3 -c checkpoint --evaluate pretrained_h36m_cpn.bin --render "
    "--viz-subject S11 --viz-action Walking --viz-camera 0 --viz-video '/path/S11/Videos/Walking.54138969.mp4' "
    "--viz-output output.gif --viz-size 3 --viz-downsample 2 --viz-limit 60",
    "python run.py -d humaneva15 -k detectron_pt_coco -c checkpoint --evaluate pretrained_humaneva15_detectron.bin "
    "--render --viz-subject Unlabeled/S4 --viz-action 'Box 2' --viz-video '/path/Box_2_(C1).avi' --viz-limit 60",
    "python run.py -d custom -k myvideos -arc 3,3,3,3,3 -c checkpoint --evaluate pretrained_h36m_detectron_coco.bin "
    "--render --viz-subject input_video.mp4 --viz-action custom --viz-camera 0 --viz-video /path/input_video.mp4 "
    "--viz-output output.mp4 --viz-size 6",
    # PoseFormer V2, and its copy for MPI-INF-3DHP
    "poseformerv2 -g 0 -k cpn_ft_h36m_dbb -frame 27 -frame-kept 3 -coeff-kept 3 -c checkpoint/ --evaluate NAME.bin",
    "python run_3dhp.py -f 81 -frame-kept 9 -coeff-kept 9 --reload 1 --previous_dir checkpoint/no_refine_39_2758.pth",
    "python run_3dhp.py -f 81 -frame-kept 9 -coeff-kept 9 -b 512 --train 1 --lr 0.0007 -lrd 0.97 -c NAME --gpu 0",
    # MotionBERT
    "python train.py --config configs/pose3d/MB_train_h36m.yaml --checkpoint checkpoint/pose3d/MB_train_h36m",
    "python train.py --config configs/pose3d/MB_ft_h36m.yaml --pretrained checkpoint/pretrain/MB_release "
    "--checkpoint checkpoint/pose3d/FT_MB_release_MB_ft_h36m",
    "python train.py --config configs/pose3d/MB_train_h36m.yaml --evaluate checkpoint/MB_train_h36m/best_epoch.bin",
    "python train.py --config configs/pose3d/MB_ft_h36m_global.yaml -p a",
    "python train.py --config configs/pose3d/MB_ft_h36m_global_lite.yaml -p a",
    "python infer_wild.py --vid_path a.mp4 --json_path alphapose-results.json --out_path out",
    # MotionBERT, actions
    "python train_action.py --config configs/action/MB_train_NTU60_xsub.yaml --checkpoint "
    "checkpoint/action/MB_train_NTU60_xsub",
    "python train_action.py --config configs/action/MB_ft_NTU60_xview.yaml --pretrained checkpoint/pretrain/MB_release "
    "--checkpoint checkpoint/action/FT_MB_release_MB_ft_NTU60_xview",
    "python train_action.py --config configs/action/MB_train_NTU60_xview.yaml --evaluate "
    "checkpoint/action/MB_train_NTU60_xview/best_epoch.bin",
    "python train_action_1shot.py --config configs/action/MB_train_NTU120_oneshot.yaml --checkpoint a",
    "python train_action_1shot.py --config configs/action/MB_ft_NTU120_oneshot.yaml --pretrained a --checkpoint b",
    "python train_action_1shot.py --config configs/action/MB_train_NTU120_oneshot.yaml --evaluate a/best_epoch.bin",
    # the fork for MA-52
    "python train_action_custom.py",
    "python train_action_custom.py --resume latest_epoch.bin",
    "python train_action_custom.py --config configs/action/MB_train_custom.yaml",
    "python train_action_custom.py --evaluate best_epoch.bin",
    "python monitor_training.py",
    "python monitor_training.py plot",
]


@pytest.mark.parametrize("command", DOCUMENTED)
def test_documented_commands_fit_together(command: str) -> None:
    fits(words_of(command))


def test_a_documented_command_in_full() -> None:
    assert str(translate(shlex.split(DOCUMENTED[0]))) == (
        "python run.py model=hmsft dataset=h36m_cpn trainer.max_epochs=130 task.optimizer.lr=0.0002 "
        "task.scheduler.gamma=0.98 dataset.batch_size=256 model.num_frames=81 task.mask_invalid=false "
        "task.optimizer.weight_decay=0.1"
    )
    assert str(translate(shlex.split(DOCUMENTED[1]))) == (
        "python run.py mode=test model=hmsft dataset=h36m_cpn ckpt=checkpoint/cpn81f.bin model.num_frames=81"
    )


@pytest.mark.parametrize(
    ("frames", "kept", "coeffs"),
    [(27, 1, 3), (27, 3, 3), (81, 1, 3), (81, 3, 3), (81, 9, 9), (243, 27, 27)],
)
def test_released_sizes_of_poseformer_v2(frames: int, kept: int, coeffs: int) -> None:
    config = fits(words_of(f"run_poseformer.py -frame {frames} -frame-kept {kept} -coeff-kept {coeffs} -g 0"))
    assert config.model == _composed((f"model=poseformerv2_{frames}_{kept}_{coeffs}",)).model


def test_script_defaults_are_kept_where_kinema_has_others() -> None:
    config = fits(words_of("videopose3d run.py"))
    assert config.model.filter_widths == [3, 3, 3] and config.trainer.max_epochs == 60
    assert (config.dataset.batch_size, config.task.optimizer.lr, config.task.scheduler.gamma) == (1024, 1e-3, 0.95)
    assert config.task.optimizer.amsgrad and "bn_momentum" in config.callbacks
    humaneva = words_of("videopose3d -d humaneva15 -k gt")
    assert "dataset.actions=null" in humaneva
    assert "dataset.actions=null" not in words_of("videopose3d -d h36m")
