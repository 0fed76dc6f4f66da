"""Reader of clips in the MA-52 layout: one folder per clip with `pose_3d.npy` (T, 17, 3), and a label list per split.

The same layout serves the fork shanaka95/MotionBERTForMicroActions (`train`, `test`, `<split>_labels.txt`), the
official lists of MA-52 (`train`, `val`, `test`, `<split>_list_videos.txt`, the test labels withheld) and the CMU action
clips. Clips lie in a folder per split or all together; then the lists say what belongs where.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kinema.data.class_list import class_list
from kinema.data.clip_rows import ClipOptions, clip_rows, clip_store
from kinema.data.findings import Finding, count, first
from kinema.data.raw import Report, load_array, one_of, raise_fault
from kinema.data.sequences import Sequences
from kinema.errors import ConfigError, DataError

log = logging.getLogger(__name__)

# Raised when the result of `read` changes: part of the cache's key.
VERSION = 1

SPLITS = ("train", "val", "test")
LISTS = ("{}_labels.txt", "{}_list_videos.txt", "{}_list.txt")
FOLDERS = ("{}", "videos_{}")
# The official test list gives every clip the id 0: the labels are on the benchmark's server.
_WITHHELD = re.compile(r"test\d+")


@dataclass(frozen=True)
class Options(ClipOptions):
    """Options of this reader, as in `dataset.reader_options`, beside those of every reader of clips.

    Attributes:
        splits: those to read where they are there; at least one must be.
        file: name of the array in a clip's folder.
        missing: labels without a clip, and folders without the array: "error" or "drop".
        disputed: clips that a list gives two ids: "error", or "last": the later one counts.
        withheld: splits whose labels mean nothing; None = the official test list, in which all of them are 0.
        subject: regular expression whose first group in the clip's name is the person; None = unknown.
        segments: optional file beside the splits: split -> clip -> subject, name (of the recording), person, frames.
        fps: frames per second, None = unknown.
    """

    splits: tuple[str, ...] = SPLITS
    file: str = "pose_3d.npy"
    missing: str = "error"
    disputed: str = "error"
    withheld: tuple[str, ...] | None = None
    subject: str | None = None
    segments: str | None = None
    fps: float | None = None

    @classmethod
    def checked(cls, options: Mapping[str, Any]) -> Options:
        """Check names and values."""
        made = cls.parse("ma52", options)
        one_of("missing", made.missing, ("error", "drop"))
        one_of("disputed", made.disputed, ("error", "last"))
        subject_pattern(made.subject)
        return made


def subject_pattern(text: str | None) -> re.Pattern[str] | None:
    """The regular expression whose first group in a clip's name is the person.

    Raises:
        ConfigError: it is none.
    """
    if text is None:
        return None
    example = r"For example dataset.reader_options.subject='(\d+)_'."
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise ConfigError(
            f"dataset.reader_options.subject={text} is no regular expression: {error}. {example}"
        ) from error
    if not pattern.groups:
        raise ConfigError(f"dataset.reader_options.subject={text} has no group that is the person. {example}")
    return pattern


@dataclass(frozen=True)
class Labels:
    """One label list.

    Attributes:
        ids: clip to id, in the list's order; a later line wins.
        repeated: clips that stand there more than once.
        disputed: those of them with two ids.
        broken: "line n: text" of lines that say nothing.
    """

    ids: dict[str, int]
    repeated: tuple[str, ...] = ()
    disputed: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()

    @property
    def withheld(self) -> bool:
        """Whether this is the official test list."""
        return bool(self.ids) and not any(self.ids.values()) and all(_WITHHELD.fullmatch(clip) for clip in self.ids)


@dataclass(frozen=True)
class Split:
    """What there is of one split.

    Attributes:
        name: "train", "val", "test"; "" for clips that lie together and stand in no list.
        listed: label list, or None.
        labels: its contents; empty where there is no list.
        clips: clip to file of its array, sorted by name.
        bare: folders without the array.
        flat: whether all splits lie together.
    """

    name: str
    listed: Path | None
    labels: Labels
    clips: dict[str, Path]
    bare: tuple[str, ...] = ()
    flat: bool = False

    @property
    def ghosts(self) -> list[str]:
        """Labels without a clip's folder or file."""
        return [clip for clip in self.labels.ids if clip not in self.clips and clip not in self.bare]


def describe() -> str:
    """One paragraph about the format."""
    return (
        "Action clips in the MA-52 layout: <split>/<clip>/pose_3d.npy (T, 17, 3) and <split>_labels.txt "
        "(name id) or the official <split>_list_videos.txt; splits in folders of their own or all together."
    )


def read_labels(path: Path) -> Labels:
    """Read a label list: `name id`, further words and lines of one word ignored, `.mp4` cut off.

    Raises:
        DataError: for an id that is no number.
    """
    ids: dict[str, int] = {}
    repeated: list[str] = []
    disputed: list[str] = []
    broken: list[str] = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        words = line.split()
        if len(words) < 2:
            broken += [f"line {number}: {line.strip()}"] * bool(words)
            continue
        clip = words[0].replace(".mp4", "")
        try:
            label = int(words[1])
        except ValueError as error:
            raise DataError(
                f"{path}, line {number}: {words[1]!r} is no class id. Every line is `name id`, with ids from 0."
            ) from error
        if clip in ids:
            repeated.append(clip)
            disputed += [clip] * (ids[clip] != label)
        ids[clip] = label
    return Labels(ids, tuple(dict.fromkeys(repeated)), tuple(dict.fromkeys(disputed)), tuple(broken))


def layout(root: Path, options: Options) -> list[Split]:
    """Find splits, lists and clips without opening an array.

    Raises:
        DataError: where there is no split; says where to get the data.
    """
    found, together = [], None
    for name in options.splits:
        listed = next((root / form.format(name) for form in LISTS if (root / form.format(name)).is_file()), None)
        folder = next((root / form.format(name) for form in FOLDERS if (root / form.format(name)).is_dir()), None)
        if listed is None and folder is None:
            continue
        labels = Labels({}) if listed is None else read_labels(listed)
        if folder is None:
            together = _scan(root, options.file) if together is None else together
            clips = {clip: together[0][clip] for clip in sorted(labels.ids) if clip in together[0]}
            bare = tuple(clip for clip in together[1] if clip in labels.ids)
            found.append(Split(name, listed, labels, clips, bare, flat=True))
        else:
            clips, bare = _scan(folder, options.file)
            found.append(Split(name, listed, labels, clips, bare))
    if not any(split.clips for split in found):
        raise DataError(
            f"No clips found in {root}: expected {options.splits[0]}/<clip>/{options.file} and "
            f"{options.splits[0]}_labels.txt. {options.source} If they are elsewhere: dataset.root=/where/it/is."
        )
    if together is not None:
        listed_clips = {clip for split in found for clip in split.labels.ids}
        left = {clip: path for clip, path in together[0].items() if clip not in listed_clips}
        if left:
            found.append(Split("", None, Labels({}), left, flat=True))
    return found


def _scan(folder: Path, file: str) -> tuple[dict[str, Path], tuple[str, ...]]:
    """Clips of a folder, `<clip>/<file>` or `<clip>.npy`, and the folders that hold neither."""
    clips: dict[str, Path] = {}
    bare = []
    names = {f"{form.format(split)}" for split in SPLITS for form in FOLDERS}
    for path in sorted(path for path in folder.iterdir() if not path.name.startswith(".")):
        if path.is_dir():
            if (path / file).is_file():
                clips[path.name] = path / file
            elif path.name not in names:
                bare.append(path.name)
        elif path.suffix == ".npy":
            clips.setdefault(path.stem, path)
    return dict(sorted(clips.items())), tuple(bare)


def files(root: Path, **options: Any) -> list[Path]:
    """Raw files that `read` opens.

    Raises:
        DataError: there are no clips.
    """
    chosen = Options.checked(options)
    root = Path(root)
    splits = layout(root, chosen)
    extra = [root / name for name in (chosen.segments, "class_names.json") if name and (root / name).is_file()]
    lists = [split.listed for split in splits if split.listed is not None]
    return [*chosen.class_files, *extra, *lists, *(path for split in splits for path in split.clips.values())]


def read(root: Path, *, report: Report = raise_fault, **options: Any) -> Sequences:
    """Read every clip of every split.

    Args:
        root: folder of the splits.
        report: takes faults; by default the first one stops.
        options: see `Options`.

    Raises:
        DataError: nothing usable is there, or the first fault.
    """
    chosen = Options.checked(options)
    root = Path(root)
    splits = layout(root, chosen)
    _refuse_other_classes(root, chosen, report)
    segments = _segments(root, chosen)
    subject = subject_pattern(chosen.subject)
    rows: list[dict[str, Any]] = []
    dropped: list[str] = []
    for split in splits:
        _refuse_strays(split, chosen, report)
        withheld = split.labels.withheld if chosen.withheld is None else split.name in chosen.withheld
        for clip, path in split.clips.items():
            label = split.labels.ids.get(clip)
            if label is None and chosen.unlabeled == "drop":
                dropped.append(clip)
                continue
            if label is not None and label < 0 and not withheld:
                report(_negative(clip, label, split))
                continue
            try:
                keypoints = load_array(path)
            except DataError as error:
                report(error)
                continue
            match = subject.match(clip) if subject else None
            known = segments.get(split.name, {}).get(clip, {"subject": match.group(1) if match else ""})
            rows += clip_rows(
                clip=clip,
                keypoints=keypoints[None] if keypoints.ndim == 3 else keypoints,
                label=-1 if withheld and label is not None else label,
                split=split.name,
                options=chosen,
                report=report,
                subject=known["subject"],
                trial=known.get("trial"),
                first=known.get("first", 0),
                fps=chosen.fps,
            )
    if dropped:
        log.warning("No label found for %s; left out.", first(dropped))
    return clip_store(rows, chosen)


def notes(root: Path, **options: Any) -> Iterator[Finding]:
    """What the doctor wants to know about folders and lists before any array is opened."""
    chosen = Options.checked(options)
    for split in layout(Path(root), chosen):
        labels, folders = split.labels, len(split.clips) + len(split.bare)
        name = split.name or "in no list"
        labelled = sum(clip in labels.ids for clip in split.clips)
        text = f"{name}: {count(folders, 'folder')}, {len(split.clips)} with {chosen.file}, {labelled} of them labelled"
        yield Finding("ok", "layout", text + ", all splits in one folder" * split.flat)
        if labels.withheld and chosen.withheld is None:
            yield Finding("ok", "labels", f"{name}: every label is 0: the official list, whose labels are withheld")
        if labels.repeated:
            twice = (
                f"{name}: {count(len(labels.repeated), 'clip')} listed more than once: {first(list(labels.repeated))}"
            )
            yield Finding("warning", "labels", twice, "The last line counts; remove the others.")
        if labels.broken:
            yield Finding(
                "warning", "labels", f"{name}: {count(len(labels.broken), 'line')} without a label: "
                + first(list(labels.broken)), "A line is `clip id`; others are passed over.",
            )  # fmt: skip
        bare = [f"{split.name}/{clip}" for clip in split.bare]
        for names, what in ((split.ghosts, "label without a clip"), (bare, f"folder without {chosen.file}")):
            if names and chosen.missing == "drop":
                yield Finding(
                    "warning", "layout", f"{name}: {len(names)} x {what}: {first(sorted(names))}", "They are left out."
                )
        alone = [clip for clip in split.clips if clip not in labels.ids]
        if alone and chosen.unlabeled == "drop":
            yield Finding("warning", "layout", f"{name}: {len(alone)} x clip without a label: {first(alone)}",
                          "They are left out.")  # fmt: skip


def _negative(clip: str, label: int, split: Split) -> DataError:
    return DataError(
        f"Clip {clip} has label {label}; ids count from 0. Correct the label list; where the labels of a split are "
        f"withheld: dataset.reader_options.withheld=[{split.name}]."
    )


def _refuse_strays(split: Split, options: Options, report: Report) -> None:
    """Labels without clip, two labels of a clip, folders without array, and a split without list."""
    if split.name and split.listed is None and options.unlabeled == "error":
        report(
            DataError(
                f"There is no label list for {split.name}: {LISTS[0].format(split.name)} not found beside it. Write "
                "one `clip id` per line."
            )
        )
    where = split.listed.name if split.listed is not None else ""
    for clip in split.labels.disputed if options.disputed == "error" else ():
        report(
            DataError(
                f"{where} gives {clip} two different ids. Give every clip one, or let the later line count: "
                "dataset.reader_options.disputed=last."
            )
        )
    if options.missing == "drop":
        return
    for clip in split.ghosts:
        report(
            DataError(
                f"{where} gives {clip} a label, but there is no such clip. Put {clip}/{options.file} there, or ignore "
                "such lines: dataset.reader_options.missing=drop."
            )
        )
    for clip in split.bare:
        report(
            DataError(
                f"The folder {split.name}/{clip} holds no {options.file}. Put it there, or ignore such folders: "
                "dataset.reader_options.missing=drop."
            )
        )


def _refuse_other_classes(root: Path, options: Options, report: Report) -> None:
    """The data's own class_names.json must agree with the class list of the configuration."""
    path = root / "class_names.json"
    if not path.is_file():
        return
    own = class_list(path)
    if own.names != options.class_list.names:
        differ = [
            f"{i} is {a!r} there and {b!r} here"
            for i, (a, b) in enumerate(zip(own.names, options.class_list.names, strict=False))
            if a != b
        ]
        what = differ[0] if differ else f"{len(own)} classes there, {len(options.class_list)} here"
        report(
            DataError(
                f"{path} is another class list than dataset.classes: {what}. "
                f"Use dataset.classes={path} dataset.num_classes={len(own)}."
            )
        )


def _segments(root: Path, options: Options) -> dict[str, dict[str, dict[str, Any]]]:
    """Person, recording and first frame of the clips, where a file says so."""
    path = root / options.segments if options.segments else None
    if path is None or not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return {
            split: {
                clip: {
                    "subject": str(entry.get("person", entry["subject"])),
                    "trial": f"{entry['subject']}/{entry['name']}",
                    "first": int(entry["frames"][0]),
                }
                for clip, entry in clips.items()
            }
            for split, clips in values.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise DataError(
            f"{path} is not as expected: {error!r}. It holds split -> clip -> subject, name, person, frames; without "
            "it: dataset.reader_options.segments=null."
        ) from error
