"""How the published programs name things: constructor values, keypoint files and command lines, and ours for them."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kinema.checkpoints.load import OFFICIAL_NAMES
from kinema.composition import compose, make
from kinema.core.skeleton import skeleton
from kinema.data.safe_pickle import load_npz
from kinema.data.sequences import Sequences

# Entries of config.json that are no constructor values.
FACTS = {"model", "params", "receptive_field", "pad", "causal_shift", "optimized1f_causal_shift"}
# Constructor values that have one published value and are no options here.
FIXED = {"qk_scale": None, "dim_out": 3, "norm_eps": 1e-6}

# Names of layouts in the metadata of 2D files; a file without one holds Human3.6M joints.
LAYOUTS = {"h36m": "h36m17", "coco": "coco17", "humaneva15": "humaneva15"}
YAML = {"h36m": "h36m_gt", "humaneva15": "humaneva15", "custom": "custom"}


def ours(config: Mapping[str, Any]) -> dict[str, Any]:
    """Official constructor values under our names, without facts and without what is fixed."""
    # What the scripts were not told is null (kept coefficients: as many as kept frames) and stands in the weights.
    given = {
        name: value for name, value in config.items() if name not in FACTS and (value is not None or name in FIXED)
    }
    renamed = {OFFICIAL_NAMES.get(name, name): value for name, value in given.items()}
    for name, value in FIXED.items():
        assert renamed.pop(name, value) == value, f"{name} is another value than the published one"
    return renamed


def layout_of(path: Path) -> str:
    """Name of the skeleton of a 2D file."""
    layout = load_npz(path, ["metadata"])["metadata"].get("layout_name", "h36m")
    assert layout in LAYOUTS, f"{path.name}: the layout {layout!r} is not known"
    return LAYOUTS[layout]


def read(folder: Path, dataset: str, keypoints: str, layout: str, *overrides: str) -> Sequences:
    """Read one 2D file, and the 3D that belongs to it, as the data set's yaml has it."""
    config = compose([f"dataset={YAML[dataset]}", f"paths.data_dir={folder}", "dataset.cache_dir=null", *overrides])
    config.dataset.reader_options.keypoints = keypoints
    config.dataset.skeleton2d, config.dataset.num_joints = layout, len(skeleton(layout))
    source = make(config.dataset, _recursive_=False).source
    made: Sequences = source.module.read(source.root, **source.options)
    return made


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise AssertionError(f"a command line that is not understood: {message}")


def _parser() -> _Parser:
    """Every flag of the published scripts that a check here honours or may pass over."""
    parser = _Parser(add_help=False, allow_abbrev=False)
    values: tuple[tuple[tuple[str, ...], str, Any, Any], ...] = (
        (("-k", "--keypoints"), "keypoints", str, "cpn_ft_h36m_dbb"),
        (("-d", "--dataset"), "dataset", str, "h36m"),
        (("-str", "--subjects-train"), "subjects_train", str, "S1,S5,S6,S7,S8"),
        (("-ste", "--subjects-test"), "subjects_test", str, "S9,S11"),
        (("-a", "--actions"), "actions", str, "*"),
        (("--downsample",), "downsample", int, 1),
        (("--subset",), "subset", float, 1.0),
        (("-s", "--stride"), "stride", int, 1),
        (("-b", "--batch-size"), "batch_size", int, 1024),
        (("-e", "--epochs"), "epochs", int, None),
        (("-lr", "--learning-rate"), "lr", float, None),
        (("-lrd", "--lr-decay"), "gamma", float, None),
        # of the network, compared with its file
        (("-f", "-frame", "--number-of-frames"), "num_frame", int, None),
        (("-frame-kept", "--number-of-kept-frames"), "number_of_kept_frames", int, None),
        (("-coeff-kept", "--number-of-kept-coeffs"), "number_of_kept_coeffs", int, None),
        (("-std",), "noise", float, 0.0),
        (("--depth",), "depth", int, None),
        (("--embed-dim-ratio",), "embed_dim_ratio", int, None),
        (("-arc", "--architecture"), "filter_widths", lambda text: [int(width) for width in text.split(",")], None),
        (("-ch", "--channels"), "channels", int, None),
        # of the picture
        (("--viz-subject",), "viz_subject", str, None),
        (("--viz-action",), "viz_action", str, None),
        (("--viz-camera",), "viz_camera", int, 0),
        # without influence: files, devices, dropout (always 0 in stored runs), and what is done to a clip later
        (("-drop", "--dropout"), "ignored", float, None),
        (("-c", "--checkpoint"), "ignored", str, None),
        (("--checkpoint-frequency",), "ignored", int, None),
        (("-r", "--resume"), "ignored", str, None),
        (("--evaluate",), "ignored", str, None),
        (("-g", "--gpu"), "ignored", str, None),
        (("--viz-output",), "ignored", str, None),
        (("--viz-export",), "ignored", str, None),
        (("--viz-video",), "ignored", str, None),
        (("--viz-skip",), "ignored", int, None),
        (("--viz-limit",), "ignored", int, None),
        (("--viz-downsample",), "ignored", int, None),
        (("--viz-size",), "ignored", int, None),
        (("--viz-bitrate",), "ignored", int, None),
    )
    for flags, key, kind, default in values:
        parser.add_argument(*flags, dest=key, type=kind, default=default)
    for flags, key in (
        (("--causal",), "causal"),
        (("--dense",), "dense"),
        (("--by-subject",), "by_subject"),
        (("-no-da", "--no-data-augmentation"), "no_da"),
        (("-no-tta", "--no-test-time-augmentation"), "no_tta"),
        (("--no-eval",), "no_eval"),
        (("--viz-no-ground-truth",), "no_ground_truth"),
        (("--render",), "ignored"),
        (("--export-training-curves",), "ignored"),
    ):
        parser.add_argument(*flags, dest=key, action="store_true")
    return parser


def options_of(cli: str) -> argparse.Namespace:
    """The options of a recorded command line.

    Raises:
        AssertionError: for a flag that no check here honours (semi-supervised training, ...).
    """
    words: list[str] = []
    for word in shlex.split(cli):
        # Names of actions ("Walking 1") stand unquoted in the recorded command line.
        if len(words) > 1 and not word.startswith("-") and not words[-1].startswith("-"):
            words[-1] += f" {word}"
        else:
            words.append(word)
    return _parser().parse_args(words)


class Peer:
    """One run of a published script: its options and its weights, and ours for the same.

    Args:
        topic: the folder that holds the weights' folder.
        data: the folder of the data files.
        weights: name of the weights' folder, " without model_traj" behind it where that network was taken out.
        cli: the recorded command line.
    """

    def __init__(self, topic: Path, data: Path, weights: str, cli: str) -> None:
        self.options = options_of(cli)
        assert self.options.noise == 0, f"{cli}: noise without a seed cannot be repeated"
        self.data = data
        folder, _, self.without = weights.partition(" without ")
        assert self.without in ("", "model_traj"), f"weights {weights!r} are not understood"
        self.config: dict[str, Any] = json.loads((topic / folder / "config.json").read_text())
        (self.path,) = (path for path in (topic / folder).iterdir() if path.suffix in (".bin", ".pth", ".pt"))
        for name, value in vars(self.options).items():
            if name in self.config and name not in ("causal", "dense") and value is not None:
                assert value == self.config[name], f"{cli}: {folder} has {name}={self.config[name]}"

    @property
    def arguments(self) -> dict[str, Any]:
        """Constructor values: those of the weights' folder, and what the script was told of its convolutions."""
        told = {name: value for name, value in self.config.items() if name not in FACTS}
        if "filter_widths" in told:
            told |= {"causal": self.options.causal, "dense": self.options.dense}
        return ours(told)

    def layout(self) -> str:
        """Skeleton of the run's keypoints."""
        return layout_of(self.data / f"data_2d_{self.options.dataset}_{self.options.keypoints}.npz")

    def actions(self) -> str:
        """The action filter without the words that nothing begins with, which the scripts pass over."""
        if self.options.actions == "*":
            return "null"
        path = self.data / f"data_2d_{self.options.dataset}_{self.options.keypoints}.npz"
        known = {action for actions in load_npz(path, ["positions_2d"])["positions_2d"].values() for action in actions}
        wanted = [word for word in self.options.actions.split(",") if any(name.startswith(word) for name in known)]
        return f"[{','.join(wanted)}]"

    def overrides(self) -> list[str]:
        """What a user types for the same data and evaluation."""
        options, layout = self.options, self.layout()
        detected = options.dataset == "h36m" and options.keypoints != "gt"
        return [
            f"dataset={'h36m_cpn' if detected else YAML[options.dataset]}",
            f"dataset.root={self.data}",
            "dataset.cache_dir=null",
            f"dataset.reader_options.keypoints={options.keypoints}",
            f"dataset.skeleton2d={layout}",
            f"dataset.num_joints={len(skeleton(layout))}",
            f"dataset.subjects_train=[{options.subjects_train}]",
            f"dataset.subjects_test=[{options.subjects_test}]",
            f"dataset.actions={self.actions()}",
            f"dataset.downsample={options.downsample}",
            f"dataset.subset={options.subset}",
            f"task.flip_average={str(not options.no_tta).lower()}",
            f"task.protocol_options.videopose3d.by_subject={str(options.by_subject).lower()}",
        ]
