"""Convert Human3.6M as its owners hand it out: python scripts/convert_h36m.py FOLDER [--output data/h36m].

FOLDER holds the downloads Poses_D3_Positions_S1.tgz, ... of S1, S5, S6, S7, S8, S9 and S11, packed or unpacked
(S1/MyPoseFeatures/D3_Positions/*.cdf). Written: data_3d_h36m.npz (world space, metres) and data_2d_h36m_gt.npz
(projections with lens distortion, pixels). How to get the downloads: docs/datasets/h36m.md.
"""

from __future__ import annotations

from kinema.data.convert.command import parser, run
from kinema.data.convert.h36m import convert


def main(arguments: list[str] | None = None) -> None:
    options = parser(__doc__, "folders with the downloads, or archives", "data/h36m").parse_args(arguments)
    run(lambda: convert(options.source, options.output, partial=options.partial, overwrite=options.overwrite))


if __name__ == "__main__":
    main()
