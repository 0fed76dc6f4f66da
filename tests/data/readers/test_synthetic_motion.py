"""The built-in motion for prediction: rigid bodies, a tempo that drifts, several people who move about."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kinema.composition import compose, make
from kinema.data.readers import synthetic_motion as reader
from kinema.data.readers.synthetic import SUBJECTS
from kinema.data.synthetic.actions import perform
from kinema.data.synthetic.skeleton import SKELETON, Body
from kinema.errors import ConfigError

ROOT = Path("nowhere")
FEW = {"actions": ["walk", "throw"], "frames": 120}


def test_every_subject_does_every_action() -> None:
    found = reader.read(ROOT, **FEW, takes=2)
    assert len(found) == len(SUBJECTS) * 2 * 2 and found.space == "world" and found.skeleton == SKELETON
    assert found.table["trial"][:4].tolist() == ["walk", "walk 1", "throw", "throw 1"]
    assert found.table["action"][:4].tolist() == ["walk", "walk", "throw", "throw"]
    assert set(found.table["length"].tolist()) == {120} and set(found.table["fps"].tolist()) == {50.0}


def test_bones_are_rigid_and_people_differ() -> None:
    found = reader.read(ROOT, **FEW)
    child, parent = np.array(SKELETON.bones).T
    size = {}
    for row in range(len(found)):
        pose = found.sequence(row)["pose3d"].astype(np.float64)
        bones = np.linalg.norm(pose[:, child] - pose[:, parent], axis=-1)
        np.testing.assert_allclose(bones, bones[:1].repeat(len(bones), 0), atol=1e-5)
        size.setdefault(str(found.table["subject"][row]), []).append(float(bones[0].sum()))
    assert all(np.ptp(values) < 1e-4 for values in size.values())
    assert len({round(values[0], 3) for values in size.values()}) == len(SUBJECTS)


def test_the_root_moves_and_the_seed_decides() -> None:
    found = reader.read(ROOT, **FEW)
    walked = found.sequence(0)["pose3d"][:, 0]
    assert np.linalg.norm(np.diff(walked, axis=0), axis=-1).sum() > 1.0
    np.testing.assert_array_equal(found.arrays["pose3d"], reader.read(ROOT, **FEW).arrays["pose3d"])
    assert np.abs(found.arrays["pose3d"] - reader.read(ROOT, **FEW, seed=1).arrays["pose3d"]).max() > 0.1


def pace(pose: np.ndarray) -> np.ndarray:
    """Metres that the root of a walker covers in each second."""
    way = np.linalg.norm(np.diff(pose[:, 0, :2], axis=0), axis=-1)
    return way[: len(way) // 50 * 50].reshape(-1, 50).sum(-1)


def test_the_tempo_drifts_within_a_take_and_is_even_without() -> None:
    draws = [np.random.default_rng(seed) for seed in range(6)]
    bodies = [Body.draw(rng) for rng in draws]
    even, drifting = (
        np.mean([
            np.std(p := pace(perform("walk", body, np.random.default_rng(i), 501, 50.0, tempo=tempo))) / p.mean()
            for i, body in enumerate(bodies)
        ])
        for tempo in (0.0, 0.2)
    )  # fmt: skip
    assert even < 0.06 and drifting > 2 * even


def test_an_even_tempo_is_the_motion_of_the_other_synthetic_data() -> None:
    body = Body.draw(np.random.default_rng(0))
    plain, even = (perform("jump", body, np.random.default_rng(1), 60, 50.0, **k) for k in ({}, {"tempo": 0.0}))
    np.testing.assert_array_equal(plain, even)


def test_the_yaml_serves_all_stages() -> None:
    words = ["dataset=synthetic_motion", "dataset.cache_dir=null", "dataset.reader_options.frames=140"]
    words += [
        "dataset.reader_options.actions=[walk,sit_down]",
        "dataset.windows_per_epoch=64",
        "dataset.drop=[S9/walk]",
    ]
    data = make(compose(words).dataset, _recursive_=False)
    assert [len(data.windows(stage)) for stage in ("train", "val", "test")] == [4 * 2 * 16, 2, 3]
    assert len(data.windows("train").sequences) == 8
    batch = next(iter(data.train_dataloader()))
    assert data.transform(batch, training=True)["motion"].shape == (64, 125, 48)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"actions": ["walking"]}, r"No synthetic action is called 'walking'\. Did you mean 'walk'"),
        ({"takes": 0}, r"takes=0: synthetic motion needs at least 1"),
        ({"frames": 1}, r"frames=1: synthetic motion needs at least 2"),
        ({"fps": None}, r"needs a frame rate\. Use dataset\.fps=50"),
        ({"fps": 0.5}, r"dataset\.fps=0\.5: synthetic motion needs at least 1"),
        ({"tempo": 2.0}, r"tempo=2\.0 is no drift between 0 \(even\) and 0\.4"),
        ({"unit": "mm"}, r"Synthetic motion has dataset\.unit=m\. Use dataset\.unit=m"),
        ({"skeleton": "coco17"}, r"Synthetic motion has dataset\.skeleton=h36m17"),
        ({"noise": 1.0}, r"The reader synthetic_motion has no option 'noise'"),
    ],
)
def test_wrong_options_get_their_sentence(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        reader.files(ROOT, **options)
