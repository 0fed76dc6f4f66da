"""scripts/legacy.py: the action scripts of MotionBERT and of its fork for MA-52, and their yaml files."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from scripts.legacy import translate
from scripts.legacy_commands.action_config import KEYS
from scripts.legacy_commands.flags import LegacyError

from kinema.composition import compose, make
from tests.e2e.running import in_process
from tests.parity.golden import ROOT
from tests.test_legacy import fits, words_of

NOVEL = ROOT / "motionbert" / "ntu" / "ntu120_hrnet_oneshot.pkl"

# configs/action/MB_train_custom.yaml of the fork shanaka95/MotionBERTForMicroActions.
FORK = {
    "finetune": False, "partial_train": None, "epochs": 300, "batch_size": 24, "lr_backbone": 1e-5, "lr_head": 8e-5,
    "weight_decay": 0.1, "lr_decay": 0.98, "model_version": "class", "maxlen": 243, "dim_feat": 192, "mlp_ratio": 2,
    "depth": 2, "dim_rep": 96, "num_heads": 4, "att_fuse": True, "num_joints": 17, "hidden_dim": 64,
    "dropout_ratio": 0.7, "dataset": "custom", "data_split": "custom", "clip_len": 243, "action_classes": 52,
    "data_root": "data", "random_move": True, "scale_range_train": [0.8, 3.2], "scale_range_test": [2, 2],
    "normalize": True, "preprocess_3d": True, "skip_2d_lifting": True,
}  # fmt: skip
# configs/action/MB_train_NTU60_xsub.yaml and MB_train_NTU120_oneshot.yaml of MotionBERT.
NTU = {
    "finetune": False, "partial_train": None, "epochs": 300, "batch_size": 32, "lr_backbone": 1e-4, "lr_head": 1e-4,
    "weight_decay": 0.01, "lr_decay": 0.99, "model_version": "class", "maxlen": 243, "dim_feat": 512, "mlp_ratio": 2,
    "depth": 5, "dim_rep": 512, "num_heads": 8, "att_fuse": True, "num_joints": 17, "hidden_dim": 2048,
    "dropout_ratio": 0.5, "dataset": "ntu60_hrnet", "data_split": "xsub", "clip_len": 243, "action_classes": 60,
    "random_move": True, "scale_range_train": [1, 3], "scale_range_test": [2, 2],
}  # fmt: skip
_NOT_THERE = ("dataset", "data_split", "action_classes")
ONE_SHOT = {key: value for key, value in NTU.items() if key not in _NOT_THERE} | {
    "n_views": 2, "temp": 0.1, "epochs": 50, "lr_head": 1e-3, "model_version": "embed", "dropout_ratio": 0.1,
    "clip_len": 100,
}  # fmt: skip
PUBLISHED = {"train_action.py": NTU, "train_action_1shot.py": ONE_SHOT, "train_action_custom.py": FORK}


def written(folder: Path, script: str, **changes: object) -> str:
    """A yaml file with some changes, as a command that trains with it."""
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(PUBLISHED[script] | changes))
    return f"{script} --config {path}"


@pytest.mark.parametrize(
    ("script", "changes", "expected"),
    [
        ("train_action.py", {}, ["experiment=motionbert/ntu60_xsub_scratch", "dataset.root=data/action"]),
        (
            "train_action.py",
            {"finetune": True, "lr_head": 1e-3, "data_split": "xview"},
            ["experiment=motionbert/ntu60_xview_ft", "dataset.root=data/action", "init=pre/latest_epoch.bin"],
        ),
        (
            "train_action_1shot.py",
            {},
            ["experiment=motionbert/ntu120_oneshot_scratch", "dataset.root=data/action"],
        ),
        (
            "train_action_1shot.py",
            {"finetune": True},
            ["experiment=motionbert/ntu120_oneshot_ft", "dataset.root=data/action", "init=pre/best_epoch.bin"],
        ),
        (
            "train_action_custom.py",
            {},
            ["experiment=ma52/fork", "dataset.root=data", "hydra.run.dir=checkpoint_custom"],
        ),
    ],
)
def test_a_published_yaml_is_its_recipe(
    tmp_path: Path, script: str, changes: dict[str, object], expected: list[str]
) -> None:
    assert words_of(f"{written(tmp_path, script, **changes)} -p pre") == expected


@pytest.mark.parametrize(
    ("script", "changes", "expected"),
    [
        ("train_action_custom.py", {"data_root": "/mine"}, ["dataset.root=/mine"]),
        ("train_action_custom.py", {"epochs": 3, "batch_size": 4}, ["trainer.max_epochs=3", "dataset.batch_size=4"]),
        (
            "train_action_custom.py",
            {"lr_backbone": 1e-3, "lr_head": 2e-3},
            ["task.optimizer.lr=0.002", "'task.parameter_groups={backbone.*:{lr:0.001}}'"],
        ),
        ("train_action_custom.py", {"scale_range_train": [1, 1], "scale_range_test": []}, ["'dataset.transforms=[]'"]),
        ("train_action_custom.py", {"random_move": False}, ["'dataset.augment=[]'"]),
        ("train_action_custom.py", {"action_classes": 3}, ["dataset.num_classes=3", "'dataset.classes=[0,1,2]'"]),
        (
            "train_action_custom.py",
            {"finetune": True, "partial_train": ["blocks_st"], "dim_feat": 512, "num_heads": 8, "depth": 5,
             "dim_rep": 512},
            ["init=checkpoint/latest_epoch.bin", "model.backbone.dim=512", "model.backbone.num_heads=8",
             "model.backbone.depth=5", "model.backbone.dim_rep=512", "'task.trainable=[head.*,backbone.*blocks_st*]'"],
        ),
        ("train_action.py", {"lr_head": 1e-3}, ["'task.parameter_groups={head.*:{lr:0.001}}'"]),
        (
            "train_action.py",
            {"dataset": "ntu120_hrnet", "data_split": "xset", "action_classes": 120},
            ["dataset=ntu120", "dataset.preprocess=ntu_compat", "dataset.protocol=xset", "dataset.selection=test"],
        ),
        (
            "train_action.py",
            {"scale_range_train": [1, 1], "scale_range_test": [1, 1], "clip_len": 100},
            ["'dataset.transforms=[{crop_scale:{train:[1.0,1.0],test:[1.0,1.0]}}]'", "dataset.frames=100"],
        ),
        (
            "train_action_1shot.py",
            {"hidden_dim": 512, "n_views": 4, "temp": 0.2},
            ["model.hidden=512", "dataset.order_options.per_class.per_class=4", "task.temperature=0.2"],
        ),
    ],
)  # fmt: skip
def test_changed_keys_become_overrides(
    tmp_path: Path, script: str, changes: dict[str, object], expected: list[str]
) -> None:
    made = translate(shlex.split(written(tmp_path, script, **changes)))
    assert set(expected) <= set(str(made).split(" "))
    fits(made.words)


def test_hydra_reads_groups_of_parameters_as_they_are_written(tmp_path: Path) -> None:
    # A dictionary on the command line is merged into the recipe's.
    fork = compose(
        [
            word
            for word in words_of(written(tmp_path, "train_action_custom.py", lr_backbone=1e-3))
            if not word.startswith("hydra")
        ]
    )
    assert fork.task.parameter_groups == {"backbone.*": {"lr": 1e-3}}
    ntu = compose(words_of(written(tmp_path, "train_action.py", finetune=True, lr_head=5e-4)))
    assert ntu.task.parameter_groups == {"head.*": {"lr": 5e-4}} and ntu.task.optimizer.lr == 1e-4


def test_evaluation_leaves_out_what_matters_for_training(tmp_path: Path) -> None:
    changes = {"epochs": 3, "lr_head": 1.0, "random_move": False, "dropout_ratio": 0.1}
    words = words_of(f"{written(tmp_path, 'train_action_custom.py', **changes)} -e a.bin")
    assert words == ["mode=test", "experiment=ma52/fork", "dataset.root=data", "model.dropout=0.1", "ckpt=a.bin"]


def test_the_head_is_as_wide_as_it_was(tmp_path: Path) -> None:
    made = translate(shlex.split(written(tmp_path, "train_action_custom.py")))
    assert any(note.startswith("hidden_dim: 64 in the yaml never reached the head") for note in made.notes)
    with torch.device("meta"):
        model = make(fits(made.words).model)
    assert sum(parameter.numel() for parameter in model.parameters()) == 5_902_651


@pytest.mark.parametrize(
    ("script", "changes", "sentence"),
    [
        ("train_action.py", {"lr_haed": 1.0}, "the key 'lr_haed' is none of those of the action scripts. Did you mean"),
        ("train_action.py", {"model_version": "embed"}, "is what train_action_1shot.py trains, not train_action.py"),
        ("train_action_1shot.py", {"model_version": "class"}, "train_action.py or train_action_custom.py trains"),
        ("train_action.py", {"model_version": "mesh"}, "is what no script trains"),
        ("train_action.py", {"dataset": "ntu60_3d"}, "none of ntu60_hrnet, ntu120_hrnet"),
        ("train_action.py", {"data_split": "xsubject"}, "none of xsub, xview, xset"),
        ("train_action.py", {"action_classes": 52}, "ntu60_hrnet has 60 classes. Clips of your own"),
        ("train_action_custom.py", {"dataset": "ntu60_hrnet"}, "reads custom alone"),
        ("train_action_custom.py", {"normalize": False}, "normalize: False in the yaml has no counterpart"),
        ("train_action_custom.py", {"num_joints": 25}, "num_joints: 25"),
        ("train_action_custom.py", {"scale_range_train": [1, 1]}, "Give both a range, or neither."),
    ],
)
def test_what_has_no_counterpart_is_refused(
    tmp_path: Path, script: str, changes: dict[str, object], sentence: str
) -> None:
    with pytest.raises(LegacyError) as error:
        words_of(written(tmp_path, script, **changes))
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("train_action.py", "train_action.py needs --config"),
        ("train_action_1shot.py", "train_action_1shot.py needs --config"),
        ("train_action.py --config configs/action/MB_train_custom.yaml", "is for train_action_custom.py, not for"),
        ("train_action.py --config other.yaml", "configs/action/MB_ft_NTU60_xview.yaml"),
        ("train.py --config configs/action/MB_ft_NTU60_xsub.yaml", "train_action.py and train_action_1shot.py train"),
        ("train_action_custom.py -freq often", "invalid int value: 'often'"),
        ("monitor_training.py curves", "'curves' is none of its words"),
        ("monitor_training.py plot again", "'again' belongs to no flag of monitor_training.py"),
        ("verify_data_format.py --data x", "--data is no flag of verify_data_format.py (motionbert). It has: none."),
    ],
)
def test_commands_that_never_worked_are_refused(command: str, sentence: str) -> None:
    with pytest.raises(LegacyError) as error:
        words_of(command)
    assert sentence in str(error.value)


def test_keys_of_other_scripts_and_without_effect_are_told(tmp_path: Path) -> None:
    made = translate(shlex.split(written(tmp_path, "train_action.py", temp=0.2, skip_2d_lifting=True, att_fuse=False)))
    assert {note.split(":")[0] for note in made.notes} == {"att_fuse", "temp", "skip_2d_lifting"}
    assert not any("temperature" in word for word in made.words)


def test_files_are_taken_as_they_were_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoint_custom").mkdir()
    (tmp_path / "checkpoint_custom" / "best_epoch.bin").touch()
    made = translate(shlex.split("train_action_custom.py --evaluate best_epoch.bin"))
    assert "ckpt=checkpoint_custom/best_epoch.bin" in made.words and "would have taken the path" in made.notes[0]
    (tmp_path / "checkpoint_custom" / "latest_epoch.bin").touch()
    made = translate(shlex.split("train_action_custom.py --resume other.bin"))
    assert "init=other.bin" in made.words
    assert any("would have gone on with it, whatever --resume says" in note for note in made.notes)


def test_names_of_the_fork() -> None:
    for name in ("ma52", "motionbert", "MotionBERTForMicroActions/", ""):
        words = words_of(f"{name}monitor_training.py" if name.endswith("/") else f"{name} monitor_training.py")
        assert words == ["mode=monitor", "monitor.folder=checkpoint_custom"]


def test_every_published_key_is_known() -> None:
    assert {key for values in PUBLISHED.values() for key in values} <= {key.name for key in KEYS}


def test_the_forks_own_order_of_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Verify, train, evaluate, monitor: every command runs as it is translated."""
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        lines = [f"{split}_{number} {number % 2}" for number in range(4)]
        for line in lines:
            folder = tmp_path / "data" / split / line.split()[0]
            folder.mkdir(parents=True)
            np.save(folder / "pose_3d.npy", random.standard_normal((9, 17, 3)).astype(np.float32))
        (tmp_path / "data" / f"{split}_labels.txt").write_text("\n".join(lines) + "\n")
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "mine.yaml"
    small = {"epochs": 1, "batch_size": 4, "dim_feat": 8, "dim_rep": 8, "depth": 1, "num_heads": 2, "maxlen": 9}
    config.write_text(yaml.safe_dump(FORK | small | {"clip_len": 9, "action_classes": 2}))
    classes = ["dataset.num_classes=2", "dataset.classes=[0,1]", "dataset.cache_dir=null", "hydra.run.dir=checked"]
    small_run = ["dataset.cache_dir=null", "trainer=cpu", "model.hidden=8"]
    in_process(*words_of("verify_data_format.py"), *classes)
    in_process(*words_of(f"train_action_custom.py --config {config}"), *small_run)
    best = "checkpoint_custom/checkpoints/best.ckpt"
    in_process(*words_of(f"train_action_custom.py --config {config} -e {best}"), *small_run, "hydra.run.dir=out")
    assert "test/top1" in json.loads((tmp_path / "out" / "metrics.json").read_text())
    in_process(*words_of("monitor_training.py plot"), "hydra.run.dir=monitored")
    assert (tmp_path / "checkpoint_custom" / "monitor.png").is_file()
    (tmp_path / "data" / "train_labels.txt").write_text("train_0 0\nmissing 1\n")
    with pytest.raises(AssertionError, match="ended with code"):
        in_process(*words_of("verify_data_format.py"), *classes)


@pytest.mark.parity
@pytest.mark.skipif(not NOVEL.is_file(), reason=f"no golden data in {ROOT}")
def test_a_published_one_shot_network_is_as_good_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The published evaluation, from its yaml and its files, by the old command."""
    sizes = json.loads((NOVEL.parent / "config.json").read_text())
    changes = {key: value for key, value in sizes.items() if key in ONE_SHOT} | {"clip_len": sizes["n_frames"]}
    command = f"{written(tmp_path, 'train_action_1shot.py', **changes)} --evaluate {NOVEL.parent / 'best_epoch.bin'}"
    monkeypatch.chdir(tmp_path)
    more = [f"dataset.root={NOVEL.parent}", "dataset.cache_dir=null", "trainer=cpu", "hydra.run.dir=out"]
    in_process(*words_of(command), *more)
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())["test/top1"]
    with np.load(NOVEL.parent / "case.npz") as case:
        assert found == pytest.approx(100 * float(case["oneshot_acc"]), abs=1e-4)
