"""BVH text: a hierarchy of joints with their channels, a line of numbers per frame, and where the joints then are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kinema.data.synthetic.skeleton import about
from kinema.errors import DataError

_MOTION = re.compile(r"^\s*MOTION\b", re.MULTILINE)
_HEADER = re.compile(r"\s*Frames:\s*(\S+)\s+Frame\s+Time:\s*(\S+)", re.IGNORECASE)
_CHANNEL = re.compile(r"[xyz](position|rotation)", re.IGNORECASE)
# How Windows prints NaN and infinity.
_NOT_A_NUMBER = re.compile(r"\S*(?:nan\(ind\)|1\.#\w+)\S*", re.IGNORECASE)
# Shares of a frame rate by which rounding in the text (0.0167 for 60) moves it.
_ROUNDED = 0.003


@dataclass(frozen=True)
class Bvh:
    """One file.

    Attributes:
        joints: names, in the order of the file; the end of a chain is called after its joint, "Head_end".
        parents: index of each joint's parent, -1 for the root; a parent stands before its children.
        offsets: (J, 3) from the parent, in the file's unit.
        channels: of each joint, "Xposition" or "Zrotation" and the like, in the order in which they are applied.
        ends: (J,) whether a joint is an End Site.
        frames: (T, C) values of all channels, degrees and the file's unit.
        fps: frames per second.
    """

    joints: tuple[str, ...]
    parents: tuple[int, ...]
    offsets: np.ndarray
    channels: tuple[tuple[str, ...], ...]
    ends: np.ndarray
    frames: np.ndarray
    fps: float

    def positions(self) -> np.ndarray:
        """Forward kinematics: where the joints are, (T, J, 3) float64, in the file's unit and axes.

        Rotations multiply in the order of the channels. Position channels take the place of the offset, as other
        programs read them; below the root only where they are used, since some write zeros there.
        """
        length = len(self.frames)
        place = np.empty((length, len(self.joints), 3))
        turned = np.empty((length, len(self.joints), 3, 3))
        column = 0
        for joint, names in enumerate(self.channels):
            values = self.frames[:, column : column + len(names)]
            column += len(names)
            local, turn = self._local(joint, values)
            parent = self.parents[joint]
            if parent < 0:
                place[:, joint], turned[:, joint] = local, turn
            else:
                above = turned[:, parent]
                place[:, joint] = place[:, parent] + (above @ local[..., None])[..., 0]
                turned[:, joint] = above @ turn
        return place

    def _local(self, joint: int, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Translation (T, 3) and rotation (T, 3, 3) of one joint against its parent."""
        names = self.channels[joint]
        moves = [(name, column) for name, column in zip(names, values.T, strict=True) if name.endswith("position")]
        local = np.tile(self.offsets[joint], (len(values), 1))
        if self.parents[joint] < 0 or any(column.any() for _, column in moves):
            for name, column in moves:
                local[:, "XYZ".index(name[0])] = column
        turn = np.broadcast_to(np.eye(3), (len(values), 3, 3))
        for name, column in zip(names, values.T, strict=True):
            if name.endswith("rotation"):
                turn = turn @ about(name[0].lower(), np.deg2rad(column))
        return local, turn


def load(path: Path) -> Bvh:
    """Read a file.

    Raises:
        DataError: it cannot be read, was cut off, or is no BVH.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}).") from error
    return parse(text, str(path))


def parse(text: str, name: str) -> Bvh:
    """Read the text of a file that messages call `name`.

    Raises:
        DataError: it was cut off, or is no BVH.
    """
    found = _MOTION.search(text)
    if "HIERARCHY" not in text.partition("ROOT")[0] or found is None:
        raise DataError(
            f"{name} is no BVH: it has no {'MOTION' if 'HIERARCHY' in text else 'HIERARCHY'} part. "
            "Export it again as Biovision hierarchy."
        )
    joints, parents, offsets, channels, ends = _Hierarchy(text[: found.start()], name).read()
    frames, fps = _motion(text[found.end() :], sum(map(len, channels)), name)
    return Bvh(tuple(joints), tuple(parents), np.asarray(offsets), tuple(channels), np.asarray(ends), frames, fps)


class _Hierarchy:
    """Reads the words of the first part one after another."""

    def __init__(self, text: str, name: str) -> None:
        self.name = name
        self.words: Iterator[str] = iter(text.replace("{", " { ").replace("}", " } ").split())
        self.joints: list[str] = []
        self.parents: list[int] = []
        self.offsets: list[tuple[float, ...]] = []
        self.channels: list[tuple[str, ...]] = []
        self.ends: list[bool] = []

    def read(self) -> tuple[list[str], list[int], list[tuple[float, ...]], list[tuple[str, ...]], list[bool]]:
        opened: list[int] = []
        for word in self.words:
            if word == "HIERARCHY":
                continue
            if word in ("ROOT", "JOINT", "End"):
                opened.append(self._open(word, opened))
            elif word == "}" and opened:
                opened.pop()
            elif word == "OFFSET" and opened:
                self.offsets[opened[-1]] = tuple(self._number(f"an offset of {self._last}") for _ in range(3))
            elif word == "CHANNELS" and opened:
                self.channels[opened[-1]] = self._channels()
            else:
                raise DataError(f"{self.name}: {word!r} has no place in a hierarchy. Export the file again.")
        if opened:
            raise DataError(
                f"{self.name} ends inside the joint {self.joints[opened[-1]]}: it was cut off. Copy it again."
            )
        return self.joints, self.parents, self.offsets, self.channels, self.ends

    @property
    def _last(self) -> str:
        return self.joints[-1]

    def _open(self, kind: str, opened: list[int]) -> int:
        words = []
        for word in self.words:
            if word == "{":
                break
            words.append(word)
        name = " ".join(words)
        if kind == "End":
            above = self.joints[opened[-1]] if opened else ""
            taken = sum(joint.startswith(f"{above}_end") for joint in self.joints)
            name = f"{above}_end" + (f"{taken + 1}" if taken else "")
        if kind == "ROOT" and self.joints:
            raise DataError(
                f"{self.name} holds a second skeleton with the root {name}. Export every person as a file of its own."
            )
        if name in self.joints:
            raise DataError(f"{self.name}: two joints are called {name!r}. Give every joint its own name.")
        self.joints.append(name)
        self.parents.append(opened[-1] if opened else -1)
        self.offsets.append((0.0, 0.0, 0.0))
        self.channels.append(())
        self.ends.append(kind == "End")
        return len(self.joints) - 1

    def _channels(self) -> tuple[str, ...]:
        count = int(self._number(f"the number of channels of {self._last}"))
        names: list[str] = []
        for _ in range(count):
            word = next(self.words, "the end")
            if not _CHANNEL.fullmatch(word):
                raise DataError(
                    f"{self.name}: {self._last} should have {count} channels, but only {' '.join(names) or 'none'} "
                    f"stand there before {word!r}. Export the file again."
                )
            names.append(word[0].upper() + word[1:].lower())
        return tuple(names)

    def _number(self, what: str) -> float:
        word = next(self.words, "the end")
        try:
            return float(word)
        except ValueError:
            raise DataError(f"{self.name}: {word!r} is no number, {what} expected.{_comma(word)}") from None


def _motion(text: str, width: int, name: str) -> tuple[np.ndarray, float]:
    """Values (T, width) and frames per second of the second part."""
    header = _HEADER.match(text)
    if header is None:
        raise DataError(f"{name}: `Frames:` and `Frame Time:` do not follow MOTION. Export the file again.")
    try:
        stated, seconds = int(header[1]), float(header[2])
    except ValueError:
        raise DataError(
            f"{name}: Frames: {header[1]} or Frame Time: {header[2]} is no number.{_comma(header[2])}"
        ) from None
    body = _NOT_A_NUMBER.sub("nan", text[header.end() :])
    words = body.split()
    try:
        values = np.array(words, np.float64)
    except ValueError:
        values = np.empty(0)
    if not width or values.size != stated * width:
        raise DataError(_wrong_values(body, stated, width, name))
    if not stated:
        raise DataError(f"{name} has no frame. Export it again with its motion.")
    return values.reshape(stated, width), rate(seconds, name)


def rate(seconds: float, name: str) -> float:
    """Frames per second of a stated frame time, whole where only rounding keeps it from being so.

    Raises:
        DataError: no such rate is recorded.
    """
    fps = 1 / seconds if seconds > 0 and np.isfinite(seconds) else 0.0
    if not 1 <= fps <= 10_000:
        raise DataError(
            f"{name}: Frame Time: {seconds:g} would be {fps:.3g} frames per second; it is the seconds between frames. "
            "Correct it, or state the rate of the files: dataset.reader_options.file_fps=30."
        )
    return float(round(fps)) if abs(fps / round(fps) - 1) < _ROUNDED else fps


def _wrong_values(body: str, stated: int, width: int, name: str) -> str:
    """Where the numbers stop being what the header says."""
    lines = [line.split() for line in body.splitlines() if line.strip()]
    for row, words in enumerate(lines):
        for word in words:
            try:
                float(word)
            except ValueError:
                return f"{name}: {word!r} in frame {row} is no number.{_comma(word)}"
        if len(words) > width or (len(words) < width and row + 1 < len(lines)):
            return (
                f"{name}: frame {row} has {len(words)} numbers, but the joints have {width} channels. "
                "Export the file again."
            )
    whole = sum(len(words) == width for words in lines)
    if whole > stated:
        return f"{name} holds {whole} frames, but says Frames: {stated}. Correct the number, or export the file again."
    return f"{name} says Frames: {stated}, but holds {whole} whole ones: it was cut off. Copy or export it again."


def _comma(word: str) -> str:
    return " Write decimal points, not commas." if "," in word else " Export the file again."
