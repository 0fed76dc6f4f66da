"""The reader of NTU RGB+D against a plain reading, its benchmarks, and a sentence for every fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kinema.composition import build_data, compose
from kinema.core.clip_preprocess import clip_preprocess
from kinema.core.spec import Signature
from kinema.data import doctor, ntu
from kinema.data.action import ActionDataModule
from kinema.data.readers import ntu as reader
from kinema.data.sequences import Sequences
from kinema.errors import ConfigError, DataError
from tests.data.ntu_layout import annotation, container, names, save

TWO_D: dict[str, Any] = {
    "classes": "ntu60", "num_classes": 60, "preprocess": "ntu", "skeleton": "h36m17", "persons": 2,
    "source": "PYSKL hands it out.",
}  # fmt: skip
THREE_D = TWO_D | {"preprocess": "pyskl_3d", "skeleton": "ntu25", "file": "ntu60_3danno.pkl"}
ONESHOT = TWO_D | {"classes": "ntu120", "num_classes": 120, "benchmark": "oneshot", "file": "ntu120_hrnet.pkl"}
CLIPS = names([1, 7, 60])


def read(folder: Path, content: Any, **options: Any) -> Sequences:
    chosen = TWO_D | options
    file = chosen.get("file", "ntu60_hrnet.pkl")
    return reader.read(save(folder, file, content), **chosen)


def test_2d_clips_equal_a_plain_reading(tmp_path: Path) -> None:
    content = container(CLIPS)
    store = read(tmp_path, content)
    way = clip_preprocess("ntu")
    row = 0
    for clip in content["annotations"]:
        wanted = way.apply(clip["keypoint"], clip["keypoint_score"], (1920, 1080))
        for person, pose in enumerate(wanted):
            np.testing.assert_array_equal(store.sequence(row)["pose2d"], pose)
            facts = {key: store.table[key][row] for key in ("clip", "person", "persons", "label", "camera", "setup")}
            name = ntu.ClipName.parse(clip["frame_dir"])
            assert facts == {
                "clip": clip["frame_dir"], "person": person, "persons": len(wanted), "label": clip["label"],
                "camera": str(name.camera), "setup": name.setup,
            }  # fmt: skip
            row += 1
    assert row == len(store)
    assert (store.space, store.arrays.rows) == ("image", store.num_frames)
    assert store.skeleton2d is not None and store.skeleton2d.name == "h36m17"
    assert set(store.table["width"]) == {1920} and set(store.table["height"]) == {1080}
    assert set(store.table["fps"]) == {30.0}
    # Three cameras saw each performance.
    assert len(set(store.table["trial"])) == len(CLIPS) // 3


def test_3d_clips_and_their_streams(tmp_path: Path) -> None:
    content = container(CLIPS, three_d=True)
    store = read(tmp_path, content, **THREE_D)
    way = clip_preprocess("pyskl_3d")
    first = way.apply(content["annotations"][0]["keypoint"], skeleton="ntu25")
    np.testing.assert_array_equal(store.sequence(0)["pose3d"], first[0])
    bones = read(tmp_path, content, **THREE_D, stream="bone")
    assert not np.allclose(bones.arrays["pose3d"], store.arrays["pose3d"])
    assert bones.meta["stream"] == "bone"


@pytest.mark.parametrize(
    ("benchmark", "trains"),
    [("xsub", lambda clip: clip.performer == 1), ("xview", lambda clip: clip.camera != 1)],
)
def test_benchmarks_split_by_their_lists(tmp_path: Path, benchmark: str, trains: Any) -> None:
    store = read(tmp_path, container([*CLIPS]), benchmark=benchmark)
    for name, split in zip(store.table["clip"], store.table["split"], strict=True):
        assert split == ("train" if trains(ntu.ClipName.parse(name)) else "test")


def test_cross_view_withholds_all_views_of_a_performance(tmp_path: Path) -> None:
    save(tmp_path, "ntu60_hrnet.pkl", container(names([1, 7, 60], performers=range(1, 9))))
    data = module(
        tmp_path,
        "dataset=ntu60",
        "dataset.protocol=xview",
        "dataset.validation.by=trial",
        "dataset.validation.share=0.3",
    )
    table = data.sequences.table
    train, val, test = (set(table["trial"][data.rows(stage)]) for stage in ("train", "val", "test"))
    assert train and val and not train & val
    assert test == train | val  # seen by another camera


def test_clips_in_no_list_belong_to_no_split(tmp_path: Path) -> None:
    content = container(CLIPS)
    content["split"]["xsub_train"].remove("S001C001P001R001A001")
    store = read(tmp_path, content)
    assert store.table["split"][store.table["clip"] == "S001C001P001R001A001"].tolist() == [""]


def test_the_first_file_that_is_there_is_read(tmp_path: Path) -> None:
    save(tmp_path, "ntu60_2d.pkl", container(CLIPS))
    assert reader.files(tmp_path, **TWO_D) == [tmp_path / "ntu60_2d.pkl"]
    inner = tmp_path / "ntu"
    inner.mkdir()
    assert reader.files(inner, **TWO_D) == [tmp_path / "ntu60_2d.pkl"]
    save(inner, "ntu60_hrnet.pkl", container(CLIPS))
    assert reader.files(inner, **TWO_D) == [inner / "ntu60_hrnet.pkl"]
    with pytest.raises(DataError, match=r"ntu60_hrnet\.pkl not found in .*PYSKL hands it out"):
        reader.files(tmp_path / "nowhere" / "else", **TWO_D)


def oneshot_names() -> list[str]:
    """Exemplars and queries of two novel classes, and clips of two auxiliary ones."""
    exemplars = [name for name in ntu.EXEMPLARS if name.endswith(("A001", "A061"))]
    return [*names([1, 2]), *exemplars, *names([61, 120], setups=[18])]


def test_one_shot_is_cut_from_the_full_container(tmp_path: Path) -> None:
    store = read(tmp_path, container(oneshot_names(), ("xsub", "xset")), **ONESHOT)
    table = store.table
    for row in range(len(store)):
        name, label = str(table["clip"][row]), int(table["label"][row])
        if label % 6:
            assert (table["split"][row], table["auxiliary"][row]) == ("train", {1: 0, 119: 99}[label])
        else:
            assert table["split"][row] == ("exemplar" if name in ntu.EXEMPLARS else "query")
            assert table["auxiliary"][row] == -1
    assert sorted(table["clip"][table["split"] == "exemplar"]) == ["S001C003P008R001A001", "S018C003P008R001A061"]


def test_one_shot_follows_the_lists_of_a_container_made_for_it(tmp_path: Path) -> None:
    content = container(names([1, 7]), ())
    content["split"] = {"oneshot_train": ["S001C001P001R001A001"], "oneshot_val": names([1, 7])[1:]}
    store = read(tmp_path, content, **ONESHOT)
    assert store.table["clip"][store.table["split"] == "exemplar"].tolist() == ["S001C001P001R001A001"]
    assert set(store.table["split"]) == {"exemplar", "query"}


def test_a_missing_exemplar_gives_a_sentence(tmp_path: Path) -> None:
    content = container([name for name in oneshot_names() if name != "S018C003P008R001A061"], ("xsub",))
    with pytest.raises(DataError, match=r"1 exemplars of the one-shot benchmark are missing: S018C003P008R001A061"):
        read(tmp_path, content, **ONESHOT)


def broken(**changes: Any) -> dict[str, Any]:
    content = container(CLIPS)
    content["annotations"][3] = {**content["annotations"][3], **changes}
    return content


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([1, 2], "holds no list of annotations"),
        ({"annotations": [], "split": {"xsub_train": [], "xsub_val": []}}, "not one usable clip"),
        ({"annotations": [annotation(CLIPS[0])]}, "holds no split lists"),
        ({"annotations": [3], "split": {"xsub_train": [], "xsub_val": []}}, r"annotation 0: there is no name"),
        (container([CLIPS[0], CLIPS[0]]), "occurs twice"),
        (broken(keypoint=[1]), "has no keypoint array"),
        (
            broken(keypoint=np.zeros((1, 12, 17, 2), np.float16), total_frames=11),
            "total_frames is 11, but keypoint has",
        ),
        (broken(label=5), r"shows action 1, so its label is 0, not 5"),
        (broken(keypoint_score=np.ones((1, 3, 17))), r"has no keypoint_score of shape \(1, 15, 17\)"),
        (broken(img_shape=None), "does not state the height and width"),
        (broken(frame_dir="walk_01"), r"'walk_01' is no name|lists of xsub have no annotation"),
    ],
)
def test_faults_give_a_sentence(tmp_path: Path, content: Any, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        read(tmp_path, content)


def test_clip_faults_name_the_clip(tmp_path: Path) -> None:
    spoilt = annotation(CLIPS[3], frames=15)
    spoilt["keypoint"][0, 4, 2] = np.nan
    with pytest.raises(DataError, match=rf"Clip {CLIPS[3]}: 1 of 15 frames hold NaN \(first 4\)"):
        read(tmp_path, broken(**spoilt))
    crowd = annotation(CLIPS[3], frames=15, persons=3)
    with pytest.raises(DataError, match=r"has 3 persons, dataset\.persons=2.*surplus=drop"):
        read(tmp_path, broken(**crowd))
    assert len(read(tmp_path, broken(**crowd), surplus="drop")) > 0


def test_list_faults_give_a_sentence(tmp_path: Path) -> None:
    content = container(CLIPS)
    content["split"]["xsub_val"].append(content["split"]["xsub_train"][0])
    with pytest.raises(DataError, match="1 clips stand in xsub_train and xsub_val"):
        read(tmp_path, content)
    content = container(CLIPS)
    content["split"]["xsub_val"].append("S001C001P099R001A001")
    with pytest.raises(DataError, match=r"1 names in the lists of xsub have no annotation: S001C001P099R001A001"):
        read(tmp_path, content)


def test_a_benchmark_that_is_not_in_the_file_gives_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"no lists xset_train and xset_val; .* xsub, xview\. Use dataset\.protocol=xsub"
    ):
        read(tmp_path, container(CLIPS), benchmark="xset")
    with pytest.raises(ConfigError, match=r"benchmark=xcam is not known"):
        read(tmp_path, container(CLIPS), benchmark="xcam")


def test_the_other_kind_of_container_gives_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"keypoints of 3 channels, .*takes 2\. Use dataset=ntu60_3d"):
        read(tmp_path, container(CLIPS, three_d=True))
    with pytest.raises(DataError, match=r"keypoints of 2 channels, .*takes 3\. Use dataset=ntu60, or the 3D container"):
        read(tmp_path, container(CLIPS), **THREE_D)


def test_a_reader_that_reports_goes_on(tmp_path: Path) -> None:
    faults: list[DataError] = []
    store = reader.read(save(tmp_path, "ntu60_hrnet.pkl", broken(label=5)), report=faults.append, **TWO_D)
    assert len(faults) == 1 and CLIPS[3] in str(faults[0])
    assert len(set(store.table["clip"])) == len(CLIPS) - 1


def module(root: Path, *overrides: str) -> ActionDataModule:
    config = compose(["task=action", *overrides, f"dataset.root={root}", "dataset.cache_dir=null"])
    signature = Signature("logits", in_channels=3, joints=17, joints_out=17, frames=10, frames_rule="max", persons=2)
    data: ActionDataModule = build_data(config, signature)
    return data


def test_every_data_set_gives_batches(tmp_path: Path) -> None:
    clips = names([1, 7, 60], performers=[1, 2, 3])
    save(tmp_path, "ntu60_hrnet.pkl", container(clips))
    save(tmp_path, "ntu60_3danno.pkl", container(clips, three_d=True))
    save(tmp_path, "ntu120_hrnet.pkl", container(oneshot_names(), ("xsub", "xset")))
    for words, frames, joints in (
        (["dataset=ntu60"], 10, 17),
        (["dataset=ntu60", "dataset.protocol=xview"], 10, 17),
        (["dataset=ntu60_compat"], 243, 17),
        (["dataset=ntu60_coco", "dataset.stream=bone_motion"], 100, 17),
        (["dataset=ntu60_3d"], 100, 25),
        (["dataset=ntu120", "dataset.protocol=xset", "dataset.selection=test"], 10, 17),
        (["dataset=ntu120_oneshot"], 100, 17),
    ):
        data = module(tmp_path, *words, "dataset.batch_size=2", "dataset.validation.share=0.5")
        for stage in ("train", "val", "test"):
            loader = getattr(data, f"{stage}_dataloader")()
            batch = data.transform(dict(next(iter(loader))), training=stage == "train")
            assert batch["pose"].shape[1:] == (2, frames, joints, 3)
            assert torch.isfinite(batch["pose"]).all()
            assert batch["persons"][:, 0].all()
        assert "benchmark" in data.describe() or "NTU" in data.describe()


def test_the_protocol_of_a_benchmark_judges_it() -> None:
    from kinema.protocols.registry import ACTION

    assert ACTION["xsub"] is ACTION["xview"] is ACTION["xset"] is ACTION["action"]
    for dataset in ("ntu60", "ntu120", "ntu120_oneshot"):
        config = compose([f"dataset={dataset}", "task=action"])
        assert config.task.protocol == config.dataset.protocol == config.dataset.reader_options.benchmark
        assert config.task.protocol in ACTION


@pytest.mark.parametrize(
    ("words", "benchmark"),
    [
        (["dataset=ntu60"], "xsub"),
        (["dataset=ntu60", "dataset.protocol=xview"], "xview"),
        (["dataset=ntu120_oneshot"], ""),
    ],
)
def test_the_doctor_finds_nothing_wrong_with_a_sound_container(
    tmp_path: Path, words: list[str], benchmark: str
) -> None:
    actions = [action for action in range(1, 121) if benchmark == "" or action <= 60]
    clips = names(actions, performers=[1, 2, 3] if benchmark == "xsub" else [1, 2] if benchmark else [8])
    if not benchmark:
        clips = [name for name in clips if int(name[-3:]) <= 60] + names(range(61, 121), setups=[18], performers=[8])
    file = "ntu60_hrnet.pkl" if benchmark else "ntu120_hrnet.pkl"
    save(tmp_path, file, container(clips, ("xsub", "xview")))
    found = doctor.examine(module(tmp_path, *words))
    assert not [finding for finding in found if finding.severity == "fault"]


def test_the_doctor_knows_what_cross_view_asks(tmp_path: Path) -> None:
    content = container(names(range(1, 61), performers=range(1, 4)))
    save(tmp_path, "ntu60_hrnet.pkl", content)
    words = ["dataset=ntu60", "dataset.protocol=xview", "dataset.validation.by=clip", "dataset.validation.share=0.3"]
    found = [finding for finding in doctor.examine(module(tmp_path, *words)) if finding.check == "overlap"]
    told = {finding.severity: finding.text for finding in found}
    assert "recordings in train and in val" in told["warning"]
    assert "other cameras saw the same" in told["ok"]
    # The lists of another benchmark may not do this.
    content["split"]["xsub_train"], content["split"]["xsub_val"] = (
        content["split"][f"xview_{part}"] for part in ("train", "val")
    )
    save(tmp_path, "ntu60_hrnet.pkl", content)
    found = doctor.examine(module(tmp_path, "dataset=ntu60"))
    assert any("recordings in train and in test" in finding.text for finding in found if finding.severity == "fault")


def test_the_doctor_tells_what_is_wrong(tmp_path: Path) -> None:
    save(tmp_path, "ntu60_hrnet.pkl", broken(label=5))
    found = doctor.examine(module(tmp_path, "dataset=ntu60"))
    faults = [finding.text for finding in found if finding.severity == "fault"]
    assert any("so its label is 0, not 5" in text for text in faults)
    assert any("57 of 60 classes have no clip" in text for text in faults)
