"""A reader of invented clips for tests, found by its dotted path: classes differ in speed, some have two persons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from kinema.core.skeleton import skeleton
from kinema.data.action import ActionDataModule
from kinema.data.sequences import Sequences

LENGTHS = (12, 30, 7, 41, 20, 16)


def files(root: Path, **options: Any) -> list[Path]:
    return []


def read(root: Path, *, per_class: int = 6, classes: int = 3, three_d: bool = True, **columns: Any) -> Sequences:
    """Of every class half the clips in training, in two trials each; every third clip has a second person."""
    random = np.random.default_rng(0)
    items = []
    for label in range(classes):
        for number in range(per_class):
            length = LENGTHS[number % len(LENGTHS)]
            persons = 2 if number % 3 == 2 else 1
            for person in range(persons):
                time = np.arange(length)[:, None, None]
                pose = random.normal(size=(1, 17, 3)) * 0.05 + np.sin(time * (label + 1) / 5) * 0.3
                pose = pose + np.linspace(0, 1, 17)[:, None] + 0.3 * label * np.eye(17)[:, 4 + label, None]
                if not three_d:
                    pose[..., 2] = 1
                items.append(
                    {
                        "pose3d" if three_d else "pose2d": pose.astype(np.float32),
                        "clip": f"{label}_{number}", "subject": f"P{number % 2}", "action": f"class{label}",
                        "trial": f"{label}/{number // 2}", "person": person, "persons": persons, "label": label,
                        "split": "train" if number < per_class - 2 else "test", "first": 10 * (number % 2), **columns,
                    }
                )  # fmt: skip
    body = skeleton("h36m17")
    return Sequences.from_arrays(items, skeleton=body, skeleton2d=body, space="network")


def describe() -> str:
    return "Invented clips."


def module(root: Path, **changes: Any) -> ActionDataModule:
    """A DataModule over these clips."""
    options: dict[str, Any] = {
        "name": "clips", "reader": "tests.data.clips", "reader_options": {}, "root": root, "cache_dir": None,
        "preprocess": "ma52", "stream": "joint", "skeleton": "h36m17", "num_joints": 17, "has_3d": True, "persons": 2,
        "surplus": "error", "classes": ["class0", "class1", "class2"], "num_classes": 3, "fps": None,
        "tasks": ["action"], "protocol": "action", "split_train": "train", "split_val": None, "split_test": "test",
        "validation": {"by": "trial", "share": 0.3, "seed": 0}, "selection": "val", "min_frames": 2,
        "unlabeled": "error", "on_nan": "error", "frames": 16, "rule": "random", "cut": None, "eval_rule": "resample",
        "test_clips": 1, "repeat": 1, "batch_size": 5, "eval_batch_size": 4, "num_workers": 0, "order": "seeded",
        "order_options": {}, "augment": [], "transforms": [], "seed": 0,
    }  # fmt: skip
    return ActionDataModule(**{**options, **changes})
