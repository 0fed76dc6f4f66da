"""mode=fuse: from score files to a report, weights, temperatures and the gain, and what it refuses."""

from __future__ import annotations

import csv
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

import kinema
from kinema.errors import ConfigError, DataError
from kinema.modes import fuse as mode
from kinema.results import fuse, score_files

CLASSES = np.array([f"class {i}" for i in range(6)])
STREAMS = {"joint": 2.5, "bone": 2.0, "noise": 0.0}


def make_run(
    folder: Path,
    strength: float,
    seed: int,
    *,
    clips: int = 300,
    stem: str = "report",
    prefix: str = "test",
    **more: object,
) -> Path:
    """A run directory as a test leaves it, of a stream that knows the class as well as `strength` says."""
    labels = np.random.default_rng(99 + len(prefix)).integers(0, len(CLASSES), clips)
    logits = strength * np.eye(len(CLASSES))[labels] + np.random.default_rng(seed).normal(size=(clips, len(CLASSES)))
    (folder / "predictions").mkdir(parents=True, exist_ok=True)
    content = {
        "names": np.array([f"{prefix}{i:04d}" for i in range(clips)]), "labels": labels, "classes": CLASSES,
        "scores": fuse.log_softmax(logits).astype(np.float32), "protocol": "action", "version": 1, **more,
    }  # fmt: skip
    np.savez(folder / "predictions" / f"{stem}.npz", **content)
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> dict[str, Path]:
    """A run per stream, with the scores of its validation."""
    made = {}
    for seed, (name, strength) in enumerate(STREAMS.items()):
        made[name] = make_run(tmp_path / name, strength, seed)
        make_run(made[name], strength, seed + 10, clips=200, stem="report_val", prefix="val")
        (made[name] / "config.resolved.yaml").write_text(f"dataset: {{stream: {name}}}\n")
    return made


def fused(tmp_path: Path, *overrides: str) -> tuple[float | None, dict, dict]:
    plain = ["mode=fuse", "trainer=cpu", "callbacks=none", f"paths.output_dir={tmp_path}/out"]
    config = kinema.compose([*plain, *overrides])
    value = mode.run(config)
    out = tmp_path / "out"
    return value, json.loads((out / "metrics.json").read_text()), json.loads((out / "fusion.json").read_text())


def inputs(runs: dict[str, Path], *names: str) -> str:
    listed = ",".join(f"{name}:{runs[name]}" for name in names or runs)
    return f"fuse.inputs={{{listed}}}"


def test_a_fusion_reports_as_a_test_does_and_its_scores_can_be_read_again(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    value, metrics, document = fused(tmp_path, inputs(runs, "joint", "bone"), "fuse.bootstrap=200", "callbacks=default")
    assert value == pytest.approx(metrics["test/top1"])
    assert document["weights"] == {"joint": 0.5, "bone": 0.5}
    assert metrics["fuse/gain"] == pytest.approx(value - metrics[f"test/top1_stream/{document['best_stream']}"])
    assert metrics["fuse/gain_low"] < metrics["fuse/gain"] < metrics["fuse/gain_high"]

    joint, bone = (score_files.read(runs[name]) for name in ("joint", "bone"))
    again = score_files.read(tmp_path / "out")
    expected = (np.exp(joint.values) + np.exp(bone.values)) / 2
    np.testing.assert_allclose(np.exp(again.values), expected, atol=1e-6)
    np.testing.assert_array_equal(again.labels, joint.labels)
    assert value == pytest.approx(100 * (expected.argmax(1) == joint.labels).mean())
    assert "| class 0 |" in (tmp_path / "out" / "report.md").read_text()
    assert (tmp_path / "out" / "report.html").read_text().count("data:image/png") >= 2
    assert (tmp_path / "out" / "report_confusion.csv").is_file()
    rows = list(csv.DictReader((tmp_path / "out" / "report.csv").open()))
    assert [row["name"] for row in rows if row["table"] == "stream"] == ["joint", "bone", "fused"]
    out = " ".join(capsys.readouterr().out.split())
    assert f"Gain over {document['best_stream']} in top1: " in out and "95 % interval" in out


def test_weights_and_temperatures_are_fitted_on_the_validation_that_trainings_keep(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    _, metrics, document = fused(
        tmp_path,
        inputs(runs),
        "fuse.weights=search",
        "fuse.temperature=fit",
        "fuse.objective=nll",
        "fuse.bootstrap=100",
    )
    assert document["weights"]["noise"] <= 0.1 and sum(document["weights"].values()) == pytest.approx(1)
    assert document["temperatures"]["noise"] > 2  # noise is calibrated by being asked for nothing
    assert document["search"]["way"] == "simplex"
    assert [Path(path).name for path in document["validation"].values()] == ["report_val.npz"] * 3
    assert metrics["test/nll_stream/fused"] < metrics["test/nll_stream/fused, equal weights"]
    assert metrics["test/ece"] < 6  # a last temperature: without it the mean is far too modest


def test_validation_can_be_named_by_stream_or_in_order(runs: dict[str, Path], tmp_path: Path) -> None:
    files = {name: f"{run}/predictions/report_val.npz" for name, run in runs.items()}
    named = "fuse.validation={" + ",".join(f"{name}:{file}" for name, file in reversed(files.items())) + "}"
    listed = f"fuse.validation=[{','.join(files.values())}]"
    found = [
        fused(tmp_path, inputs(runs), "fuse.weights=search", "fuse.bootstrap=100", words)[2]
        for words in (named, listed)
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize("words", ["fuse.weights=2:1:1", "fuse.weights={bone:1,noise:1,joint:2}"])
def test_weights_are_given_as_a_ratio_or_by_name(words: str, runs: dict[str, Path], tmp_path: Path) -> None:
    _, _, document = fused(tmp_path, inputs(runs), words, "fuse.bootstrap=100")
    assert list(document["weights"].values()) == pytest.approx([0.5, 0.25, 0.25])


def test_a_list_of_runs_is_named_by_their_streams_and_weighted_as_published(tmp_path: Path) -> None:
    streams = ("joint", "bone", "joint_motion", "bone_motion")
    folders = [make_run(tmp_path / f"run{i}", 1.0, i) for i in range(4)]
    for folder, stream in zip(folders, streams, strict=True):
        (folder / "config.resolved.yaml").write_text(f"dataset: {{stream: {stream}}}\n")
    listed = ",".join(map(str, folders))
    _, _, document = fused(tmp_path, f"fuse.inputs=[{listed}]", "fuse.weights=published", "fuse.bootstrap=100")
    assert document["weights"] == pytest.approx(dict(zip(streams, [1 / 3, 1 / 3, 1 / 6, 1 / 6], strict=True)))


def test_result_lists_of_pyskl_are_fused_with_a_name_list(tmp_path: Path) -> None:
    labels = np.arange(40) % 3
    (tmp_path / "list.txt").write_text("".join(f"clip{i} {label}\n" for i, label in enumerate(labels)))
    for seed, name in enumerate("jb"):
        prob = np.random.default_rng(seed).dirichlet(np.ones(3), 40)
        (tmp_path / f"{name}.pkl").write_bytes(pickle.dumps(list(prob.astype(np.float32))))
    value, metrics, _ = fused(
        tmp_path, f"fuse.inputs={{joint:{tmp_path}/j.pkl,bone:{tmp_path}/b.pkl}}", f"fuse.names={tmp_path}/list.txt",
        "fuse.bootstrap=100",
    )  # fmt: skip
    mean = sum(np.stack(pickle.loads((tmp_path / f"{name}.pkl").read_bytes())) for name in "jb")
    assert value == pytest.approx(100 * (mean.argmax(1) == labels).mean())
    assert "test/top5" not in metrics  # of three classes


def test_withheld_labels_are_fused_without_being_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, name in enumerate(("joint", "bone")):
        make_run(tmp_path / name, 1.0, seed, labels=np.full(300, -1))
    value, metrics, document = fused(tmp_path, f"fuse.inputs={{joint:{tmp_path}/joint,bone:{tmp_path}/bone}}")
    assert value is None and document["gain"] is None
    assert not [key for key in metrics if key.startswith("test/top1")]
    assert "labels of these clips are withheld" in " ".join(capsys.readouterr().out.split())
    assert (score_files.read(tmp_path / "out").labels == -1).all()


def test_streams_of_the_ma52_protocol_are_reported_by_it(tmp_path: Path) -> None:
    more = {"groups": np.array([0, 0, 1, 1, 2, 2]), "group_names": np.array(["a", "b", "c"]), "protocol": "ma52"}
    for seed, name in enumerate(("joint", "bone")):
        make_run(tmp_path / name, 1.5, seed, **more)
    value, metrics, _ = fused(
        tmp_path, f"fuse.inputs={{joint:{tmp_path}/joint,bone:{tmp_path}/bone}}", "fuse.objective=f1_mean",
        "fuse.bootstrap=100",
    )  # fmt: skip
    assert value == pytest.approx(metrics["test/f1_mean"])
    assert metrics["test/f1_micro_body"] >= metrics["test/f1_micro_action"]


def test_inputs_that_cannot_be_fused_get_their_sentence(runs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none are given.*fuse.inputs="):
        fused(tmp_path)
    with pytest.raises(ConfigError, match="two streams or more"):
        fused(tmp_path, inputs(runs, "joint"))
    with pytest.raises(ConfigError, match="is one file"):
        fused(tmp_path, f"fuse.inputs={runs['joint']}")


def test_weights_are_never_fitted_on_the_clips_they_are_judged_on(runs: dict[str, Path], tmp_path: Path) -> None:
    same = inputs(runs).replace("fuse.inputs", "fuse.validation")
    with pytest.raises(DataError, match=r"300 of the clips that are judged.*judged too well"):
        fused(tmp_path, inputs(runs), same, "fuse.weights=search")
