"""Names, splits and one-shot classes of NTU RGB+D."""

from __future__ import annotations

import numpy as np
import pytest

from kinema.data import ntu
from kinema.data.class_list import class_list
from kinema.errors import DataError


def test_a_name_tells_who_what_and_where() -> None:
    clip = ntu.ClipName.parse("S017C003P020R002A060")
    assert (clip.setup, clip.camera, clip.performer, clip.replication, clip.action) == (17, 3, 20, 2, 60)
    assert (clip.label, clip.subject, clip.recording) == (59, "P020", "S017P020R002A060")


@pytest.mark.parametrize("name", ["", "S1C1P1R1A1", "S001C001P001R001A001.skeleton", "walk"])
def test_other_names_give_a_sentence(name: str) -> None:
    with pytest.raises(DataError, match=r"is no name of an NTU RGB\+D clip .*dataset=clip_folder"):
        ntu.ClipName.parse(name)


def test_splits_follow_performers_cameras_and_setups() -> None:
    names = ["S001C001P001R001A001", "S002C002P003R001A001", "S018C003P103R001A120"]
    assert ntu.published_splits(names, ["xsub", "xview", "xset"]) == {
        "xsub_train": [names[0], names[2]], "xsub_val": [names[1]],
        "xview_train": names[1:], "xview_val": names[:1],
        "xset_train": names[1:], "xset_val": names[:1],
    }  # fmt: skip
    assert len(ntu.TRAINING_SUBJECTS) == 53
    assert sum(subject <= 40 for subject in ntu.TRAINING_SUBJECTS) == 20


def test_every_sixth_class_is_novel_and_has_an_exemplar() -> None:
    clips = [ntu.ClipName.parse(name) for name in ntu.EXEMPLARS]
    assert [clip.label for clip in clips] == list(ntu.NOVEL_LABELS) == list(range(0, 120, 6))
    assert {(clip.setup, clip.camera, clip.performer) for clip in clips[:10]} == {(1, 3, 8)}
    assert {(clip.setup, clip.camera, clip.performer) for clip in clips[10:]} == {(18, 3, 8)}
    labels = np.arange(120)
    new = ntu.auxiliary_labels(labels)
    kept = [label for label in labels.tolist() if label % 6]
    assert new[kept].tolist() == list(range(100))
    assert (new[::6] == -1).all()


def test_class_lists_have_a_name_for_every_action() -> None:
    small, large = class_list("ntu60"), class_list("ntu120")
    assert (len(small), len(large)) == (ntu.CLASSES, 2 * ntu.CLASSES)
    assert large.names[: ntu.CLASSES] == small.names
