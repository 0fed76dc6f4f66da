"""The benchmarks: both forms of every row are equal, and the rules of measuring are kept. No time is judged here."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from scripts.bench import __main__ as program
from scripts.bench import bench_action, bench_diffusion, length, report, run
from scripts.bench.measure import Once, Pair, Spent, interleaved
from scripts.bench.rows import Row, rows

from kinema.models.layers.scan import cpp

# Every operation that must be measured: the row that does, and what it must reach.
REQUIRED = {
    "dstformer_forward": 0.95,
    "dstformer_step": 0.95,
    "dstformer_memory": 0.85,
    "poseformer_8": 0.95,
    "poseformer_64": 1.1,
    "poseformer_video": 1.6,
    "poseformer_spatial": 60,
    "poseformerv2_video": 1.1,
    "videopose3d_video_81": 4.5,
    "videopose3d_video_243": 7,
    "videopose3d_step_81": 4,
    "videopose3d_step_243": 7,
    "hmsft_video": 1.2,
    "hmsft_video_memory": 0.4,
    "p_mpjpe": 20,
    "evaluation_videopose3d": 1.5,
    "evaluation_motionbert": 1.3,
    "clips_warm": 2,
    "clips_cold": 2.5,
    "windows_flips": 2.2,
    "window_loader": 3,
    "optimiser_step": 2.5,
    "ema": 2,
    "trainer_overhead": 1.5,
    "action_data_ma52": 2,
    "action_data_ntu": 8,
    "action_ma52_step": 0.95,
    "action_ma52_present": 1.7,
    "stgcnpp_step": 1.2,
    "scan_forward_torch": 2,
    "scan_forward_cpp": 8,
    "scan_step_torch": 20,
    "scan_step_cpp": 150,
    "scan_memory_torch": 0.5,
    "scan_memory_cpp": 0.5,
    "dbmambapose_step_torch": 2.5,
    "dbmambapose_step_cpp": 5,
    "smrnet_ddim_8x8": 1.4,
    "smrnet_ddim_2x50": 1.9,
    "smrnet_evaluation_200": 1.4,
    "humanmac_ddim": 1,
    "completion": 8,
    "completion_part": 3,
    "multimodal_metrics_50": 4,
    "multimodal_metrics_5": 0.95,
    "motion_windows": 0.9,
    "prediction_memory": 1.2,
    "gpu_dstformer_step": 4,
    "gpu_poseformer_video": 2,
    "gpu_evaluation": 5,
    "gpu_smrnet_float32": 1.1,
    "gpu_smrnet_tf32": 2,
    "gpu_smrnet_bf16": 2,
    "gpu_smrnet_float32_compiled": 1.1,
    "gpu_smrnet_tf32_compiled": 2,
    "gpu_smrnet_bf16_compiled": 2,
}


@pytest.mark.parametrize("name", rows())
def test_both_forms_are_equal(name: str) -> None:
    row = rows()[name]
    missing = row.missing()
    if missing and missing != "no CUDA device":
        pytest.skip(missing)
    pair = row.build(**row.small)
    try:
        assert pair.difference() <= row.tolerance
        for form in (pair.reference, pair.fast):  # what is timed runs as well
            pair.before()
            form()
    finally:
        pair.close()


def test_every_required_operation_has_a_row_with_its_bound() -> None:
    assert {name: rows()[name].bound for name in REQUIRED} == REQUIRED


def test_forms_are_timed_in_turns_after_a_warm_up() -> None:
    calls: list[str] = []
    pair = Pair(lambda: calls.append("a"), lambda: calls.append("b"), lambda: 0.0, before=lambda: calls.append("-"))
    spent = interleaved(pair, "cpu", 2)
    assert "".join(calls) == "-a-b" * 3
    assert [len(times) for times in spent] == [2, 2]


def test_a_slow_reference_runs_once_and_is_timed_in_that_run() -> None:
    calls: list[str] = []

    def slow() -> str:
        calls.append("a")
        sum(range(200_000))  # some process time
        return "result"

    once = Once(slow)
    pair = Pair(once, lambda: calls.append("b"), lambda: float(once() != "result"))
    assert pair.difference() == 0
    plain, fast = interleaved(pair, "cpu", 3)
    assert calls == ["a"] + ["b"] * 4
    assert len(plain) == 3 and len(set(plain)) == 1 and plain[0].counted > 0
    assert len(fast) == 3
    assert interleaved(pair, "wall", 1)[0][0].counted == plain[0].wall


def test_a_row_of_the_compiled_scan_tells_why_it_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpp, "unavailable", lambda u: "no compiler was found.")
    assert rows()["scan_step_cpp"].missing() == "no compiler was found"
    assert rows()["scan_step_torch"].missing() is None


def test_the_scan_is_measured_at_the_shapes_of_the_lifters() -> None:
    shapes = {
        tuple(row.sizes[axis] for axis in ("batch", "channels", "length", "states"))
        for name, row in rows().items()
        if name.startswith("scan_") and row.kind == "ratio"
    }
    assert shapes == {(17, 128, 243, 16), (17, 128, 243, 4), (243, 128, 17, 4)}
    network = rows()["dbmambapose_step_torch"].sizes
    assert (network["frames"], network["dim"], network["depth"]) == (243, 64, 12)  # the size XS


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_the_exponent_of_a_cost_is_read_off_long_clips(power: float) -> None:
    costs = {n: 1e-3 * max(n, 243) ** power for n in length.LENGTHS}  # short clips cost what calling costs
    assert length.exponent(costs) == pytest.approx(power)
    assert length.exponent(costs, start=27) < power


def test_the_cost_over_length_is_measured_kept_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    costs = length.measure(length.blocks(), lengths=(3, 300, 303), rounds=1)
    assert {"attention", "Mamba, torch"} <= costs.keys()
    assert all(list(of_block) == [3, 300, 303] and min(of_block.values()) > 0 for of_block in costs.values())
    table, picture = length.save(costs, tmp_path)
    assert length.load(table).keys() == costs.keys()
    assert length.load(table)["attention"] == pytest.approx(costs["attention"], rel=1e-3)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert len(length.lines(costs)) == 1 + len(costs)
    assert program.main(["--list", "--only", "sequence_cost"]) == 0
    assert capsys.readouterr().out.split()[0] == "sequence_cost"


def test_training_on_actions_is_measured_at_the_published_sizes() -> None:
    sizes = rows()["action_ma52_step"].sizes
    fork = bench_action.action_net(
        frames=sizes["frames"], dim=sizes["dim"], depth=sizes["depth"], heads=sizes["heads"], hidden=sizes["hidden"],
        mask_persons=False,
    )  # fmt: skip
    graph = bench_action.graph_net(**{key: rows()["stgcnpp_step"].sizes[key] for key in ("frames", "dim", "depth")})
    counts = [sum(p.numel() for p in model.parameters()) for model in (fork, graph)]
    assert counts == [5_902_651, 1_403_144]


def test_motion_prediction_is_measured_at_the_published_sizes() -> None:
    counts = {}
    for name in ("smrnet_ddim_8x8", "smrnet_evaluation_200", "humanmac_ddim", "gpu_smrnet_float32"):
        sizes = rows()[name].sizes
        model, _ = bench_diffusion.network(**{key: sizes[key] for key in ("family", "kept", "dim", "depth", "heads")})
        counts[name] = sum(p.numel() for p in model.parameters())
        # Zeros of the initialisation would hide everything behind them.
        assert all(float(p.detach().abs().max()) > 0 for p in model.parameters())
    assert counts.pop("humanmac_ddim") == 28_401_712
    assert set(counts.values()) == {25_318_052}
    windows = {(row.sizes["history"], row.sizes["horizon"]) for row in rows().values() if "horizon" in row.sizes
               and "history" in row.sizes}  # fmt: skip
    assert windows == {(25, 100)}


def test_memory_of_a_test_is_weighed_beyond_one_chunk() -> None:
    sizes = rows()["prediction_memory"].sizes
    assert sizes["few"] * sizes["samples"] > sizes["chunk"] and sizes["few"] >= sizes["batch"]
    assert sizes["many"] == 8 * sizes["few"]


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_given_noise_is_the_same_for_any_choice_of_windows_and_samples(steps: int) -> None:
    noise = bench_diffusion.Given.drawn(windows=3, samples=4, steps=steps, kept=2, features=6)
    ids, samples = torch.tensor([2, 0]), torch.tensor([1, 3])
    start = noise(ids, samples, bench_diffusion.START, 0, (2, 6))
    assert torch.equal(start, noise.start[[2, 0]][:, [1, 3]])
    drawn = [noise(ids, samples, step, 0, (2, 6)) for step in range(steps)]
    assert torch.equal(torch.stack(drawn), noise.fresh[:, [2, 0]][:, :, [1, 3]])
    assert not torch.equal(start, drawn[0])  # the last step's number is not that of the beginning


def test_short_long_and_missing_persons_are_in_the_compared_clips() -> None:
    lengths = rows()["action_data_ntu"]
    clips, _ = bench_action.recorded(lengths.sizes["clips"], 25, 60, most=2, shortest=50, longest=300)
    frames = lengths.sizes["frames"]
    kinds = {0 if len(c[0]) < frames else 1 if len(c[0]) < 2 * frames else 2 for c in clips}
    assert kinds == {0, 1, 2}  # every form of uniform sampling
    assert {len(c) for c in clips} == {1, 2}
    micro, _ = bench_action.recorded(rows()["action_data_ma52"].sizes["clips"], 17, 52, most=1, shortest=1, longest=300)
    assert min(c.shape[1] for c in micro) == 1 and max(c.shape[1] for c in micro) > 243


def a_row(*ratios: float, difference: float = 0.0, **changes: Any) -> tuple[Row, list[str]]:
    """A row whose measurements come out as given, one after another, and the calls made."""
    calls: list[str] = []
    left = [ratio for ratio in ratios for _ in range(2)]  # the warm-up round and a timed one

    def build(**sizes: int) -> Pair:
        return Pair(
            lambda: Spent(left[0], 1.0),
            lambda: Spent(left.pop(0) / left_ratio(), 1.0),
            lambda: difference,
            close=lambda: calls.append("closed"),
        )

    def left_ratio() -> float:
        calls.append("timed")
        return ratios[(len(calls) - 1) // 2]

    row = Row(
        "made_up", "something", "something else", build, {"n": 1}, {"n": 1}, 2.0, 3.0, 1e-6, clock="own", rounds=1
    )
    return replace(row, **changes), calls


ENVIRONMENT = {
    "date": "2026-01-01T00:00:00+00:00", "revision": "abc1234", "processor": "a CPU", "cpu_capability": "AVX2",
    "cores": 2, "gpu": None, "packages": {"torch": "2.13.0"},
}  # fmt: skip


def test_a_missed_bound_is_repeated_once_and_then_told() -> None:
    row, calls = a_row(1.5, 2.5)
    result = run.measure(row, ENVIRONMENT)
    assert (result["first_value"], result["value"], result["reached"]) == (1.5, 2.5, True)
    row, calls = a_row(1.5, 1.7)
    result = run.measure(row, ENVIRONMENT)
    assert not result["reached"]
    assert report.warning(row, result) == "WARNING made_up: 1.70 is below its minimum of 2 (first try 1.50)"
    assert calls[-1] == "closed"


def test_a_reached_bound_is_measured_once() -> None:
    row, calls = a_row(2.5)
    assert run.measure(row, ENVIRONMENT)["value"] == 2.5
    assert calls == ["timed", "timed", "closed"]


@pytest.mark.parametrize("difference", [1e-3, float("nan")])
def test_unequal_forms_are_not_timed(difference: float) -> None:
    row, calls = a_row(2.5, difference=difference)
    with pytest.raises(run.NotEqualError, match="made_up"):
        run.measure(row, ENVIRONMENT)
    assert calls == ["closed"]


def test_an_overhead_is_a_difference_with_an_upper_bound() -> None:
    def build(**sizes: int) -> Pair:
        return Pair(lambda: Spent(0.002, 0.002), lambda: Spent(0.005, 0.005), lambda: 0.0)

    row = replace(a_row(1.0)[0], build=build, kind="overhead", bound=3.5)
    result = run.measure(row, ENVIRONMENT)
    assert result["value"] == pytest.approx(3.0) and result["reached"]
    assert not row.reaches(3.6)


def test_quick_halves_rounds_and_keeps_shapes() -> None:
    counts = []

    def build(n: int) -> Pair:
        return Pair(lambda: counts.append(n), lambda: None, lambda: 0.0)

    row = replace(a_row(1.0)[0], build=build, clock="cpu", rounds=5, bound=0.0)
    assert run.measure(row, ENVIRONMENT, quick=True)["shapes"] == {"n": 1}
    assert counts == [1] * 4  # one to warm up, three of five


def test_results_are_kept_with_what_they_depend_on(tmp_path: Path) -> None:
    row, _ = a_row(2.5)
    path = report.save(run.measure(row, ENVIRONMENT), tmp_path)
    kept = json.loads(path.read_text())
    assert path.name == "made_up.json"
    assert kept["shapes"] == {"n": 1} and kept["environment"]["revision"] == "abc1234"
    assert {"bound", "goal", "value", "difference", "tolerance", "dtype", "clock", "rounds"} <= kept.keys()
    assert kept["reference"].keys() == {"median", "minimum", "wall"} == kept["fast"].keys()


def test_the_environment_names_machine_versions_and_revision() -> None:
    from scripts.bench.environment import environment

    facts = environment()
    assert facts["packages"]["torch"] and facts["processor"] and facts["threads"] >= 1
    assert json.loads(json.dumps(facts)) == facts


def test_the_docs_get_the_last_table_and_a_column_of_the_history(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text(
        "# Title\n<!-- last run -->\n<!-- end of last run -->\n<!-- history -->\n<!-- end of history -->\nend\n"
    )
    for value, revision in ((2.5, "abc1234"), (3.5, "def5678"), (4.0, "def5678")):
        row, _ = a_row(value)
        result = run.measure(row, {**ENVIRONMENT, "revision": revision})
        report.write_page([result], ["made_up"], page)
    text = page.read_text()
    assert "| `made_up` | something | something else | 4.00 | 2 | 3 |" in text
    assert "| row | 2026-01-01 abc1234, a CPU | 2026-01-01 def5678, a CPU |" in text
    assert "| made_up | 2.50 | 4.00 |" in text
    assert text.startswith("# Title\n") and text.endswith("end\n")


def test_the_list_names_rows_by_pattern(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["--list", "--only", "poseformer_8"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["poseformer_8", "poseformer_8_step"]
    assert program.main(["--list", "--memory"]) == 0
    assert capsys.readouterr().out.split()[0] == "dstformer_memory"
