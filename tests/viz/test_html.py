"""A page is one file that needs nothing else, and shows text as text."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from kinema.viz.html import Page, png
from kinema.viz.skeleton import new_figure

VOID = {"meta", "img", "br", "link"}


class Tree(HTMLParser):
    """Checks that tags close in order, and collects them with the text of table cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[str] = []
        self.feed(text)
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1] += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def filled(**options: int) -> Page:
    figure = new_figure(2, 1)
    figure.text(0.5, 0.5, "a picture")
    page = Page("Results", "of a run", **options)
    page.section("test")
    page.numbers({"top1": "61.3", "mpjpe": "42.0"})
    page.table([{"action": "walk", "mpjpe": 40.0, "frames": None}], footers=[{"action": "mean", "mpjpe": 41.0}])
    page.figures({"confusion": png(figure)})
    page.section("run")
    page.facts({"command": "run.py"})
    return page


def test_a_page_loads_nothing_from_elsewhere() -> None:
    text = filled().render()
    tree = Tree(text)
    assert all(one["src"].startswith("data:image/png;base64,") for one in tree.named("img"))  # type: ignore[union-attr]
    assert not {"script", "link", "iframe"} & {name for name, _ in tree.tags}
    assert not re.search(r"https?://|url\(|@import", text)
    assert all(one["href"].startswith("#") for one in tree.named("a"))  # type: ignore[union-attr]


def test_pictures_are_embedded_whole() -> None:
    source = Tree(filled().render()).named("img")[0]["src"]
    assert source is not None
    with Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))) as image:
        assert image.size == (200, 100)
        assert np.asarray(image.convert("L")).std() > 1


def test_tables_keep_their_columns_and_leave_missing_values_blank() -> None:
    tree = Tree(filled().render())
    assert tree.cells == ["action", "mpjpe", "frames", "walk", "40.0", "", "mean", "41.0", ""]
    assert [one for one in tree.named("tr") if one.get("class") == "sum"]


def test_text_is_never_taken_for_tags() -> None:
    evil = "<script>alert('x')</script> & \"quotes\""
    page = Page(evil, evil)
    page.section(evil)
    page.text(evil)
    page.numbers({evil: evil})
    page.facts({evil: evil})
    page.table([{evil: evil}], title=evil, folded=True)
    page.figures({evil: b""})
    tree = Tree(page.render())
    assert "script" not in {name for name, _ in tree.tags}
    assert evil in tree.cells


def test_sections_are_linked_from_the_top() -> None:
    tree = Tree(filled().render())
    assert [one["href"] for one in tree.named("a")] == ["#test", "#run"]
    assert [one["id"] for one in tree.named("h2")] == ["test", "run"]


def test_a_folded_table_says_how_many_rows_it_has() -> None:
    page = Page("x")
    page.table([{"a": 1}, {"a": 2}], title="By class", folded=True)
    text = page.render()
    assert "<summary>By class (2)</summary>" in text
    assert "details" in {name for name, _ in Tree(text).tags}


@pytest.mark.parametrize(("options", "count"), [({}, 0), ({"refresh": 30}, 1)])
def test_a_page_of_a_running_training_loads_itself_again(options: dict[str, int], count: int) -> None:
    text = filled(**options).render()
    assert text.count('http-equiv="refresh"') == count
    Tree(text)


def test_an_empty_table_is_left_out() -> None:
    page = Page("x")
    page.table([], title="nothing")
    assert "nothing" not in page.render()
