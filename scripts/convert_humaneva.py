"""Convert HumanEva-I as MATLAB exports it: python scripts/convert_humaneva.py FOLDER [--output data/humaneva15].

FOLDER holds Train/S1/Walking_1.mat, ..., Validate/S3/Box_1.mat with the variables poses_3d (frames, 15 joints, 3) in
millimetres and poses_2d (3 cameras, frames, 15 joints, 2) in pixels; frames without a valid body are NaN. The owners'
recordings are read by the owners' MATLAB code alone; docs/datasets/humaneva15.md says how to get from them to these
files. Written: data_3d_humaneva15.npz (metres) and data_2d_humaneva15_gt.npz (pixels), cut where frames are not valid.
"""

from __future__ import annotations

from kinema.data.convert.command import parser, run
from kinema.data.convert.humaneva import convert


def main(arguments: list[str] | None = None) -> None:
    options = parser(__doc__, "folders with Train and Validate", "data/humaneva15").parse_args(arguments)
    run(lambda: convert(options.source, options.output, partial=options.partial, overwrite=options.overwrite))


if __name__ == "__main__":
    main()
