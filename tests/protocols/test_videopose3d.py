"""The VideoPose3D protocol against a plain loop over sequences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kinema.data.sequences import Sequences
from kinema.data.windows import Windows
from kinema.errors import ConfigError
from kinema.protocols import videopose3d
from kinema.protocols.report import Report
from kinema.protocols.videopose3d import VideoPose3DProtocol
from tests.protocols.stores import SKELETON, batches, distance, noisy, picks, procrustes, store


def plain_loop(sequences: Sequences, windows: Windows) -> dict[str, dict[str, float]]:
    """Per action, as the published evaluation loop adds it up: sums of N times the mean of a sequence."""
    sums: dict[str, dict[str, float]] = {}
    for row, batch in enumerate(batches(windows)):
        pred, target = noisy(batch)[0].numpy(), batch["pose3d"][0].numpy()
        target = target - target[:, :1]
        frames = len(target)
        scaled = [(p * t).sum() / (p * p).sum() * p for p, t in zip(pred.astype(np.float64), target, strict=True)]
        aligned = np.stack([procrustes(p, t) for p, t in zip(pred, target, strict=True)])
        joints = distance(pred, target)
        found = {
            "mpjpe": joints.mean(),
            "p_mpjpe": distance(aligned, target).mean(),
            "n_mpjpe": distance(np.stack(scaled), target).mean(),
            "pck": (joints < 150).mean() * 100,
            "auc": np.mean([(joints < limit).mean() for limit in range(0, 151, 5)]) * 100,
        }
        if frames > 1:
            found["mpjve"] = distance(np.diff(pred, axis=0), np.diff(target, axis=0)).mean()
        if frames > 2:
            found["acceleration"] = distance(np.diff(pred, n=2, axis=0), np.diff(target, n=2, axis=0)).mean()
        action = sums.setdefault(str(sequences.table["action"][row]), {})
        for name, value in found.items():
            action[name] = action.get(name, 0) + frames * value
            action[f"{name} frames"] = action.get(f"{name} frames", 0) + frames
    return {
        action: {name: total / values[f"{name} frames"] for name, total in values.items() if "frames" not in name}
        for action, values in sums.items()
    }


def evaluated(windows: Windows, **options: object) -> Report:
    protocol = VideoPose3DProtocol(windows, **options)  # type: ignore[arg-type]
    for batch in batches(windows):
        protocol.update(noisy(batch), batch)
    return protocol.compute()


@given(st.lists(st.integers(1, 9), min_size=1, max_size=7))
@settings(max_examples=15, deadline=None)
def test_equals_the_plain_loop(lengths: list[int]) -> None:
    sequences = store(lengths)
    windows = Windows.whole(sequences)
    expected, report = plain_loop(sequences, windows), evaluated(windows)
    assert [row["action"] for row in report.tables["action"]] == list(expected)
    for row in report.tables["action"]:
        for name, value in expected[row["action"]].items():
            assert row[name] == pytest.approx(value, rel=2e-5), name
    for name in {name for values in expected.values() for name in values}:
        mean = np.mean([values[name] for values in expected.values() if name in values])
        assert report.scalars[name] == pytest.approx(mean, rel=2e-5), name
    assert report.tables["action"][0]["frames"] == sum(lengths[::3])


def test_means_over_frames_weight_long_actions_more() -> None:
    sequences = store([2, 20])
    report = evaluated(Windows.whole(sequences))
    first, second = (row["mpjpe"] for row in report.tables["action"])
    assert report.scalars["mpjpe"] == pytest.approx((first + second) / 2)
    assert report.scalars["mpjpe_frames"] == pytest.approx((2 * first + 20 * second) / 22)


def test_batching_and_order_do_not_change_the_numbers() -> None:
    windows = Windows.whole(store([6] * 5))
    expected = evaluated(windows).scalars
    protocol = VideoPose3DProtocol(windows)
    for rows in ([4, 1], [0, 3, 2]):
        batch = windows[picks(rows)]
        protocol.update(noisy(batch), batch)
    found = protocol.compute().scalars
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-12), name


@pytest.mark.parametrize("block", [1, 7, 12])
def test_blocks_do_not_change_the_numbers(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    windows = Windows.whole(store([5, 2, 9, 1, 6, 7]))
    expected = evaluated(windows, by_subject=True)  # fits one block
    passes = []
    measure = videopose3d.frame_measures

    def counted(prediction: torch.Tensor, *others: object) -> tuple[torch.Tensor, torch.Tensor]:
        passes.append(len(prediction))
        return measure(prediction, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(videopose3d, "BLOCK", block)
    monkeypatch.setattr(videopose3d, "frame_measures", counted)
    found = evaluated(windows, by_subject=True)
    assert len(passes) > 1 and sum(passes) == 30
    assert found.scalars == pytest.approx(expected.scalars, rel=1e-12)
    for name, rows in expected.tables.items():
        for ours, row in zip(found.tables[name], rows, strict=True):
            assert ours.keys() == row.keys()
            for column, value in row.items():
                assert ours[column] == (value if isinstance(value, str) else pytest.approx(value, rel=1e-12)), column
    for name in ("mpjpe", "p_mpjpe", "mpjve", "acceleration"):
        np.testing.assert_allclose(found.arrays[name], expected.arrays[name], rtol=1e-12)


def test_a_block_that_waits_is_part_of_what_is_saved_and_gone_after_a_reset() -> None:
    windows = Windows.whole(store([5, 4]))
    protocol = VideoPose3DProtocol(windows)
    protocol.persistent(True)
    first, second = batches(windows)
    protocol.update(noisy(first), first)
    assert protocol.state_dict()["frames"].sum() == 5
    protocol.update(noisy(second), second)
    protocol.reset()
    for batch in (first, second):
        protocol.update(noisy(batch), batch)
    assert protocol.compute().scalars == pytest.approx(evaluated(windows).scalars, rel=1e-12)


def test_the_prediction_may_be_written_over_while_its_block_waits() -> None:
    windows = Windows.whole(store([5, 4]))
    protocol = VideoPose3DProtocol(windows)
    for batch in batches(windows):
        prediction = noisy(batch)
        protocol.update(prediction, batch)
        prediction.fill_(torch.nan)
    assert protocol.compute().scalars == pytest.approx(evaluated(windows).scalars, rel=1e-12)


def test_fillers_do_not_count() -> None:
    windows = Windows.whole(store([5, 5, 5]))
    protocol = VideoPose3DProtocol(windows)
    for rows in ([0, 1], [2, -1]):
        batch = windows[picks(rows)]
        prediction = noisy(batch)
        prediction[batch["index"] < 0] = torch.nan
        protocol.update(prediction, batch)
    assert protocol.compute().scalars == pytest.approx(evaluated(windows).scalars, rel=1e-12)


def test_single_frame_windows_give_the_same_positions_and_no_velocity() -> None:
    sequences = store([4, 7])
    whole, frames = evaluated(Windows.whole(sequences)), evaluated(Windows.chunked(sequences, 1, context=(0, 0)))
    assert whole.scalars["p_mpjpe"] == pytest.approx(frames.scalars["p_mpjpe"], rel=1e-9)
    assert "mpjve" in whole.scalars and "mpjve" not in frames.scalars
    assert "mpjve" not in frames.tables["action"][0]


def test_invalid_frames_and_what_is_predicted_there_do_not_count() -> None:
    sequences = store([6, 6])
    windows = Windows.whole(sequences)
    protocol, shorter = VideoPose3DProtocol(windows), VideoPose3DProtocol(windows)
    for batch in batches(windows):
        prediction = noisy(batch)
        cut = {key: value[:, :4] if value.ndim > 1 else value for key, value in batch.items()}
        shorter.update(prediction[:, :4], cut)
        valid = torch.tensor([[True] * 4 + [False] * 2])
        prediction = torch.where(valid[..., None, None], prediction, torch.nan)
        protocol.update(prediction, {**batch, "valid": valid})
    assert protocol.compute().scalars == pytest.approx(shorter.compute().scalars, rel=1e-12)


def test_a_missing_joint_takes_its_frame_out() -> None:
    windows = Windows.whole(store([5]))
    batch = batches(windows)[0]
    by_joint = torch.ones(1, 5, len(SKELETON), dtype=torch.bool)
    by_joint[0, 2, 3] = False
    results = []
    for valid in (by_joint, by_joint.all(-1)):
        protocol = VideoPose3DProtocol(windows)
        protocol.update(noisy(batch), {**batch, "valid": valid})
        results.append(protocol.compute())
    assert results[0].tables == results[1].tables
    assert results[0].tables["action"][0]["frames"] == 4


def test_nan_predictions_stay_visible() -> None:
    windows = Windows.whole(store([5, 5]))
    protocol = VideoPose3DProtocol(windows)
    for number, batch in enumerate(batches(windows)):
        prediction = noisy(batch)
        prediction[:, 2, 4] = torch.nan if number else 0
        protocol.update(prediction, batch)
    report = protocol.compute()
    assert np.isnan(report.scalars["mpjpe"]) and np.isnan(report.scalars["p_mpjpe_frames"])
    assert np.isfinite(report.tables["action"][0]["mpjpe"]) and np.isnan(report.tables["action"][1]["mpjpe"])


def test_the_predicted_root_counts_only_where_it_is_kept() -> None:
    windows = Windows.whole(store([8]))
    batch = batches(windows)[0]
    target = batch["pose3d"] - batch["pose3d"][:, :, :1]
    shifted = target.clone()
    shifted[:, :, 0, 0] += 0.17  # only the root is wrong
    moved = batch["pose3d"] + torch.tensor([0.0, 0.0, 1.0])  # a perfect pose a metre too far away

    def mpjpe(prediction: torch.Tensor, root: str) -> float:
        protocol = VideoPose3DProtocol(windows, root=root)
        protocol.update(prediction, batch)
        return protocol.compute().scalars["mpjpe"]

    assert mpjpe(shifted, "kept") == pytest.approx(170 / 17, rel=1e-5)
    assert mpjpe(shifted, "subtracted") == pytest.approx(170 * 16 / 17, rel=1e-5)
    assert mpjpe(moved, "global") == pytest.approx(1000, rel=1e-5)
    assert mpjpe(moved, "subtracted") == pytest.approx(0, abs=1e-3)


def test_joint_errors_average_to_mpjpe() -> None:
    report = evaluated(Windows.whole(store([3, 8, 5, 6])))
    rows = report.tables["joint"]
    assert [row["joint"] for row in rows] == list(SKELETON.joints)
    assert np.mean([row["mpjpe"] for row in rows]) == pytest.approx(report.scalars["mpjpe"])
    assert np.mean([row["mpjpe_frames"] for row in rows]) == pytest.approx(report.scalars["mpjpe_frames"])


def test_by_subject_is_the_protocol_on_the_sequences_of_one_subject() -> None:
    sequences = store([3, 8, 5, 6, 4, 7])
    report = evaluated(Windows.whole(sequences), by_subject=True)
    for row in report.tables["subject"]:
        mine = sequences.select(sequences.table["subject"] == row["subject"])
        alone = evaluated(Windows.whole(mine))
        for name in ("mpjpe", "p_mpjpe", "mpjve"):
            assert row[name] == pytest.approx(alone.scalars[name], rel=1e-9)
        rows = [r for r in report.tables["subject_action"] if r["subject"] == row["subject"]]
        by_action = {r["action"]: r["mpjpe"] for r in alone.tables["action"]}
        assert {r["action"]: r["mpjpe"] for r in rows} == pytest.approx(by_action)


def test_a_group_is_the_mean_over_frames_of_its_subjects() -> None:
    sequences = store([3, 8, 5, 6])
    windows = Windows.whole(sequences)
    report = evaluated(windows, groups={"absent": ["S11"], "elsewhere": ["P1"]})
    alone = evaluated(Windows.whole(sequences.select(sequences.table["subject"] == "S11")))
    (row,) = report.tables["group"]
    assert (row["group"], row["frames"]) == ("absent", 14)
    assert row["p_mpjpe"] == pytest.approx(alone.scalars["p_mpjpe_frames"], rel=1e-9)
    assert report.to_metrics("test")["test/mpjpe_group/absent"] == row["mpjpe"]


def test_subjects_that_a_split_does_not_hold_are_left_out_of_a_group(caplog: pytest.LogCaptureFixture) -> None:
    windows = Windows.whole(store([3, 3]))
    with caplog.at_level("INFO"):
        report = evaluated(windows, groups={"absent": ["S9", "S99"]})
    alone = evaluated(windows, groups={"absent": ["S9"]})
    assert report.tables["group"] == alone.tables["group"]
    assert "S99" in caplog.text


def test_an_unknown_root_option_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"root='zeroed'.*kept, subtracted, global"):
        VideoPose3DProtocol(Windows.whole(store([3])), root="zeroed")


def test_errors_per_sequence_are_kept_for_comparisons() -> None:
    sequences = store([3, 8, 5])
    report = evaluated(Windows.whole(sequences))
    np.testing.assert_array_equal(report.arrays["frames"], [3, 8, 5])
    np.testing.assert_array_equal(report.arrays["trial"], sequences.table["trial"])
    assert np.average(report.arrays["mpjpe"], weights=[3, 8, 5]) == pytest.approx(report.scalars["mpjpe_frames"])


def test_wrong_shapes_are_named() -> None:
    windows = Windows.whole(store([4]))
    batch = batches(windows)[0]
    with pytest.raises(ValueError, match="prediction has shape"):
        VideoPose3DProtocol(windows).update(noisy(batch)[:, :3], batch)
