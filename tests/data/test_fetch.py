"""Which sequences and frames a run sees: VideoPose3D's fetch with its action filter, --subset and --downsample."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from kinema.composition import compose, make
from kinema.data.sequences import Sequences
from kinema.errors import ConfigError
from tests.data.layouts import layout

# In the order of the 2D file; the 3D file has another one.
TRIALS = ("Walking", "Sitting", "Walking 1", "SittingDown 2", "WalkDog", "Eating", "WalkTogether 1", "Sitting 1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two people; takes of 40, 42, ... frames, and one of three."""
    made = layout({subject: tuple(f"walk {i}" for i in range(len(TRIALS))) for subject in ("train_A", "test_B")})
    for positions in (made.positions_2d, made.positions_3d):
        for subject, actions in positions.items():
            positions[subject] = dict(zip(TRIALS, actions.values(), strict=True))  # type: ignore[arg-type]
    made.positions_3d = {subject: dict(sorted(actions.items())) for subject, actions in made.positions_3d.items()}
    made.positions_3d["train_A"]["Eating"] = made.positions_3d["train_A"]["Eating"][:3]
    return made.save(tmp_path_factory.mktemp("fetch"))


def fetched(folder: Path, stage: str, *words: str) -> Sequences:
    split = ["dataset.subjects_train=[train_A]", "dataset.subjects_test=[test_B]", "dataset.selection=test"]
    config = compose(
        [
            "dataset=cmu",
            f"paths.data_dir={folder}",
            f"dataset.cache_dir={folder / 'cache'}",
            "dataset.trials_val=[]",
            *split,
            *words,
        ]
    )
    config.dataset.frames, config.dataset.context = 3, [1, 1]
    windows = make(config.dataset, _recursive_=False).windows(stage)
    assert windows is not None
    return windows.sequences  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("actions", "kept"),
    [
        (["Walk"], ["Walking", "Walking 1", "WalkDog", "WalkTogether 1"]),
        (["Walking"], ["Walking", "Walking 1"]),
        (["Sitting"], ["Sitting", "SittingDown 2", "Sitting 1"]),
        (["Sitting 1"], ["Sitting 1"]),
        (["SittingD", "Eat"], ["SittingDown 2", "Eating"]),
    ],
)
@pytest.mark.parametrize("stage", ["train", "test"])
def test_actions_are_kept_by_the_beginning_of_their_name(
    folder: Path, stage: str, actions: list[str], kept: list[str]
) -> None:
    table = fetched(folder, stage, f"dataset.actions=[{','.join(actions)}]").table
    assert table["trial"].tolist() == [name for name in kept for _ in range(4)]  # the order of the 2D file
    assert table["camera"].tolist() == ["0", "1", "2", "3"] * len(kept)


def test_a_beginning_that_no_action_has_is_refused_with_the_nearest(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"the data has no action 'Sittign'\. Did you mean 'Sitting'"):
        fetched(folder, "train", "dataset.actions=[Sittign]")


def drawn(low: int, high: int, text: str) -> int:
    """deterministic_random of the published scripts, in its own words."""
    value = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")
    return int(value / (2**32 - 1) * (high - low)) + low


def stretch(length: int, subset: float, step: int) -> np.ndarray:
    """Frame numbers that VideoPose3D keeps of a sequence."""
    frames = np.arange(length)
    if subset < 1:
        count = int(round(length // step * subset) * step)
        start = drawn(0, length - count + 1, str(length))
        frames = frames[start : start + count]
    return frames[::step]


def check(found: Sequences, whole: Sequences, subset: float, step: int) -> None:
    for row in range(len(whole)):
        before, after = whole.sequence(row), found.sequence(row)
        frames = stretch(int(whole.table["length"][row]), subset, step)
        for name, array in before.items():
            np.testing.assert_array_equal(after[name], array[frames], err_msg=f"{whole.label(row)} {name}")


@pytest.mark.parametrize(("subset", "step"), [(1.0, 5), (0.3, 1), (0.5, 3), (0.01, 1)])
def test_subset_thins_training_and_downsample_thins_all(folder: Path, subset: float, step: int) -> None:
    words = [f"dataset.subset={subset}", f"dataset.downsample={step}"]
    check(fetched(folder, "train", *words), fetched(folder, "train"), subset, step)
    check(fetched(folder, "test", *words), fetched(folder, "test"), 1.0, step)
