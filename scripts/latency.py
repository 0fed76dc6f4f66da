"""Measure what waiting for frames is worth: python scripts/latency.py --ckpt RUN [--ckpt RUN ...] [KEY=VALUE ...].

Every checkpoint is a run directory or a .ckpt of Kinema's own; it brings its data set and options along, KEY=VALUE
changes them (dataset.root=/where/it/is). Written: OUTPUT.md, OUTPUT.csv and OUTPUT.png.
"""

from __future__ import annotations

import argparse
import csv
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from kinema.checkpoints.envelopes import read_weights
from kinema.core.align import root_relative
from kinema.core.pose_errors import mpjpe
from kinema.core.spec import Signature
from kinema.data.windows import Windows
from kinema.errors import ConfigError
from kinema.inference.slide import carries_state
from kinema.inference.stream import CausalStream, Stopwatch, lift_windows, window_frames
from kinema.modes.train import build
from kinema.viz.skeleton import OTHER, RIGHT, new_figure

LOOK_AHEAD = (0, 1, 2, 4, 8, 13, 26, 40, 80, 121, 242)
OFFLINE = "offline"
COLOURS = (RIGHT, OTHER, "#0969da", "#8250df", "#1a7f37", "#9a6700")


@dataclass(frozen=True)
class Row:
    """One way to predict the target frames.

    Attributes:
        label: of the checkpoint.
        way: "causal", "window" or "offline".
        look_ahead: frames waited for, None = the whole video.
        actions, frames: MPJPE in mm, mean over actions and mean over frames.
        milliseconds: per frame in a stream of one video, None where it is none.
    """

    label: str
    way: str
    look_ahead: int | None
    actions: float
    frames: float
    milliseconds: float | None


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ckpt", action="append", required=True, help="run directory or file; NAME=PATH names it")
    parser.add_argument("--frames", type=int, default=0, help="evenly spaced target frames; 0 = all")
    parser.add_argument("--look-ahead", type=int, nargs="*", default=LOOK_AHEAD, help="frames")
    parser.add_argument("--chunk", type=int, default=4096, help="input frames in one pass")
    parser.add_argument("--threads", type=int, default=None, help="of torch; default: as torch chooses")
    parser.add_argument("--output", type=Path, default=Path("docs/results/latency"))
    parser.add_argument("overrides", nargs="*", help="KEY=VALUE of the checkpoint's configuration")
    options = parser.parse_intermixed_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    rows, notes = [], []
    for word in options.ckpt:
        measured = Measured(word, options)
        rows += measured.rows()
        notes.append(measured.note)
    write(options.output, rows, notes)


class Measured:
    """A checkpoint on its test split, at chosen target frames."""

    def __init__(self, word: str, options: argparse.Namespace) -> None:
        name, _, rest = word.rpartition("=")
        path = Path(rest)
        path = path / "checkpoints" / "best.ckpt" if path.is_dir() else path
        record = read_weights(path).record
        if record is None or not record.get("config"):
            raise ConfigError(f"{path} does not tell its data. Use a checkpoint that mode=train wrote.")
        config: Any = OmegaConf.merge(OmegaConf.create(record["config"]), OmegaConf.from_dotlist(options.overrides))
        config.update({"mode": "test", "ckpt": str(path)})
        _, self.data, self.task = build(DictConfig(config))
        if self.data.spec.space != "camera":
            raise ConfigError(f"{path} predicts in {self.data.spec.space} space; this script measures camera space.")
        self.task.model.eval()
        self.model: Any = self.task._network()
        self.signature: Signature = self.model.signature
        self.label = name or record["model"]
        self.chunk = options.chunk
        self.sequences = self.data.windows("test").sequences
        length = self.sequences.table["length"]
        total = int(length.sum())
        count = min(options.frames or total, total)
        numbers = np.arange(count) * total // count
        self.owner = np.repeat(np.arange(len(length)), length)[numbers]
        self.target = numbers - (np.cumsum(length) - length)[self.owner]
        ahead = self.signature.frames - 1 if self.signature.context == (0, 0) else self.signature.context[1]
        self.looks = sorted({k for k in options.look_ahead if k < ahead} | {ahead})
        if carries_state(self.model):
            self.looks = [0]  # what comes later changes nothing
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        self.note = (
            f"{self.label}: {type(self.model).__name__}, {parameters:,} parameters, {self.signature.frames} frames; "
            f"{config.dataset.name}, {count:,} of {total:,} test frames"
            f"{'' if count == total else ' (evenly spaced)'}"
            f"{', mirrored poses averaged in' if self.task.flip_average else ''}."
        )

    def rows(self) -> list[Row]:
        """All ways in the order of their latency."""
        started = time.monotonic()
        ways: dict[tuple[str, int | None], list[Tensor]] = {}
        truth, actions = [], []
        for row in range(len(self.sequences)):
            targets = torch.from_numpy(self.target[self.owner == row])
            if not len(targets):
                continue
            pose, batch = self._sequence(row)
            for key, poses in self._predictions(pose, batch, targets).items():
                ways.setdefault(key, []).append(poses)
            truth.append(root_relative(batch["pose3d"][0, targets], self.task.skeleton))
            actions += [str(self.sequences.table["action"][row])] * len(targets)
        target, of_action = torch.cat(truth), np.asarray(actions)
        speed = self._milliseconds()
        made = []
        for (way, look), pieces in ways.items():
            found = torch.cat(pieces)
            found = found if self.task.target == "root_relative" else root_relative(found, self.task.skeleton)
            errors = 1000 * mpjpe(found.double(), target.double()).numpy()
            means = [errors[of_action == action].mean() for action in np.unique(of_action)]
            spent = None if way == OFFLINE or (way == "window" and carries_state(self.model)) else speed
            made.append(Row(self.label, way, look, float(np.mean(means)), float(errors.mean()), spent))
        print(f"{self.note} {time.monotonic() - started:.0f} s", flush=True)
        return made

    def _sequence(self, row: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Input of a whole sequence (L, J, C), and its batch, with the context of the network."""
        windows = Windows.whole(self.sequences.select([row]), context=self.signature.context)
        batch = self.data.transform(windows[torch.tensor([[0, row, 0]])])
        before, after = self.signature.context
        return batch["pose"][0, before : batch["pose"].shape[1] - after], batch

    @torch.no_grad()
    def _predictions(
        self, pose: Tensor, batch: dict[str, Tensor], targets: Tensor
    ) -> dict[tuple[str, int | None], Tensor]:
        """Poses of the targets (N, J, 3) by way and look-ahead."""
        found: dict[tuple[str, int | None], Tensor] = {}
        if carries_state(self.model):
            stream = self.task.stream()
            assert isinstance(stream, CausalStream)
            parts = [stream.advance(part[None])[0] for part in pose.split(self.chunk)]
            found["causal", 0] = torch.cat(parts)[targets]
        found |= {("window", look): out for look, out in self._windows(pose, targets).items()}
        if not carries_state(self.model):
            found[OFFLINE, None] = self.task.predict(batch)[0, targets]
        return found

    def _windows(self, pose: Tensor, targets: Tensor) -> dict[int, Tensor]:
        """Poses of the targets by look-ahead, as a stream gives them; a window that several need is seen once."""
        last = len(pose) - 1
        newest = torch.stack([(targets + look).clamp(max=last) for look in self.looks])  # (K, N)
        back = newest - targets
        if self.signature.context == (0, 0):
            ends, place = newest.unique(return_inverse=True)
            inputs, _ = window_frames(self.signature, torch.zeros_like(ends))
        else:
            pairs, place = torch.stack([newest, back]).flatten(1).unique(dim=1, return_inverse=True)
            place, ends = place.view_as(newest), pairs[0]
            inputs, _ = window_frames(self.signature, pairs[1])
        _, outputs = window_frames(self.signature, back.flatten())
        frames = (ends[:, None] + inputs).clamp(min=0)
        skeletons = (self.task.skeleton2d, self.task.skeleton) if self.task.flip_average else None
        step = max(1, self.chunk // self.signature.frames)
        parts = [
            lift_windows(self.model, pose[part], skeletons, self.task._settle).float() for part in frames.split(step)
        ]
        out = torch.cat(parts)  # (windows, T', J, 3)
        chosen = out[place.flatten(), outputs].unflatten(0, newest.shape)
        return dict(zip(self.looks, chosen, strict=True))

    def _milliseconds(self, frames: int = 100) -> float:
        """Median time of a frame in a stream of one video."""
        pose, _ = self._sequence(0)
        stream, watch = self.task.stream(), Stopwatch()
        for number in range(frames + 10):
            if number == 10:  # the first ones warm up
                watch = Stopwatch()
            with watch.frame():
                stream.push(pose[number % len(pose)])
        return watch.quantiles()[0]


def write(output: Path, rows: list[Row], notes: list[str]) -> None:
    """The table, its numbers and the plot."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.with_suffix(".csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["network", "way", "look_ahead", "mpjpe", "mpjpe_frames", "ms_per_frame"])
        for row in rows:
            look = "" if row.look_ahead is None else row.look_ahead
            spent = "" if row.milliseconds is None else f"{row.milliseconds:.3f}"
            table.writerow([row.label, row.way, look, f"{row.actions:.3f}", f"{row.frames:.3f}", spent])
    lines = [
        "# Latency against accuracy",
        "",
        "Root-relative MPJPE in millimetres of single frames on the test split, by how many frames a stream waits for",
        "before it answers ([streaming.md](../streaming.md)). Made by `scripts/latency.py`.",
        "",
        f"![Error against look-ahead]({output.name}.png)",
        "",
        "| network | way | look-ahead, frames | mean over actions | mean over frames | ms per frame |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for row in rows:
        look = "whole video" if row.look_ahead is None else str(row.look_ahead)
        spent = "" if row.milliseconds is None else f"{row.milliseconds:.1f}"
        lines.append(f"| {row.label} | {row.way} | {look} | {row.actions:.1f} | {row.frames:.1f} | {spent} |")
    lines += ["", *(f"- {note}" for note in notes)]
    lines += [
        "",
        "`causal`: a state that stands for all frames before. `window`: the last frames the network takes, the pose",
        "of the frame `look-ahead` before the newest. `offline`: as `mode=test` predicts. Time: median of 100 frames",
        f"of one video on the CPU, {torch.get_num_threads()} thread(s), mirrored pose included where averaged in.",
    ]
    output.with_suffix(".md").write_text("\n".join(lines) + "\n")
    plot(rows).savefig(output.with_suffix(".png"))
    print(f"wrote {output}.md, .csv, .png")


def plot(rows: list[Row]) -> Any:
    """Error against look-ahead, one colour per network; causal streams as diamonds, offline as dashed lines."""
    figure = new_figure(7.2, 4.2, 110.0)
    axes = figure.add_axes((0.1, 0.14, 0.86, 0.76))
    looks = sorted({row.look_ahead for row in rows if row.look_ahead is not None})
    for number, label in enumerate(dict.fromkeys(row.label for row in rows)):
        colour = COLOURS[number % len(COLOURS)]
        own = [row for row in rows if row.label == label]
        curve = [(row.look_ahead, row.actions) for row in own if row.way == "window" and row.look_ahead is not None]
        style: dict[str, Any] = {"marker": "o", "markersize": 4, "linewidth": 1.4, "color": colour}
        if curve:
            axes.plot(*zip(*curve, strict=True), label=f"{label}, window", **style)
        for row in own:
            if row.way == "causal":
                axes.plot([0], [row.actions], "D", color=colour, markersize=7, label=f"{label}, causal", zorder=3)
            if row.way == OFFLINE:
                axes.axhline(row.actions, color=colour, linewidth=1.0, linestyle="--", label=f"{label}, offline")
    axes.set_xscale("symlog", linthresh=4)
    axes.set_xticks(looks, [str(look) for look in looks])
    axes.minorticks_off()
    axes.set_xlim(-0.4, max(looks) * 1.15 + 0.4)
    axes.tick_params(labelsize=8)
    axes.set_xlabel("frames waited for", fontsize=9, color=OTHER)
    axes.set_title("MPJPE, mean over actions (mm)", fontsize=10, loc="left")
    axes.legend(fontsize=8, frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure


if __name__ == "__main__":
    main()
