"""Bad motion, options and checkpoints of motion prediction through the command line: the sentence and its remedy."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from omegaconf import DictConfig, OmegaConf

from kinema import cli, composition
from kinema.errors import KinemaError
from kinema.modes.train import build
from kinema.results import as_trained
from tests.checkpoints import tiny
from tests.e2e.motion_files import NETWORK, RUN, TASK, Motion, data, save
from tests.e2e.running import in_process, metrics, refused
from tests.modes.action_networks import lifter

BASE = [*TASK, *NETWORK, *RUN]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("clean"))


@pytest.fixture(scope="module")
def network(clean: Path) -> Path:
    """A checkpoint as training writes it, of random weights."""
    config = composition.compose([*BASE, *data(clean)])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = composition.build_model(config)
        torch.nn.init.normal_(model.out.weight, std=0.05)  # a fresh network says 0
    spec = composition.build_data(config, model.signature).spec
    content = tiny.lightning(model, task="prediction", spec=spec, config=composition.plain(config))
    return tiny.save(content, clean / "best.ckpt")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@cache
def _composed(words: tuple[str, ...]) -> DictConfig:
    return composition.compose([*words])


def configured(root: Path, *words: str) -> DictConfig:
    """The configuration of a command; groups are composed once, which takes most of its time."""
    config = _composed((*BASE, *data("."))).copy()
    for word in (f"dataset.root={root}", *words):
        key, _, value = word.lstrip("+").partition("=")
        spaced = re.sub(r":(?=\S)", ": ", value) if value.startswith("{") else value
        OmegaConf.update(config, key, yaml.safe_load(spaced), force_add=True)
    return config


def refused_early(stage: str, root: Path, *words: str) -> str:
    """What is said of a command before a first step, as the error that ends it."""
    with pytest.raises(KinemaError) as error:
        _, module, _ = build(configured(root, *words))
        module.setup(stage)
    return str(error.value)


def told(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run a command that ends well; returns what it told on the way."""
    capsys.readouterr()
    in_process(*words, "hydra.run.dir=well")
    return capsys.readouterr().err


def evaluation(network: Path, root: Path, *words: str) -> list[str]:
    return ["mode=test", *TASK, *RUN, *data(root), f"ckpt={network}", *words]


# Files.


def with_hole(motion: Motion) -> None:
    for subject in ("S5", "S9"):
        motion[subject]["Walking"][3, 4] = np.nan


def scaled(factor: float) -> Callable[[Motion], None]:
    def change(motion: Motion) -> None:
        for trials in motion.values():
            for name in trials:
                trials[name] = trials[name] * np.float32(factor)

    return change


def cut(
    frames: int, subjects: tuple[str, ...] = (), trials: tuple[str, ...] = ("Walking", "Waving 1")
) -> Callable[[Motion], None]:
    def change(motion: Motion) -> None:
        for subject in subjects or tuple(motion):
            for name in trials:
                motion[subject][name] = motion[subject][name][:frames]

    return change


# Fault: damage, words, what is said, the remedy in the same sentence (None = mend the data).
FILES: dict[str, tuple[Callable[[Motion], None] | None, list[str], str, str | None]] = {
    "NaN": (
        with_hole, [], "/Walking: 1 of 60 frames hold NaN (first 3). Repair the file or allow masking",
        "dataset.on_nan=mask",
    ),
    "millimetres": (scaled(1000), [], "these are millimetres, metres expected", "dataset.unit=mm"),
    "centimetres": (scaled(100), [], "these are centimetres, metres expected", "dataset.unit=cm"),
    "metres as millimetres": (None, ["dataset.unit=mm"], "m: the file is in metres", "dataset.unit=m"),
    "all too short": (
        cut(12), [],
        "that a window of 5 + 10 needs; the longest has 12 (S", "dataset.horizon=",
    ),
    "no joints of the body": (
        lambda motion: motion["S9"].update(Walking=motion["S9"]["Walking"][:, :15]), [], "joints", None,
    ),
    "unknown subject": (None, ["dataset.subjects_test=[S99]", "dataset.subjects_train=[S99]"], "has no subject 'S99'.",
                        None),
}  # fmt: skip


@pytest.mark.parametrize("stage", ["fit", "test"])
@pytest.mark.parametrize("fault", FILES)
def test_a_fault_of_the_files_is_told_with_its_remedy(fault: str, stage: str, here: Path) -> None:
    change, words, sentence, remedy = FILES[fault]
    said = refused_early(stage, save(here / "motion", change=change), *words)
    assert sentence in said
    assert remedy is None or remedy in said


def test_a_faulty_file_ends_training_and_test_with_one_sentence(
    network: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = save(here / "motion", change=with_hole)
    for words in ([*BASE, *data(root)], evaluation(network, root)):
        assert "hold NaN (first 3). Repair the file" in refused(capsys, *words)


@pytest.mark.parametrize("fault", ["NaN", "millimetres", "centimetres"])
def test_the_remedy_that_is_told_works(fault: str, here: Path, clean: Path) -> None:
    change, _, _, remedy = FILES[fault]
    assert remedy is not None
    made = []
    for root, words in ((save(here / "motion", change=change), [remedy]), (clean, [])):
        _, module, _ = build(configured(root, *words))
        module.setup("test")
        batch = module.transform(module.windows("test")[torch.arange(36)[:, None].expand(-1, 3).clone()])
        made.append(batch["motion"])
    assert torch.isfinite(made[0]).all()
    torch.testing.assert_close(made[0], made[1], atol=0.2 if fault == "NaN" else 1e-4, rtol=0)


def test_short_sequences_are_left_out_with_one_line(
    network: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = save(here / "motion", change=cut(9, ("S5", "S9"), ("Walking",)))
    lines = told(capsys, *evaluation(network, root)).splitlines()
    (line,) = (line for line in lines if "shorter than 16 frames and left out" in line and line.startswith("test"))
    assert line == "test: 1 of 4 sequences are shorter than 16 frames and left out: S9/Walking."


def test_a_folder_with_test_data_alone_is_tested(network: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = save(here / "motion", subjects=("S9", "S11"))
    lines = told(capsys, *evaluation(network, root, "dataset.mean_motion=null")).splitlines()
    assert sum("What needs training data is left out" in line for line in lines) == 1
    table = Path("well", "methods.md").read_text().splitlines()
    names = [name.strip() for name in next(line for line in table if "ade" in line).strip("|").split("|")]
    rows = {
        line.split("|")[1].strip(): [one.strip() for one in line.strip("|").split("|")]
        for line in table
        if line.startswith("| ")
    }
    default = dict(zip(names, rows["HumanMAC"], strict=True))
    nearest = dict(zip(names, rows["nearest"], strict=True))
    assert float(default["ade"]) > 0 and default["cmd"] == "-"
    assert nearest["ade"] == "-"
    assert float(dict(zip(names, rows["zero_velocity"], strict=True))["ade"]) > 0
    said = refused(capsys, *BASE, *data(root))
    assert "has no subject 'S1'" in said and "It has: S9, S11." in said


# Options.

OPTIONS: dict[str, tuple[list[str], str, str]] = {
    "indivisible": (["task.ddim_timesteps=7"], "ddim_timesteps=7 of noise_steps=1000", "task.ddim_timesteps=8"),
    "too many": (["task.ddim_timesteps=600"], "must divide the noise steps", "task.ddim_timesteps=500"),
    "all": (["task.ddim_timesteps=1000"], "at most half of them", "task.ddim_timesteps=500"),
    "none": (["task.ddim_timesteps=0"], "ddim_timesteps=0 of", "task.ddim_timesteps=1"),
    "in validation": (["task.validation.ddim_timesteps=7"], "=7 of noise_steps", "ddim_timesteps=8"),
    "in a variant": (["+task.variants.fast={ddim_timesteps:7}"], "=7 of noise_steps", "ddim_timesteps=8"),
    "unknown option": (
        ["+task.variants.fast={ddim_timestep:10}"], "task.variants.fast: 'ddim_timestep' is no option of a prediction",
        "Did you mean 'ddim_timesteps'?",
    ),
    "unknown baseline": (["+task.variants.x={baseline:zero}"], "no baseline is called 'zero'", "zero_velocity"),
    "unknown sampler": (["task.sampler=ddpm"], "no sampler is called 'ddpm'", "Use one of ddim"),
    "unknown padding": (["task.padding=last"], "padding", "last_frame"),
    "odd depth": (["model.depth=3"], "3 blocks have no halves", "model.depth=2"),
    "no sample": (["task.num_samples=0"], "0 samples predict nothing", "task.num_samples=50"),
    "no share": (["task.mod_test=1.5"], "mod_test=1.5 is no share", "task.mod_test=1.0"),
    "coefficients": (["model.kept_coeffs=16"], "keeps 16 coefficients, but a window has 15 frames",
                     "model.kept_coeffs=15"),
    "repeat": (["task.padding=repeat", "dataset.horizon=9"], "repeat", "task.padding=last_frame"),
    "features": (["model.num_features=42"], "42", "Use"),
    "levels": (["task.t_min=1000"], "task.t_min=1000 is no step", "task.t_min=1"),
    "no history": (["dataset.history=0"], "dataset.history=0 is less than one", "dataset.history=25"),
}  # fmt: skip


@pytest.mark.parametrize("fault", OPTIONS)
def test_an_option_that_cannot_work_is_told_before_training(fault: str, clean: Path) -> None:
    words, sentence, remedy = OPTIONS[fault]
    said = refused_early("fit", clean, *words)
    assert sentence in said and remedy in said


def test_faulty_options_end_a_command_with_one_sentence(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, *BASE, *data(clean), "task.ddim_timesteps=7")
    assert said.endswith("Use task.ddim_timesteps=8.")
    said = refused(capsys, *BASE, *data(clean), "+task.protocol_options.prediction.treshold=0.4")
    assert "treshold" in said and "prediction.yaml" in said


def test_one_sample_is_judged(network: Path, clean: Path) -> None:
    in_process(*evaluation(network, clean, "task.num_samples=1"), "hydra.run.dir=well")
    found = metrics(Path("well"))
    assert found["test/apd"] == 0 and found["test/ade"] > 0


def test_published_draws_need_all_windows_at_once(
    network: Path, clean: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, *evaluation(network, clean, "task.compat_rng=true", "dataset.eval_batch_size=4"))
    assert "draws noise for all 36 windows together, and a batch holds 4." in said
    remedy = "dataset.eval_batch_size=36"
    assert remedy in said
    in_process(*evaluation(network, clean, "task.compat_rng=true", remedy), "hydra.run.dir=well")


# Checkpoints.

TYPED: dict[str, tuple[list[str], str, str]] = {
    "network": (["model=smrnet_tiny"], "holds a humanmac but model=smrnet_tiny was chosen", "Drop model="),
    "coefficients": (
        ["model=humanmac_tiny", "model.kept_coeffs=7"], "was built with kept_coeffs=6, not model.kept_coeffs=7",
        "model.kept_coeffs=6",
    ),
    "none": (["ckpt=null"], "evaluates a checkpoint, and none is given", "ckpt=path/to/file"),
}  # fmt: skip
CHECKPOINTS: dict[str, tuple[list[str], str, str]] = {
    "features": (
        ["dataset.skeleton=humaneva15", "dataset.num_joints=15", "dataset.num_features=42"],
        "has 48 features (three per joint without the root) but dataset=h36m_motion has 42", "with that skeleton",
    ),
    "heading": (["task.heading=true"], "trained with task.heading=false, not true", "task.heading=false"),
    "target": (["task.prediction=x0"], "trained with task.prediction=noise, not x0", "task.prediction=noise"),
    "history": (["dataset.history=6"], "trained with task.history=5, not 6", "task.history=5"),
    "noise": (["task.noise_steps=500"], "trained with task.noise_steps=1000, not 500", "task.noise_steps=1000"),
    "schedule": (["task.schedule=linear"], "trained with task.schedule=cosine", "task.schedule=cosine"),
    "frame rate": (["dataset.fps=25"], "trained at 50 frames per second, the data is said to have 25",
                   "dataset.fps=50"),
    "missing": (["ckpt=none.ckpt"], "none.ckpt not found", "not found"),
}  # fmt: skip


@pytest.mark.parametrize("fault", CHECKPOINTS)
def test_a_checkpoint_of_something_else_is_refused(fault: str, network: Path, clean: Path) -> None:
    words, sentence, remedy = CHECKPOINTS[fault]
    said = refused_early("test", clean, "mode=test", f"ckpt={network}", *words)
    assert sentence in said and remedy in said


@pytest.mark.parametrize("fault", TYPED)
def test_what_is_typed_of_another_network_is_refused(
    fault: str, network: Path, clean: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, sentence, remedy = TYPED[fault]
    said = refused(capsys, *evaluation(network, clean, *words))
    assert sentence in said and remedy in said


def test_a_lifting_checkpoint_predicts_no_motion(clean: Path, here: Path) -> None:
    path = lifter(here / "lifter.ckpt")
    said = refused_early("test", clean, "mode=test", f"ckpt={path}")
    assert "pose3d" in said and "task=lifting" in said
    for mode in ("switch", "control", "zero_shot"):
        with pytest.raises(KinemaError, match=r"was trained for task=lifting.*checkpoint of task=prediction"):
            as_trained.for_prediction(configured(clean, f"mode={mode}", f"ckpt={path}"))


@pytest.mark.parametrize(
    ("experiment", "sentence"),
    [
        ("smrnet/h36m", "experiment=smrnet/h36m is of smrnet, but {path} holds a humanmac"),
        ("humanmac/h36m", "{path} holds a humanmac of kept_coeffs=6 "),
        (None, None),
    ],
)
def test_a_file_that_is_not_of_the_recipe_is_told(
    experiment: str | None, sentence: str | None, network: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["mode=describe", "describe.runs=1", f"ckpt={network}"]
    lines = told(capsys, *words, *([] if experiment is None else [f"experiment={experiment}"])).splitlines()
    warned = [line for line in lines if line.endswith("its numbers are not those of the recipe")]
    assert len(warned) == (sentence is not None)
    assert sentence is None or sentence.format(path=network) in warned[0]
    if experiment == "humanmac/h36m":
        assert "experiment=humanmac/h36m has kept_coeffs=20 " in warned[0]


def test_a_key_of_another_task_names_the_task(
    network: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {}
    for word in ("task.num_samples=5", "task.validation.num_samples=5", "task.num_smaples=5"):
        monkeypatch.setattr("sys.argv", ["run.py", "mode=test", f"ckpt={network}", word])
        with pytest.raises(SystemExit):
            cli.main()
        said[word] = capsys.readouterr().err
    for word in list(said)[:2]:
        assert "of another task: add task=prediction." in said[word] and "Did you mean" not in said[word]
    assert "Did you mean num_samples" in said["task.num_smaples=5"]


@pytest.mark.parametrize(("words", "folder"), [
    (["mode=switch"], "prediction"), (["mode=zero_shot"], "prediction"), (["mode=render"], "lifting"),
])  # fmt: skip
def test_modes_of_motion_write_below_prediction(
    words: list[str], folder: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["run.py", *words, "ckpt=none.ckpt"])
    with pytest.raises(SystemExit):
        cli.main()
    assert [path.name for path in Path("outputs").iterdir()] == [folder]
