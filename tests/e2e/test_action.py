"""Action recognition from the command line: train, test, a folder of test clips alone, streams, one-shot embeddings."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from kinema.composition import compose
from kinema.data.safe_pickle import load_npz
from kinema.data.synthetic.actions import perform
from kinema.data.synthetic.skeleton import Body
from tests.e2e.running import in_process, metrics

GCN = [
    "model=stgcnpp",
    "model.num_frames=16",
    "model.dim=8",
    "model.depth=3",
    "model.inflate_stages=[2]",
    "model.down_stages=[2]",
]
DST = [
    "model=action_tiny",
    "model.hidden=16",
    "model.backbone.dim=16",
    "model.backbone.dim_rep=8",
    "model.backbone.depth=1",
    "dataset.frames=16",
]
SHORT = ["task=action", "trainer=cpu", "trainer.max_epochs=2", "dataset.batch_size=16"]
BUILT_IN = ["dataset=synthetic_actions", "dataset.reader_options.takes=1"]
CLASSES = ("walk", "jump", "wave")


def best(folder: Path) -> Path:
    return folder / "checkpoints" / "best.ckpt"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips in the layout of MA-52, six of each class in training and three in the test split."""
    root = tmp_path_factory.mktemp("clips")
    random = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 3)):
        lines = []
        for label, action in enumerate(CLASSES):
            for number in range(count):
                name = f"{split}_{action}_{number}"
                motion = perform(action, Body.draw(random), random, int(random.integers(20, 50)), 50.0)
                (root / split / name).mkdir(parents=True)
                np.save(root / split / name / "pose_3d.npy", motion.astype(np.float32))
                lines.append(f"{name} {label}")
        (root / f"{split}_labels.txt").write_text("\n".join(lines) + "\n")
    return root


def own(home: Path) -> list[str]:
    return [
        "dataset=cmu_actions", f"dataset.root={home}", f"dataset.classes=[{','.join(CLASSES)}]",
        "dataset.num_classes=3",
        "dataset.validation.by=clip", f"paths.cache_dir={home}/cache",
    ]  # fmt: skip


@pytest.mark.parametrize("network", [GCN, DST], ids=["stgcnpp", "dstformer"])
def test_train_and_test_leave_numbers_scores_and_pictures(
    network: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    in_process(*SHORT, *BUILT_IN, *network, "hydra.run.dir=run")
    values = metrics(tmp_path / "run")
    assert {"val/top1", "test/top1", "test/top5", "test/mean_class", "test/ece"} <= set(values)
    stored = load_npz(tmp_path / "run" / "predictions" / "report.npz")
    assert np.allclose(np.exp(stored["scores"].astype(np.float64)).sum(1), 1, atol=1e-4)
    right = (stored["scores"].argmax(1) == stored["labels"]).mean()
    assert values["test/top1"] == pytest.approx(100 * right)
    assert len(stored["names"]) == 24
    assert list((tmp_path / "run" / "figures").glob("confusion*.png"))
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000


def test_a_folder_that_holds_only_test_clips_can_be_tested(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [*SHORT[:2], "dataset.batch_size=5", *GCN]
    in_process(*words, *own(home), "trainer.max_epochs=1", "hydra.run.dir=trained")
    whole = metrics(tmp_path / "trained")
    alone = tmp_path / "alone"
    shutil.copytree(home / "test", alone / "test")
    shutil.copy(home / "test_labels.txt", alone)
    in_process("mode=test", *words, *own(alone), f"ckpt={best(tmp_path / 'trained')}", "hydra.run.dir=tested")
    tested = metrics(tmp_path / "tested")
    assert tested["test/top1"] == pytest.approx(whole["test/top1"])
    assert tested["test/nll"] == pytest.approx(whole["test/nll"], abs=1e-5)


def test_several_clips_and_mirrored_ones_are_averaged_at_test_time(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [*SHORT[:2], "dataset.batch_size=5", *GCN, *own(home)]
    in_process(*words, "trainer.max_epochs=1", "hydra.run.dir=trained")
    variants = "task.variants={plain:{flip_average:false},mirrored:{flip_average:true}}"
    in_process(
        "mode=test",
        *words,
        f"ckpt={best(tmp_path / 'trained')}",
        "dataset.test_clips=4",
        variants,
        "hydra.run.dir=many",
    )
    once, many = metrics(tmp_path / "trained"), metrics(tmp_path / "many")
    assert many["test/nll"] != once["test/nll"]
    assert many["test/mirrored/nll"] != many["test/nll"]
    assert len(load_npz(tmp_path / "many" / "predictions" / "report.npz")["names"]) == 9


def test_a_long_tail_recipe_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    in_process(
        *SHORT, *BUILT_IN, *GCN, "hydra.run.dir=run", "dataset.order=balanced",
        "dataset.order_options.balanced.power=0.5",
        "task.class_balance=0.9", "task.logit_adjustment=0.5", "task.losses.focal=0.5", "dataset.rule=uniform",
        "dataset.augment=[random_move,{mirror:{probability:0.5}},{rotate:{radians:0.1}},{mixup:{alpha:0.2}}]",
    )  # fmt: skip
    with (tmp_path / "run" / "metrics.csv").open() as file:
        assert "train/focal" in file.readline()


def test_embeddings_are_trained_by_contrast_and_judged_by_exemplars(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    in_process(
        *SHORT[:2], *own(home), *DST, "trainer.max_epochs=1", "model.head=embed",
        "task.losses={cross_entropy:0,supcon:1}",
        "task.protocol=oneshot", "task.protocol_options.oneshot.exemplar_split=train",
        "dataset.split_test=[train,test]",
        "dataset.order=per_class", "dataset.batch_size=6",
        "dataset.selection=test", "dataset.validation.by=null", "hydra.run.dir=run",
    )  # fmt: skip
    assert 0 <= metrics(tmp_path / "run")["test/top1"] <= 100


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["dataset=synthetic", *DST], "serves lifting, lifting_semi, not task=action. Use dataset=cmu_actions"),
        ([*BUILT_IN, "model=dstformer_tiny"], "needs a model that gives embedding or logits"),
        ([*BUILT_IN, *GCN, "model.num_classes=7"], "has 7 classes but dataset=synthetic_actions has 12"),
        ([*BUILT_IN, *GCN, "model.persons=2", "model.data_norm=MVC"], "takes 2 persons"),
        ([*BUILT_IN, *GCN, "task.losses.coarse=1"], "needs groups of classes"),
        ([*BUILT_IN, *GCN, "dataset.augment=[{mirrr:{}}]"], "Did you mean 'mirror'"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(words: list[str], sentence: str) -> None:
    from kinema.errors import ConfigError
    from kinema.modes.train import build

    with pytest.raises(ConfigError, match=sentence.replace("(", r"\(")):
        build(compose(["task=action", *words]))


def test_a_data_set_of_one_task_names_it() -> None:
    from kinema.errors import ConfigError
    from kinema.modes.train import build

    with pytest.raises(ConfigError, match=r"serves action, not task=lifting\. Use task=action model=stgcnpp\.$"):
        build(compose(["dataset=synthetic_actions"]))


def test_another_preprocessing_than_the_checkpoints_is_refused(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kinema.errors import ConfigError
    from kinema.modes.train import build

    monkeypatch.chdir(tmp_path)
    words = [*SHORT[:2], "dataset.batch_size=5", *GCN, *own(home)]
    in_process(*words, "trainer.max_epochs=1", "hydra.run.dir=trained")
    again = [*words, "mode=test", f"ckpt={best(tmp_path / 'trained')}"]
    build(compose(again))
    with pytest.raises(ConfigError, match=r"trained with the preprocessing 'heading'.*Use dataset.preprocess=heading"):
        build(compose([*again, "dataset.preprocess=ma52"]))
    record = json.loads((tmp_path / "trained" / "metrics.json").read_text())["_meta"]
    assert record["parameters"] > 0
