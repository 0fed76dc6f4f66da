"""The reader of clips that were cut before, against the pickle they come from."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kinema.composition import build_data, build_task, check, compose, make
from kinema.data.doctor import examine
from kinema.data.findings import Finding
from kinema.data.readers import motionagformer_clips, motionbert_h36m
from kinema.data.sequences import Sequences
from kinema.data.windows import Windows
from kinema.errors import ConfigError, DataError
from kinema.protocols.motionagformer import MotionAGFormerProtocol
from tests.data.layouts import motionbert, save_motionbert

FRAMES, STRIDE = 9, 3


def cut(sequences: Sequences, split: str, stride: int) -> dict[str, torch.Tensor]:
    part = sequences.select(sequences.table["split"] == split)
    windows = Windows.strided(part, FRAMES, stride, random=np.random.RandomState(0))
    rows = torch.arange(len(windows))
    return windows[torch.stack([rows, rows, rows], dim=1)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The pickle, and its clips of 9 frames as the published preprocessing writes them."""
    save_motionbert(tmp_path, motionbert())
    sequences = motionbert_h36m.read(tmp_path)
    for split, stride in (("train", STRIDE), ("test", FRAMES)):
        (tmp_path / "H36M-9" / split).mkdir(parents=True)
        batch = cut(sequences, split, stride)
        for number, (x, y) in enumerate(zip(batch["pose2d"].numpy(), batch["pose3d"].numpy(), strict=True)):
            save(tmp_path, split, number, {"data_input": x, "data_label": y.astype(np.float64)})
    return tmp_path


def save(folder: Path, split: str, number: int, clip: dict[str, Any]) -> None:
    (folder / "H36M-9" / split / f"{number:08d}.pkl").write_bytes(pickle.dumps(clip))


def test_clips_and_test_videos_are_those_of_the_pickle(folder: Path) -> None:
    read, whole = motionagformer_clips.read(folder, clips="H36M-9"), motionbert_h36m.read(folder)
    for split, stride in (("train", STRIDE), ("test", FRAMES)):
        expected = cut(whole, split, stride)
        found = cut(read, split, FRAMES)
        for key in ("pose2d", "pose3d"):
            np.testing.assert_array_equal(found[key], expected[key])
    test = whole.select(whole.table["split"] == "test")
    mine = read.select(read.table["split"] == "test")
    for row in range(len(test)):
        for name, array in test.sequence(row).items():
            np.testing.assert_array_equal(mine.sequence(row)[name], array)
    assert (read.table["split"] == "train").sum() == len(cut(whole, "train", STRIDE)["pose2d"])
    assert np.isnan(read.arrays["factor"][: read.table["start"][len(read) - len(test)]]).all()


def test_test_clips_alone_have_no_targets_in_millimetres(folder: Path) -> None:
    read = motionagformer_clips.read(folder, clips="H36M-9", file=None)
    assert set(read.table["split"].tolist()) == {"train", "test"}
    with pytest.raises(ConfigError, match=r"needs factor, pose3d_eval, size"):
        MotionAGFormerProtocol(Windows.strided(read, FRAMES, FRAMES, random=np.random.RandomState(0)))


def test_the_data_set_opens_through_its_cache(folder: Path, tmp_path: Path) -> None:
    config = compose(["dataset=h36m_sh_clips", f"paths.data_dir={folder}", f"paths.cache_dir={tmp_path / 'cache'}",
                      "dataset.reader_options.clips=H36M-9", "dataset.frames=9"])  # fmt: skip
    data = make(config.dataset, _recursive_=False)
    train, test = data.windows("train"), data.windows("test")
    assert len(train) == len(list((folder / "H36M-9" / "train").iterdir()))
    assert len(test) == len(list((folder / "H36M-9" / "test").iterdir()))
    assert data.protocol == "motionagformer"


def examined(folder: Path, *words: str) -> dict[str, Finding]:
    config = compose(["dataset=h36m_sh_clips", f"paths.data_dir={folder}", f"paths.cache_dir={folder / 'cache'}",
                      "dataset.reader_options.clips=H36M-9", "dataset.frames=9", *words])  # fmt: skip
    return {one.check: one for one in examine(make(config.dataset, _recursive_=False))}


def test_doctor_judges_images_of_known_size_only(folder: Path) -> None:
    # Scores a body that the image cannot hold, in a clip that does not say how large the image was.
    clip = {key: np.full((9, 17, 3), 3.0) * np.arange(17)[:, None] for key in ("data_input", "data_label")}
    save(folder, "train", 0, clip)
    findings = examined(folder)
    train = len(list((folder / "H36M-9" / "train").iterdir()))
    assert findings["image"].severity == "ok"
    assert findings["image"].text == (
        f"100.0 % of the keypoints lie inside their image; {train} sequences do not say how large theirs is"
    )
    assert findings["2.5D targets"].severity == "ok"
    assert "fault" not in {one.severity for one in findings.values()}


def test_doctor_says_that_clips_alone_have_no_image_size(folder: Path) -> None:
    finding = examined(folder, "dataset.reader_options.file=null")["image"]
    assert (finding.severity, finding.text[:42]) == ("ok", "no sequence says how large its image is, s")


@pytest.mark.parametrize(
    ("clip", "sentence"),
    [
        ({"data_input": np.zeros((9, 17, 3))}, r"00000001\.pkl holds no data_label"),
        ([1, 2], r"00000001\.pkl holds no data_input"),
        ({"data_input": np.zeros((9, 17, 2)), "data_label": np.zeros((9, 17, 3))}, r"data_input: shape \(9, 17, 2\)"),
        ({"data_input": np.zeros((8, 17, 3)), "data_label": np.zeros((8, 17, 3))}, r"8 frames, but 9 before"),
    ],
)
def test_fault_is_named(folder: Path, clip: Any, sentence: str) -> None:
    save(folder, "train", 1, clip)
    with pytest.raises(DataError, match=sentence):
        motionagformer_clips.read(folder, clips="H36M-9")


def test_malicious_clip_runs_nothing(folder: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (folder / "executed",)

    save(folder, "train", 0, {"data_input": Attack()})
    with pytest.raises(DataError, match=r"00000000\.pkl asks for"):
        motionagformer_clips.read(folder, clips="H36M-9")
    assert not (folder / "executed").exists()


def test_missing_folder_and_wrong_option_are_named(folder: Path) -> None:
    with pytest.raises(DataError, match=r"H36M-243/train/\*\.pkl not found in .* Ask Ada\..*clips=H36M-81"):
        motionagformer_clips.files(folder, source="Ask Ada.")
    with pytest.raises(ConfigError, match="no option 'clip'"):
        motionagformer_clips.files(folder, clip="x")
    assert "data_input" in motionagformer_clips.describe()


def test_a_network_of_velocities_gets_a_frame_more_and_all_of_its_own(folder: Path) -> None:
    config = compose([f"dataset.root={folder}", "experiment=dbmambapose/h36m_xs", "dataset.cache_dir=null",
                      "model.in_channels=5", "model.num_frames=8", "model.depth=1", "model.dim=8", "model.dim_rep=8",
                      "dataset.frames=9"])  # fmt: skip
    model = make(config.model)
    data = build_data(config, model.signature)
    task = build_task(config, model)
    check(task, model.signature, data.spec, config)
    task.describe(spec=data.spec.to_dict(), config={})
    data.require(*MotionAGFormerProtocol.needs)
    windows = data.windows("test")
    batch = data.transform(windows[torch.tensor([[0, 0, 0], [0, 1, 1]])])
    (protocol,) = task.protocols(windows).values()
    with torch.no_grad():
        protocol.update(task.predict(batch), batch)
    assert protocol.compute().tables["action"][0]["frames"] == 2 * 8
    assert build_data(compose(["dataset=h36m_sh"]), model.signature).frames == 9  # null follows the network
