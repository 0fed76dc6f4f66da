"""scripts/legacy.py: how a command line is read, what is refused, MotionBERT's yaml files, --run, and the docs."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from scripts.legacy import SCRIPTS, YAML_KEYS, config_table, main, table, translate
from scripts.legacy_commands.flags import LegacyError, spell
from scripts.legacy_commands.motionbert_config import KEYS

from tests.data.layouts import layout
from tests.parity.golden import FIXTURES, ROOT
from tests.test_legacy import fits, words_of

REPOSITORY = Path(__file__).resolve().parents[1]
DOCS = REPOSITORY / "docs" / "old_commands.md"
PEERS = {"PoseFormer": "poseformer", "PoseFormerV2": "poseformerv2", "VideoPose3D": "videopose3d"}
RESULTS = ROOT / "poseformer" / "evaluate" / "results.json"
# configs/pose3d/MB_train_h36m.yaml of MotionBERT's repository.
PUBLISHED = {
    "train_2d": False, "no_eval": False, "finetune": False, "partial_train": None, "epochs": 120,
    "checkpoint_frequency": 30, "batch_size": 32, "dropout": 0.0, "learning_rate": 0.0002, "weight_decay": 0.01,
    "lr_decay": 0.99, "maxlen": 243, "dim_feat": 512, "mlp_ratio": 2, "depth": 5, "dim_rep": 512, "num_heads": 8,
    "att_fuse": True, "data_root": "data/motion3d/MB3D_f243s81/", "subset_list": ["H36M-SH"],
    "dt_file": "h36m_sh_conf_cam_source_final.pkl", "clip_len": 243, "data_stride": 81, "rootrel": True,
    "sample_stride": 1, "num_joints": 17, "no_conf": False, "gt_2d": False, "lambda_3d_velocity": 20.0,
    "lambda_scale": 0.5, "lambda_lv": 0.0, "lambda_lg": 0.0, "lambda_a": 0.0, "lambda_av": 0.0, "synthetic": False,
    "flip": True, "mask_ratio": 0.0, "mask_T_ratio": 0.0, "noise": False,
}  # fmt: skip


def refusal(command: str) -> str:
    with pytest.raises(LegacyError) as error:
        translate(shlex.split(command))
    return str(error.value)


@pytest.mark.parametrize(
    "command",
    [
        "poseformer run_poseformer.py -f 27",
        "PoseFormer -frame=27",
        "poseformer python run_poseformer.py -frame 27",
        "poseformer -f=27",
        "python3 PoseFormer-main/run_poseformer.py --number-of-frames 27",
        "poseformer run_poseformer.py --number-of-f 27",
        "poseformer-v1 run_poseformer -frame 27",
    ],
)
def test_spellings_of_one_command(command: str) -> None:
    assert words_of(command) == words_of("poseformer run_poseformer.py -frame 27")
    assert "model.num_frames=27" in words_of(command)


def test_the_system_is_told_by_flags_folders_and_names() -> None:
    assert "model=poseformerv2" in words_of("run_poseformer.py -frame 27 -frame-kept 3")
    assert "model=hmsft" in words_of("HMSFT/run_poseformer.py -f 27")
    assert "model=poseformerv2" in words_of("python PoseFormerV2/run_poseformer.py -frame 27")
    assert "model=videopose3d" in words_of("run.py -k gt")
    made = translate(["run_poseformer.py", "-f", "27"])
    assert "model=poseformer" in made.words
    assert "hmsft would take it, too" in made.notes[0]


def test_v2_calls_f_ambiguous() -> None:
    for command in ("poseformerv2 -f 27", "run_poseformer.py -f 27 -frame-kept 3"):
        assert refusal(command).startswith("-f is ambiguous here: it could mean -frame or -frame-kept.")


def test_attached_values_and_negative_ones() -> None:
    assert "trainer.max_epochs=80" in words_of("videopose3d -e80 -kgt")
    drawn = "videopose3d --evaluate a.bin --render"
    assert "render.limit=-1" in words_of(f"{drawn} --viz-limit=-1") == words_of(f"{drawn} --viz-limit -1")


def test_environment_and_own_overrides_stay() -> None:
    made = translate(shlex.split("CUDA_VISIBLE_DEVICES=1 python run.py -k gt -- trainer=cpu 'tags=[a]'"))
    assert str(made).startswith("CUDA_VISIBLE_DEVICES=1 python run.py model=videopose3d dataset=h36m_gt")
    assert str(made).endswith(" trainer=cpu 'tags=[a]'")


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("videopose3d --chanels 3", "--chanels is no flag of run.py (videopose3d). Did you mean --channels?"),
        ("poseformer -arc 3,3,3", "-arc is no flag of run_poseformer.py (poseformer). It is one of VideoPose3D's"),
        ("hmsft -no-tta", "task.flip_average=false"),
        ("train.py --config a.yaml --wandb", "--wandb is no flag of train.py (motionbert). It has: --config, -c"),
        ("train_action.py --config a --foo 1", "--foo is no flag of train_action.py"),
        ("smrnet main.py --cfg h36m --milestones 3", "Did you mean --milestone?"),
        ("videopose3d -e ten", "invalid int value: 'ten'"),
        ("videopose3d -k gt stray", "'stray' belongs to no flag of run.py"),
        ("poseformerv2 -g x", "-g/--gpu"),
        ("trainer.py -k gt", "'trainer.py' is neither a system"),
        ("smrnet run.py", "smrnet has no run.py. It has: main.py."),
        ("motionbert", "Which script?"),
        ("-k gt", "Which script?"),
        ("videopose3d -r a.bin --evaluate b.bin", "exclude each other"),
        ("videopose3d --render", "--render without --evaluate"),
        ("videopose3d -d custom -k a", "no 3D to train on"),
        ("videopose3d -d humaneva20 -k gt", "-d humaneva20"),
        ("videopose3d -d humaneva15", "needs -k"),
        ("videopose3d -k sh_ft_h36m", "16 joints"),
        ("poseformer -s 3", "predicts one frame"),
        ("run_3dhp.py -f 81", "there is no file to evaluate"),
        ("train.py", "needs --config"),
        ("train.py --config configs/pose3d/other.yaml", "MB_ft_h36m_global_lite.yaml"),
        (
            "train.py --config configs/pretrain/MB_pretrain.yaml",
            "Pretraining (AMASS, PoseTrack, InstaVariety) does not",
        ),
        ("infer_wild.py -j a.json", "needs --out_path"),
        ("infer_wild.py -j a.json -o out --pixel -v none.mp4", "none.mp4 is no file here"),
        ("train_mesh.py --config configs/mesh/MB_ft_pw3d.yaml", "Mesh recovery (train_mesh.py) does not exist"),
        ("infer_wild_mesh.py -j a -v b -o c --ref_3d_motion_path d", "Mesh recovery (infer_wild_mesh.py) does not"),
        ("demo/vis.py --video a.mp4", "Kinema has no 2D detector"),
    ],
)
def test_what_has_no_counterpart_is_refused_by_name(command: str, sentence: str) -> None:
    assert sentence in refusal(command)


def test_flags_without_influence_are_explained_not_translated() -> None:
    made = translate(shlex.split("poseformer --warmup 3 -drop 0.2 -sun S5 --dense -lr 1e-3 --evaluate a.bin"))
    assert made.words == ["mode=test", "model=poseformer", "dataset=h36m_cpn", "ckpt=checkpoint/a.bin"]
    for name in ("--warmup: ", "-drop: ", "-sun: ", "--dense: ", "-lr: without effect there"):
        assert sum(note.startswith(name) for note in made.notes) == 1, name


def test_2d_only_subjects_are_drawn_without_truth() -> None:
    assert "dataset.has_3d=false" in words_of("videopose3d --evaluate a.bin --render --viz-subject S2")
    assert "dataset.has_3d=false" not in words_of("videopose3d --evaluate a.bin --render --viz-subject S9")


def test_custom_videos_are_fed_as_the_network_was_trained() -> None:
    coco = words_of("videopose3d -d custom -k a --evaluate pretrained_h36m_detectron_coco.bin")
    assert coco[0] == "mode=predict" and "dataset.skeleton2d=coco17" in coco
    for command in (
        "videopose3d -d custom -k a --evaluate pretrained_h36m_cpn.bin",
        "poseformer -d custom -k a --ev b",
    ):
        assert not any("skeleton2d" in word for word in words_of(command))


@pytest.mark.parametrize(
    "value",
    ["Walking 1", "a(1).mp4", "it's", 'say "x"', "null", "1", "1e-3", "S9", "a,b", "~/x", "ü.mp4", "[a]", "a=b", "x\\"],
)
def test_values_survive_the_shell_and_hydra(value: str) -> None:
    (word,) = shlex.split(shlex.join([f"render.action={spell(value)}"]))
    assert OverridesParser.create().parse_override(word).value() == value


# MotionBERT's yaml files.


def written(folder: Path, name: str = "mine.yaml", **changes: object) -> Path:
    path = folder / name
    path.write_text(yaml.safe_dump(PUBLISHED | changes))
    return path


def test_a_published_yaml_is_its_recipe(tmp_path: Path) -> None:
    made = translate(["train.py", "--config", str(written(tmp_path))])
    assert made.words == ["experiment=motionbert/h36m", "dataset.root=data/motion3d"]
    assert not made.notes


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"epochs": 3, "batch_size": 4}, ["trainer.max_epochs=3", "dataset.batch_size=4"]),
        ({"maxlen": 81, "clip_len": 27, "data_stride": 9}, ["model.num_frames=81", "dataset.frames=27"]),
        ({"data_stride": 27}, ["dataset.windows.stride=27"]),
        ({"rootrel": False}, ["experiment=motionbert/h36m_global"]),
        ({"finetune": True}, ["experiment=motionbert/h36m_ft", "init=pre/latest_epoch.bin", "trainer.max_epochs=120"]),
        ({"partial_train": ["head"]}, ['task.trainable=[*head*]']),
        ({"gt_2d": True}, ["task.protocol_options.motionbert.gt_2d=true"]),
        ({"no_conf": True}, ["model.in_channels=2"]),
        ({"no_eval": True}, ["trainer.limit_val_batches=0"]),
        ({"flip": False}, ["task.flip_average=false", "dataset.augment=[]"]),
        ({"lambda_a": 0.1, "lambda_scale": 0.0}, ["task.losses.angle=0.1", "task.losses.n_mpjpe=0.0"]),
        ({"checkpoint_frequency": 10}, ["+callbacks.epochs.every_n_epochs=10"]),
        (
            {"synthetic": True, "noise": True, "mask_ratio": 0.05, "mask_T_ratio": 0.1},
            ["dataset.augment=[{pose2d_from_target:{}},{flip:{probability:0.5}},{motionbert_noise:{}},"
             "{mask:{joints:0.05,frames:0.1}}]"],
        ),
    ],
)  # fmt: skip
def test_changed_keys_become_overrides(tmp_path: Path, changes: dict[str, object], expected: list[str]) -> None:
    path = written(tmp_path, **changes)
    words = translate(["train.py", "--config", str(path), "-p", "pre"]).words
    assert set(expected) <= set(words)
    fits(words)


def test_a_yaml_of_its_own_keys_is_known_by_content_and_name(tmp_path: Path) -> None:
    folder = tmp_path / "pose3d"
    folder.mkdir()
    path = written(folder, "MB_ft_h36m_global.yaml", rootrel=False, finetune=True, epochs=60)
    made = translate(["train.py", "--config", str(path), "-p", "pre"]).words
    assert made == ["experiment=motionbert/h36m_global", "dataset.root=data/motion3d", "init=pre/latest_epoch.bin"]
    wild = translate(["infer_wild.py", "--config", str(path), "-j", "a.json", "-o", "out"]).words
    assert "task.target=first_frame_depth" in wild


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"learning_rat": 1.0}, "the key 'learning_rat' is none of MotionBERT's for 3D poses. Did you mean"),
        ({"zzz": 1}, "the key 'zzz' is none of MotionBERT's"),
        ({"train_2d": True}, "train_2d: True in the yaml has no counterpart"),
        ({"subset_list": ["AMASS", "H36M-SH"]}, "AMASS"),
        ({"num_joints": 21}, "num_joints: 21"),
        ({"backbone": "TCN"}, "backbone: TCN"),
    ],
)  # fmt: skip
def test_yaml_that_has_no_counterpart_is_refused(tmp_path: Path, changes: dict[str, object], sentence: str) -> None:
    assert sentence in refusal(f"train.py --config {written(tmp_path, **changes)}")


def test_yaml_is_read_without_running_anything(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("epochs: !!python/object/apply:os.system ['touch " + str(tmp_path / "ran") + "']\n")
    assert "is no yaml file" in refusal(f"train.py --config {path}")
    assert not (tmp_path / "ran").exists()
    path.write_text("- a\n- b\n")
    assert "holds no keys" in refusal(f"train.py --config {path}")


def test_keys_that_changed_nothing_are_explained(tmp_path: Path) -> None:
    made = translate(["train.py", "--config", str(written(tmp_path, dropout=0.1, noise_path="mine.pth"))])
    assert len(made.notes) == 2
    assert made.notes[0].startswith("dropout: 0.1 in the yaml was never handed to the network")


def test_every_published_key_is_known() -> None:
    assert set(PUBLISHED) <= {key.name for key in KEYS}


# The program.


def test_the_command_goes_to_stdout_and_remarks_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hmsft", "-f", "27"]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("python run.py model=hmsft ") and shown.out.count("\n") == 1
    assert shown.err.startswith("note: the network that HMSFT's repository trains was never published")
    assert main(["hmsft", "--nonsense"]) == 2
    shown = capsys.readouterr()
    assert not shown.out and shown.err.startswith("error: --nonsense is no flag of run_poseformer.py")
    assert main(["--help"]) == 0
    assert "docs/old_commands.md" in capsys.readouterr().out


@pytest.mark.parametrize("start", [["-m", "scripts.legacy"], [str(REPOSITORY / "scripts" / "legacy.py")]])
def test_it_starts_as_a_module_and_as_a_file(start: list[str], tmp_path: Path) -> None:
    cwd = REPOSITORY if start[0] == "-m" else tmp_path
    done = subprocess.run([sys.executable, *start, "--help"], cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_run_evaluates_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout({"S1": ("walk 1",), "S9": ("walk 2", "squat 3")}).save(tmp_path / "data", "h36m", "gt")
    monkeypatch.chdir(tmp_path)
    weights = FIXTURES / "poseformer" / "vp3d_333"
    typed = f"--run python run.py -k gt -arc 3,3,3 -ch 24 -ste S9 -c {weights} --evaluate ckpt.bin"
    # Seventeen joints and json cameras in place of the archive's 32 joints.
    files = "dataset.reader_options.source_skeleton=null dataset.reader_options.cameras=cameras_h36m.json"
    more = f"{files} dataset.cache_dir=null trainer=cpu hydra.run.dir=out"
    assert main([*shlex.split(typed), "--", *more.split()]) == 0
    measured = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert 100 < measured["test/mpjpe"] < 10_000  # random weights


@pytest.mark.parity
@pytest.mark.skipif(not RESULTS.is_file(), reason=f"no golden data in {ROOT}")
def test_recorded_command_lines_fit_together() -> None:
    for row in json.loads(RESULTS.read_text()).values():
        heads = json.loads((ROOT / "poseformer" / row["weights"] / "config.json").read_text()).get("num_heads")
        more = [f"model.num_heads={heads}"] if heads else []  # no flag of the scripts says it
        fits([*words_of(f"{PEERS[row['peer']]} {row['cli']} --evaluate ckpt.bin"), *more])


@pytest.mark.slow
@pytest.mark.parity
@pytest.mark.skipif(not RESULTS.is_file(), reason=f"no golden data in {ROOT}")
@pytest.mark.parametrize("name", ["v1_cpn_downsample2", "v2_cpn", "vp3d_cpn_notta", "v1_humaneva_by_subject"])
def test_run_gives_the_recorded_numbers(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = json.loads(RESULTS.read_text())[name]
    monkeypatch.chdir(tmp_path)
    weights = ROOT / "poseformer" / row["weights"]
    cli = row["cli"].replace("-g 0 ", "")
    typed = f"--run {PEERS[row['peer']]} {cli} -c {weights} --evaluate ckpt.bin"
    more = f"paths.data_dir={ROOT / 'poseformer' / 'dataset'} dataset.cache_dir=null trainer=cpu hydra.run.dir=out"
    heads = json.loads((weights / "config.json").read_text()).get("num_heads")
    assert main([*shlex.split(typed), "--", *more.split(), *([f"model.num_heads={heads}"] if heads else [])]) == 0
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    if "average" in row["results"]:
        assert found["test/mpjpe"] == pytest.approx(row["results"]["average"]["mpjpe"], abs=0.01)
    assert found["test/mpjpe"] > 0


# The documentation.


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: f"{script.system}/{script.file}")
def test_the_docs_hold_the_table_of_every_script(script: object) -> None:
    assert table(script) in DOCS.read_text(), "paste what python scripts/legacy.py --table prints"  # type: ignore[arg-type]


@pytest.mark.parametrize("title", YAML_KEYS)
def test_the_docs_hold_the_keys_of_the_yaml_files(title: str) -> None:
    assert f"### {title}\n\n{config_table(YAML_KEYS[title])}" in DOCS.read_text()
