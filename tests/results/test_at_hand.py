"""What tables find on disk: trainings written by the house's own writers, checkpoints by name, and what is lacking."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from kinema import runs
from kinema.composition import compose
from kinema.core.skeleton import skeleton
from kinema.results import collect, evaluate, registry, runs_at_hand
from kinema.results.evaluate import Places
from kinema.results.registry import Method, Published, Registry
from tests.data.layouts import Layout

RECIPE = Method("Net", "Somebody", experiment="cmu/videopose3d")
VALUES = {
    "test/mpjpe": 52.5,
    "test/p_mpjpe": 41.5,
    "test/mpjpe_group/persons absent from train": 53.0,
    "val/mpjpe": 1.0,
}


def training(folder: Path, *words: str, state: str = "finished", mpjpe: float = 52.5, when: int = 0) -> Path:
    """A run directory as `mode=train` leaves it, without the training."""
    overrides = ["experiment=cmu/videopose3d", *words]
    config = compose([*(word for word in overrides if not word.startswith("hydra.")), f"paths.output_dir={folder}"])
    run = runs.Run(config)
    OmegaConf.save(OmegaConf.create(overrides), folder / "overrides.yaml")
    (folder / ".hydra").mkdir()
    (folder / "overrides.yaml").rename(folder / ".hydra" / "overrides.yaml")
    meta = {"step": 12000, "parameters": 579123, "fit_cpu_seconds": 630.0, "protocol_versions": {"test": 1}}
    run.metrics({**VALUES, "test/mpjpe": mpjpe}, meta)
    run.status(state)
    if when:
        os.utime(folder / "status.json", (when, when))
    return folder


def save_humaneva(folder: Path) -> None:
    """The 3D and the ground-truth 2D of HumanEva-I, a few frames of each person."""
    random = np.random.default_rng(0)
    body = skeleton("humaneva15")
    persons = [f"{part}/S{number}" for part in ("Train", "Validate") for number in (1, 2, 3)]
    actions = [f"{action} 1 chunk0" for action in ("Walking", "Jog", "Box")]
    metadata = {
        "layout_name": "humaneva15", "num_joints": 15, "keypoints_symmetry": [list(body.left), list(body.right)]
    }  # fmt: skip
    Layout(
        {one: {action: random.normal(size=(5, 15, 3)).astype(np.float32) for action in actions} for one in persons},
        {one: {action: [np.full((5, 15, 2), 9, np.float32)] * 3 for action in actions} for one in persons},
        {},
        metadata,
    ).save(folder, "humaneva15", "gt")


def test_a_finished_training_is_found_with_what_it_took(tmp_path: Path) -> None:
    training(tmp_path / "cmu_videopose3d" / "a", "paths.data_dir=/x", "hydra.run.dir=/y", "seed=3")
    (one,) = runs_at_hand.trainings(tmp_path)
    assert one.seed == 3 and not one.changed
    measured = runs_at_hand.measured(one)
    assert measured.metrics["mpjpe"] == 52.5 and "test/mpjpe" not in measured.metrics and len(measured.metrics) == 3
    assert measured.facts == {"steps": 12000, "parameters": 579123, "CPU min": 10.5, "seed": 3}
    assert (measured.protocol, measured.version) == ("videopose3d", 1)
    assert "python run.py experiment=cmu/videopose3d seed=3" in measured.label and "/x" not in measured.label


def test_a_training_in_a_folder_of_its_own_is_known_by_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["run.py", "experiment=cmu/videopose3d", "trainer.max_steps=5", "--config-dir=x"])
    folder = training(tmp_path / "a")
    (folder / ".hydra" / "overrides.yaml").unlink()
    (one,) = runs_at_hand.trainings(tmp_path)
    assert one.experiment == "cmu/videopose3d" and one.changed == {"trainer.max_steps=5"}


def test_unfinished_and_evaluating_runs_are_no_trainings(tmp_path: Path) -> None:
    training(tmp_path / "a", state="interrupted")
    training(tmp_path / "b", "mode=test")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "status.json").write_text("{half")
    assert runs_at_hand.trainings(tmp_path) == []


def test_the_newest_training_of_a_seed_counts(tmp_path: Path) -> None:
    training(tmp_path / "b", mpjpe=50.0, when=1_000)
    training(tmp_path / "a", mpjpe=51.0, when=2_000)
    training(tmp_path / "c", "seed=1", mpjpe=52.0, when=500)
    mine, changed = runs_at_hand.of_method(RECIPE, runs_at_hand.trainings(tmp_path))
    assert [(one.folder.name, one.seed) for one in mine] == [("a", 0), ("c", 1)] and not changed


def test_a_changed_recipe_is_left_out_and_named(tmp_path: Path) -> None:
    training(tmp_path / "a", "trainer.max_steps=10")
    found = runs_at_hand.trainings(tmp_path)
    mine, changed = runs_at_hand.of_method(RECIPE, found)
    assert not mine and len(changed) == 1
    assert "trainer.max_steps=10" in runs_at_hand.left_out(RECIPE, changed)
    row = Method("Net", "Somebody", experiment="cmu/videopose3d", overrides=("trainer.max_steps=10",))
    assert len(runs_at_hand.of_method(row, found)[0]) == 1, "what the row names itself belongs to it"
    assert not runs_at_hand.of_method(Method("Net", "", experiment="cmu/lifting"), found)[0]


@pytest.mark.parametrize(
    ("scratch", "finetuned"),
    [("motionbert_oneshot_scratch", "motionbert_oneshot_ft"), ("motionbert_xsub_scratch", "motionbert_xsub_ft")],
)
def test_finetuning_needs_weights_and_scratch_none(scratch: str, finetuned: str, tmp_path: Path) -> None:
    """One-shot: both recipes are the same but for `init`."""
    methods = registry.shipped().methods
    for folder, name, words in (
        ("scratch", scratch, []), ("wrong", scratch, ["init=MB/latest_epoch.bin"]),
        ("forgotten", finetuned, ["init=null"]), ("tuned", finetuned, ["init='MB/best epoch.bin'"]),
    ):  # fmt: skip
        training(tmp_path / folder, f"experiment={methods[name].experiment}", *words)
    found = runs_at_hand.trainings(tmp_path)
    same = scratch == "motionbert_oneshot_scratch"
    for name, allowed in ((scratch, {"scratch", "forgotten"}), (finetuned, {"tuned", "wrong"})):
        mine, others = runs_at_hand.of_method(methods[name], found)
        names = {one.folder.name for one in mine}
        assert len(names) == 1 and names <= (allowed if same else {"scratch", "tuned"}), name
        assert {one.folder.name for one in others} & allowed == set()
        assert ("init=null" if name == finetuned else "init=MB/") in runs_at_hand.left_out(methods[name], others)


def test_finetuning_from_the_table_starts_from_the_weights_at_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    known = registry.shipped()
    method = known.methods["motionbert_oneshot_ft"]
    assert method.command.endswith("init=MB_release/best_epoch.bin")
    started: list[list[str]] = []
    monkeypatch.setattr(evaluate, "start", lambda words, folder: started.append(list(words)))
    monkeypatch.setattr(evaluate, "state_of_data", lambda method, places: ("data", "settings"))
    places = Places(tmp_path, (tmp_path / "weights",), tmp_path / "outputs", tmp_path / "tables")
    only = replace(known, results={"ntu120_oneshot": [Published("motionbert_oneshot_ft", {}, "", "")]})
    only = replace(only, tables={"ntu120_oneshot": known.tables["ntu120_oneshot"]})

    (table,) = collect.tables(only, "ntu", places, train=True)
    lacking = f"starts from MB_release/best_epoch.bin of Walter0807/MotionBERT; put it into {tmp_path / 'weights'}"
    assert not started and lacking in caplog.text and any(lacking in note for note in table.notes)

    file = tmp_path / "weights" / "pretrain" / "MB_release" / "best_epoch.bin"
    file.parent.mkdir(parents=True)
    file.touch()
    collect.tables(only, "ntu", places, train=True)
    assert [f"init='{file}'" in words for words in started] == [True]


@pytest.mark.parametrize("typed", ["model.filter_widths=[3,3,3]", "'model.filter_widths=[3, 3, 3]'"])
def test_overrides_compare_without_quotes(typed: str) -> None:
    assert runs_at_hand.plain(typed) == "model.filter_widths=[3,3,3]"


def test_a_training_by_another_name_of_the_recipe_counts(tmp_path: Path) -> None:
    folder = training(tmp_path / "a")
    for name, count in {"hmsft/3dhp": 1, "hmsft/mpi_inf_3dhp": 1, "hmsft/h36m_gt": 0, "no/such": 0}.items():
        OmegaConf.save(OmegaConf.create([f"experiment={name}"]), folder / ".hydra" / "overrides.yaml")
        mine, _ = runs_at_hand.of_method(registry.read().methods["hmsft_3dhp"], runs_at_hand.trainings(tmp_path))
        assert len(mine) == count, name


def test_checkpoints_are_found_by_name_in_any_case_and_depth(tmp_path: Path) -> None:
    method = Method("Net", "", checkpoints=("9_81_*.bin", "MB_train_h36m/best_epoch.bin"))
    for name in ("deep/er/9_81_46.0.bin", "MB_train_h36m/best_epoch.bin", "best_epoch.bin", "9_81.bin", "9_81_x.BIN"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = {str(path.relative_to(tmp_path)) for path in evaluate.files_of(method, [tmp_path, tmp_path / "nowhere"])}
    assert found == {"deep/er/9_81_46.0.bin", "MB_train_h36m/best_epoch.bin", "9_81_x.BIN"}


CHANGED = [name for name, method in registry.read().methods.items() if method.overrides or method.test_overrides]


@pytest.mark.parametrize("name", CHANGED)
def test_the_overrides_of_a_row_compose(name: str, tmp_path: Path) -> None:
    method = registry.read().methods[name]
    config = compose(evaluate.test_words(method, Places(tmp_path, (), tmp_path, tmp_path)))
    assert config.mode == "test"
    for word in (*method.overrides, *method.test_overrides):
        key, _, value = word.partition("=")
        if key != "dataset":
            assert runs_at_hand.plain(str(OmegaConf.select(config, key))) == runs_at_hand.plain(value)


@pytest.mark.parametrize("name", ["plain", "with space", "it's", "a=b", "a,b", "back\\slash"])
def test_paths_survive_as_overrides(name: str, tmp_path: Path) -> None:
    config = compose([f"paths.data_dir={evaluate.quoted(tmp_path / name)}"])
    assert OmegaConf.to_container(config.paths)["data_dir"] == str(tmp_path / name)


def test_without_data_there_are_sentences_and_no_numbers(tmp_path: Path) -> None:
    places = Places(tmp_path / "data", (tmp_path / "weights",), tmp_path / "outputs", tmp_path / "tables")
    made = collect.tables(registry.read(), "humaneva", places)
    for table in made:
        for line in table.lines:
            if line.whose == "ours":
                assert not line.values and set(table.cells(line)[2:-1]) == {"-"}
                assert any("data_3d_humaneva15.npz not found" in note for note in line.notes)
                assert any("docs/datasets/humaneva15.md" in note for note in line.notes)
                assert any("Train it: `python run.py experiment=" in note for note in line.notes)


def test_each_row_tells_what_its_own_data_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the ground-truth 2D of HumanEva-I is there: detections are lacking, and only where they are read."""
    save_humaneva(tmp_path / "humaneva15")
    asked = []
    real = evaluate.state_of_data

    def counted(method: Method, places: Places) -> tuple[str, str]:
        asked.append(method.experiment)
        return real(method, places)

    monkeypatch.setattr(evaluate, "state_of_data", counted)
    monkeypatch.setenv("KINEMA_CACHE", str(tmp_path / "cache"))
    one, other = "videopose3d_humaneva", "hmsft_humaneva"
    known = registry.read()
    mixed = [Published(name, {}, "", "") for name in (other, one, other + "_again")]
    methods = {**known.methods, other + "_again": known.methods[other]}
    table = replace(known.tables["humaneva_gt_p1"], name="mixed")
    places = Places(tmp_path, (tmp_path / "weights",), tmp_path / "outputs", tmp_path / "tables")
    everything = Registry({**known.tables, "mixed": table}, methods, {**known.results, "mixed": tuple(mixed)})
    found = {table.name: table for table in collect.tables(everything, "humaneva", places)}
    lacks = [any("detectron_pt_coco.npz not found" in note for note in line.notes) for line in found["mixed"].lines]
    assert lacks == [False, True, False]
    for name, expected in {"humaneva_coco_p1": True, "humaneva_coco_p2": True, "humaneva_gt_p1": False}.items():
        (ours,) = [line for line in found[name].lines if line.whose == "ours"]
        assert any("not found" in note for note in ours.notes) == expected, name
    assert sorted(asked) == ["hmsft/humaneva", "videopose3d/humaneva"], "rows that read the same ask once"


def test_a_lacking_checkpoint_is_said_with_where_to_get_it(tmp_path: Path) -> None:
    places = Places(tmp_path, (tmp_path / "weights",), tmp_path, tmp_path)
    (sentence, *_) = collect.ways(registry.read().methods["poseformer_81_gt"], places, [])
    assert "gt81f.bin" in sentence and "zczcwh/PoseFormer" in sentence and str(tmp_path / "weights") in sentence
