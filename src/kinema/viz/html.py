"""One self-contained HTML page: numbers, tables and pictures inside one file that opens without a network."""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; color: #24292f; background: #fff;
       max-width: 1180px; margin: 2rem auto 4rem; padding: 0 1.2rem; }
h1 { font-size: 1.55rem; margin: 0; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid #d0d7de; }
p.under { color: #57606a; margin: .2rem 0 1.2rem; overflow-wrap: anywhere; }
nav a { margin-right: 1rem; } a { color: #0969da; text-decoration: none; }
.numbers { display: flex; flex-wrap: wrap; gap: .6rem; margin: .6rem 0; }
.numbers div { border: 1px solid #d0d7de; border-radius: 6px; padding: .35rem .8rem; min-width: 5.2rem; }
.numbers b { display: block; font-size: 1.25rem; font-variant-numeric: tabular-nums; }
.numbers span { color: #57606a; font-size: .8rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .87rem; font-variant-numeric: tabular-nums; margin: .4rem 0; }
th, td { padding: .22rem .7rem; text-align: right; white-space: nowrap; }
th { border-bottom: 2px solid #d0d7de; vertical-align: bottom; } td { border-bottom: 1px solid #eaeef2; }
th.text, td.text { text-align: left; } tr.sum td { font-weight: 600; border-top: 2px solid #d0d7de; }
tbody tr:hover { background: #f6f8fa; }
summary { cursor: pointer; color: #0969da; margin: .5rem 0; }
figure { margin: .8rem 0; } img { max-width: 100%; height: auto; } figcaption { color: #57606a; font-size: .85rem; }
.figures { display: flex; flex-wrap: wrap; gap: 1.2rem; align-items: flex-start; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem; font-size: .87rem; }
dt { color: #57606a; } dd { margin: 0; overflow-wrap: anywhere; } code { font-size: .85rem; }
@media print { details { display: block; } body { margin: 0; } }
"""


class Page:
    """A page that is filled from top to bottom and then written as text; everything given is escaped.

    Args:
        title: heading and title of the window.
        under: a line below the heading.
        refresh: seconds after which a browser loads the page again; None = never.
    """

    def __init__(self, title: str, under: str = "", *, refresh: int | None = None) -> None:
        self.title = title
        self.under = under
        self.refresh = refresh
        self._parts: list[str] = []
        self._sections: list[str] = []

    def section(self, title: str) -> None:
        """Begin a section; the sections are linked at the top of the page."""
        self._sections.append(title)
        self._parts.append(f'<h2 id="{_anchor(title)}">{_safe(title)}</h2>')

    def text(self, paragraph: str) -> None:
        """Add a paragraph."""
        self._parts.append(f"<p>{_safe(paragraph)}</p>")

    def numbers(self, values: Mapping[str, str]) -> None:
        """Add single numbers as tiles: name to text."""
        tiles = "".join(f"<div><b>{_safe(value)}</b><span>{_safe(name)}</span></div>" for name, value in values.items())
        self._parts.append(f'<div class="numbers">{tiles}</div>')

    def facts(self, values: Mapping[str, str]) -> None:
        """Add a list of names and what belongs to them."""
        items = "".join(f"<dt>{_safe(name)}</dt><dd><code>{_safe(value)}</code></dd>" for name, value in values.items())
        self._parts.append(f"<dl>{items}</dl>")

    def table(
        self,
        rows: Sequence[Mapping[str, Any]],
        *,
        title: str = "",
        footers: Sequence[Mapping[str, Any]] = (),
        shown: Callable[[str, Mapping[str, Any]], str] | None = None,
        folded: bool = False,
    ) -> None:
        """Add a table with the columns of its first row.

        Args:
            rows: a mapping from column to value each.
            title: above it.
            footers: summarising rows.
            shown: (column, row) -> text; None = `str`, nothing for a missing value.
            folded: whether it is closed until somebody opens it.
        """
        if not rows:
            return
        write = shown or (lambda column, row: "" if row.get(column) is None else str(row[column]))
        columns = {column: "text" if isinstance(value, str) else "" for column, value in rows[0].items()}
        head = "".join(_cell("th", column, kind) for column, kind in columns.items())
        body = "".join(
            f"<tr{' class=sum' if number >= len(rows) else ''}>"
            + "".join(_cell("td", write(column, row), kind) for column, kind in columns.items())
            + "</tr>"
            for number, row in enumerate([*rows, *footers])
        )
        made = f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        if folded:
            made = f"<details><summary>{_safe(title)} ({len(rows)})</summary>{made}</details>"
        elif title:
            made = f"<h3>{_safe(title)}</h3>{made}"
        self._parts.append(made)

    def figures(self, pictures: Mapping[str, bytes]) -> None:
        """Add PNG pictures side by side, as far as they fit: name to bytes."""
        drawn = "".join(
            f'<figure><img alt="{_safe(name)}" src="data:image/png;base64,{base64.b64encode(data).decode()}"></figure>'
            for name, data in pictures.items()
        )
        self._parts.append(f'<div class="figures">{drawn}</div>')

    def render(self) -> str:
        """The page as text."""
        again = f'<meta http-equiv="refresh" content="{self.refresh}">' if self.refresh else ""
        links = "".join(f'<a href="#{_anchor(name)}">{_safe(name)}</a>' for name in self._sections)
        return (
            f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">{again}'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{_safe(self.title)}</title><style>{_STYLE}</style></head>\n<body>"
            f'<h1>{_safe(self.title)}</h1><p class="under">{_safe(self.under)}</p>'
            + (f"<nav>{links}</nav>" if len(self._sections) > 1 else "")
            + "\n".join(self._parts)
            + "\n</body></html>\n"
        )


def png(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _safe(text: object) -> str:
    return html.escape(str(text))


def _cell(tag: str, text: str, kind: str) -> str:
    return f'<{tag} class="text">{_safe(text)}</{tag}>' if kind else f"<{tag}>{_safe(text)}</{tag}>"


def _anchor(title: str) -> str:
    return re.sub(r"\W+", "-", title.lower()).strip("-")
