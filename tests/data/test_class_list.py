"""Class lists: the shipped ones are the published facts, anybody's files are read or refused with a remedy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kinema.data.class_list import ClassList, class_list, shipped
from kinema.errors import ConfigError, DataError

# The last id of every body-level group, as in the official submission script.
LAST = (4, 10, 23, 31, 37, 47, 51)


def test_ma52_groups_are_the_official_ranges() -> None:
    classes = class_list("ma52")
    assert classes.groups == tuple(next(g for g, end in enumerate(LAST) if i <= end) for i in range(52))
    assert classes.group_names == ("body", "head", "upper limb", "lower limb", "body-hand", "head-hand", "leg-hand")
    assert classes.clips == {"train": 11250, "val": 5586, "test": 5586}


@pytest.mark.parametrize(("code", "label"), [("B1", 9), ("B2", 10), ("B3", 8), ("B4", 7), ("B5", 5), ("B6", 6)])
def test_codes_of_the_paper_are_not_ids(code: str, label: int) -> None:
    assert class_list("ma52").index(code) == label


def test_names_that_are_likely_exchanged_stand_together() -> None:
    classes = class_list("ma52")
    assert "rising up" in classes.names[3] and "turning around" in classes.names[4]
    assert classes.index("turning around") == 3 and classes.index("rising up") == 4


def test_shipped_lists_have_their_sizes() -> None:
    sizes = {name: len(class_list(name)) for name in shipped()}
    assert sizes == {"ma52": 52, "ma52_readme": 52, "ntu60": 60, "ntu120": 120, "cmu_actions": 9}
    assert class_list("ntu120").names[:60] == class_list("ntu60").names
    assert class_list("ntu120").index("A99") == 98


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "nodding\nwaving\n\nshaking head\n"),
        ("b.txt", "0\tnodding\n2 shaking head\n1  waving\n"),
        ("c.json", json.dumps({"0": "nodding", "2": "shaking head", "1": "waving"})),
        ("d.json", json.dumps(["nodding", "waving", "shaking head"])),
        ("e.json", json.dumps({"classes": [{"name": "nodding"}, "waving", {"name": "shaking head"}]})),
    ],
)
def test_every_form_of_a_file_is_read(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert class_list(tmp_path / name).names == ("nodding", "waving", "shaking head")


def test_groups_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "own.json"
    path.write_text(json.dumps({"groups": ["head", "arm"], "classes": [{"name": "nod", "group": 0, "code": "H1"},
                                                                       {"name": "wave", "group": 1}]}))  # fmt: skip
    classes = class_list(path)
    assert (classes.groups, classes.group_names, classes.num_groups) == ((0, 1), ("head", "arm"), 2)
    assert classes.index("h1") == 0
    assert classes.name(1) == "wave" and classes.name(-1) == ""


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a.txt", "", r"is empty"),
        ("b.txt", "0 nod\n2 wave\n", r"not the ids 0 to 1: \[1\] missing"),
        ("c.json", "{", r"is no JSON"),
        ("d.json", '{"zero": "nod"}', r"an id that is no number"),
        ("e.json", "[1, 2]", r"holds no class list"),
        ("f.txt", "nod\nnod\n", r"'nod' stands there twice"),
        ("g.json", '{"groups": ["head"], "classes": [{"name": "nod", "group": 1}]}', r"'nod' is in none of the 1"),
        ("h.json", '{"groups": ["head"], "classes": [{"name": "nod", "group": 0}, "wave"]}', r"some have none"),
        ("i.json", '{"classes": [{"group": 0}]}', r"has no name"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, name: str, text: str, sentence: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=sentence):
        class_list(tmp_path / name)


def test_unknown_names_get_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Did you mean dataset\.classes=ma52\?"):
        class_list("ma25")
    with pytest.raises(ConfigError, match="Did you mean 'nodding'"):
        class_list("ma52").index("noding")
    with pytest.raises(DataError, match="cannot be read"):
        class_list(tmp_path / "absent.txt")


def test_names_alone_are_a_list() -> None:
    assert class_list(["a", "b"]) == ClassList(("a", "b"))
