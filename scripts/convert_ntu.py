"""Convert the raw skeletons of NTU RGB+D: python scripts/convert_ntu.py SOURCE [SOURCE] [--output data/ntu].

SOURCE is a folder with .skeleton files, or the archives nturgbd_skeletons_s001_to_s017.zip and
nturgbd_skeletons_s018_to_s032.zip as they were downloaded. Written: ntu60_3danno.pkl, and ntu120_3danno.pkl where
actions above 60 are there, with one or two persons of 25 joints in metres and the split lists of the benchmarks. Clips
whose skeleton is missing or incomplete are left out. A conversion that was stopped goes on where it was. How to get
the downloads: docs/datasets/ntu.md.
"""

from __future__ import annotations

from pathlib import Path

from kinema.data.convert.command import parser, run
from kinema.data.convert.ntu import convert


def main(arguments: list[str] | None = None) -> None:
    made = parser(__doc__, "folders with .skeleton files, or zip archives of them", "data/ntu")
    made.add_argument("--missing", type=Path, help="list of clips without usable skeleton (default: the owners' 535)")
    made.add_argument("--workers", type=int, help="processes (default: one for each core)")
    options = made.parse_args(arguments)
    run(
        lambda: convert(
            options.source, options.output, missing=options.missing, workers=options.workers,
            partial=options.partial, overwrite=options.overwrite,
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
