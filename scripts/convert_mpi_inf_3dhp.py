"""Convert MPI-INF-3DHP as its owners hand it out: python scripts/convert_mpi_inf_3dhp.py FOLDER [FOLDER].

FOLDER holds S1/Seq1/annot.mat to S8/Seq2/annot.mat, or TS1/annot_data.mat to TS6/annot_data.mat, or both. Written:
data_train_3dhp.npz and data_test_3dhp.npz (2D in pixels, universal 3D in millimetres, 17 joints) and
activity_test_3dhp.npz. How to get the downloads: docs/datasets/mpi_inf_3dhp.md.
"""

from __future__ import annotations

from kinema.data.convert.command import parser, run
from kinema.data.convert.mpi_inf_3dhp import convert


def main(arguments: list[str] | None = None) -> None:
    options = parser(__doc__, "folders with S1 to S8 and TS1 to TS6", "data/mpi_inf_3dhp").parse_args(arguments)
    run(lambda: convert(options.source, options.output, partial=options.partial, overwrite=options.overwrite))


if __name__ == "__main__":
    main()
