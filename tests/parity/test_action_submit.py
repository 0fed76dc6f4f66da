"""Golden submission files of MA-52, byte for byte: bodies through the map, and from a head of their own."""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from kinema.core import class_metrics
from kinema.data.class_list import class_list
from kinema.results import score_files, submission
from tests.parity.golden import Case, cases

pytestmark = pytest.mark.parity


@cases("action", "d_ma52_metrics")
def test_submission(case: Case, tmp_path: Path) -> None:
    """Scores of the file with clip names from its truth list, in the list's order, zipped and read back."""
    expected = case.json("expected.json")
    groups = np.array(class_list("ma52").groups)
    files = sorted(path.name for path in case.path.glob("*_prediction.csv"))
    assert files, "no golden submission in this folder"
    for file in files:
        stem = file.removesuffix("_prediction.csv")
        plain = stem.removesuffix("_twohead")
        listed, labels = score_files.read_names(case.file(f"{plain}_truth.txt"))
        assert labels is not None
        arrays = case.arrays(f"{plain}.npz")
        case.close(f"{plain} truth list", labels, arrays["target"])
        scores = score_files.read(case.path / f"{plain}.npz", names=case.path / f"{plain}_truth.txt")
        case.close(f"{plain} scores", scores.values, arrays["scores"])

        shuffled = scores.take(np.random.default_rng(0).permutation(len(scores.names)))
        rows, names = submission.in_list_order(shuffled.names, listed, ".mp4")
        logits = shuffled.logits()[rows]
        actions = submission.ranked(logits, submission.COLUMNS)
        way, own = "map", None
        if stem != plain:
            way, own = "head", case.arrays(f"{plain}_body_scores.npz")["body_scores"]
        bodies = submission.bodies_of(logits, actions, groups, way, own)
        _, packed = submission.write(tmp_path / stem, submission.table(names, actions, bodies, 2025))
        with zipfile.ZipFile(packed) as archive, case.check(file):
            assert archive.namelist() == ["prediction.csv"]
            assert archive.read("prediction.csv") == case.file(file).read_bytes()

        target, body = arrays["target"], groups[arrays["target"]]
        found = {
            "n": len(listed),
            "action_top1": float((actions[:, 0] == target).mean()),
            "action_top5": float((actions == target[:, None]).any(1).mean()),
            "body_top1": float((bodies[:, 0] == body).mean()),
            "body_hit_in_5_columns": float((bodies == body[:, None]).any(1).mean()),
        }
        for key, value in found.items():
            case.close(f"{stem} {key}", value, expected[stem][key], atol=1e-9)

        older = list(csv.reader(io.StringIO(submission.table(names, actions, bodies, 2024))))
        assert older[1:] == [
            [name, str(b), str(a)] for name, a, b in zip(names, actions[:, 0], bodies[:, 0], strict=True)
        ]
    _measures_are_those_of_another_test(case)
    case.finish()


def _measures_are_those_of_another_test(case: Case) -> None:
    """test_action_metrics.py checks the remaining arrays; here they only have to fit the confusion they come from."""
    groups = np.array(class_list("ma52").groups)
    for name in sorted(path.name for path in case.path.glob("*.npz")):
        if name.endswith("_body_scores.npz"):
            assert case.arrays(name)["body_scores"].ndim == 2
            continue
        arrays = case.arrays(name)
        counts = arrays["confusion_52"]
        hits, total = np.diag(counts), counts.sum(0) + counts.sum(1)
        case.close(f"{name} confusion", counts.sum(1), np.bincount(arrays["target"], minlength=len(counts)))
        case.close(f"{name} F1", 2 * hits / np.maximum(total, 1), arrays["per_class_f1"], atol=1e-12)
        coarse = class_metrics.grouped(counts, groups, groups.max() + 1)
        case.close(f"{name} body F1", class_metrics.per_class(coarse).f1, arrays["per_body_f1"], atol=1e-12)
