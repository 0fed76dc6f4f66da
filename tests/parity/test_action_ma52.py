"""Golden facts of reading MA-52 folders as the fork does: labels, counts, printed lines, and items end to end."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kinema.composition import compose, make
from kinema.core import motion
from kinema.core.crop import crop_scale
from kinema.data.doctor import examine
from kinema.data.readers import ma52
from kinema.data.sequences import Sequences
from tests.parity.golden import Arrays, Case, cases

pytestmark = pytest.mark.parity


def module(root: Path, *words: str) -> Any:
    """The fork's data set over a golden root, in memory."""
    config = compose(["dataset=ma52_fork", f"dataset.root={root}", "dataset.cache_dir=null", *words])
    return make(config.dataset, _recursive_=False)


@cases("action", "a_ma52_dataset")
def test_ma52_folders(case: Case) -> None:
    root = case.path / "data"
    data = module(root)
    options = ma52.Options.checked(data.source.options)
    check_layout(case, root, options, examine(data))
    sequences = data.sequences
    check_printed_lines(case, sequences, {split.name: split for split in ma52.layout(root, options)})
    check_contents(case, data, sequences)
    for path in root.rglob("*"):
        case.file(str(path.relative_to(case.path)))
    for name in ("case_augment.npz", "case_test.npz", "case_train_resample.npz"):
        case.file(name)  # numbers that do not depend on folders are test_action_core.py's
    case.finish()


def check_layout(case: Case, root: Path, options: ma52.Options, findings: list[Any]) -> None:
    """Counts that a format checker must find, and the label map."""
    report = case.json("expected_format_report.json")
    splits = {split.name: split for split in ma52.layout(root, options)}
    texts = "\n".join(finding.text for finding in findings)
    with case.check("splits"):
        assert set(splits) == set(report)
    for name, expected in report.items():
        split = splits[name]
        with case.check(f"{name} layout"):
            assert split.labels.ids == expected["parsed_labels"]
            assert len(split.clips) + len(split.bare) == expected["folders"]
            assert len(split.clips) == expected["pose_files"]
            assert len(split.labels.ids) == expected["labelled"]
            alone = sorted({*split.clips, *split.bare} - set(split.labels.ids))
            assert alone == expected["folders_without_label"]
            assert sorted(split.ghosts) == expected["labels_without_folder"]
        with case.check(f"{name} in the doctor's words"):
            assert f"{name}: {expected['folders']} folder" in texts
            for kind in ("folders_without_label", "labels_without_folder"):
                for clip in expected[kind][:1]:  # it shows the first ones of each kind
                    assert clip in texts


def check_printed_lines(case: Case, sequences: Sequences, splits: dict[str, ma52.Split]) -> None:
    """What the fork prints while it loads, said by the store."""
    for split, lines in case.json("printed_lines.json").items():
        part = sequences.select(sequences.table["split"] == split)
        labels = part.table["label"]
        with case.check(f"{split} printed lines"):
            said = "\n".join(lines)
            assert f"Loaded {len(part)} samples from {split} split" in said
            assert f"Number of classes: {len(set(labels.tolist()))}" in said
            assert f"Labels range: {labels.min()} - {labels.max()}" in said
            warned = re.findall(r"No label found for (\S+)", said)
            assert sorted(warned) == sorted(set(splits[split].clips) - set(splits[split].labels.ids))


def check_contents(case: Case, data: Any, sequences: Sequences) -> None:
    """Clips, labels and prepared poses of both splits, through the store and through the windows."""
    test, train = Arrays(case.path / "case_test.npz"), Arrays(case.path / "case_train_resample.npz")
    for split, arrays in (("test", test), ("train", train)):
        part = sequences.select(sequences.table["split"] == split)
        with case.check(f"{split} clips"):
            assert part.table["clip"].tolist() == arrays["names"].tolist()
            assert part.table["label"].tolist() == arrays["labels"].tolist()

    part = sequences.select(sequences.table["split"] == "test")
    before = test["motions_before_crop"]
    count = before.shape[2]
    poses = [part.sequence(row)["pose3d"] for row in range(len(part))]
    found = np.stack([pose[motion.resample_indices(len(pose), count)] for pose in poses])
    case.close("test motions", found, before[:, 0], atol=2e-5)

    training = sequences.select(sequences.table["split"] == "train")
    expected = train["motions_before_aug"]
    for row, name in enumerate(training.table["clip"].tolist()):
        pose = training.sequence(row)["pose3d"]
        (draw,) = [key for key in train.names("draw_") if key.endswith(f"__{name}")]
        at = motion.resample_random(len(pose), expected.shape[2], train[draw])
        case.close(f"training motion {name}", pose[at], expected[row, 0], atol=2e-5)

    windows = module(case.path / "data", f"dataset.frames={count}").windows("test")
    rows = torch.arange(len(windows))
    batch = windows[torch.stack([torch.zeros_like(rows), rows, rows], dim=1)]
    case.close("test labels", batch["label"], test["labels"])
    for name in test.names("items_scale"):
        ratio = float(name.removeprefix("items_scale"))
        items = module(
            case.path / "data",
            f"dataset.frames={count}",
            f"dataset.transforms=[{{crop_scale: {{train: [{ratio}, {ratio}], test: [{ratio}, {ratio}]}}}}]",
        ).transform(dict(batch))["pose"]
        case.close(name, items, test[name], atol=2e-5)
        case.close(
            f"{name} without the data set", crop_scale(batch["pose3d"], ratio, batch_axes=1), test[name], atol=2e-5
        )
