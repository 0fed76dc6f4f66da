"""Clips are complete, play at the right speed, and need no more memory when they are long."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kinema.errors import ConfigError, DataError
from kinema.viz import clip
from kinema.viz.clip import write_clip


def pictures(count: int, height: int = 40, width: int = 60) -> Iterator[np.ndarray]:
    """A red square that moves over a white ground, by one pixel a frame."""
    for number in range(count):
        picture = np.full((height, width, 3), 255, np.uint8)
        left = number % (width - 10)
        picture[10:20, left : left + 10] = (200, 30, 40)
        yield picture


def frames_of(path: Path) -> tuple[list[np.ndarray], list[float]]:
    with Image.open(path) as image:
        shown, delays = [], []
        for number in range(image.n_frames):  # type: ignore[attr-defined]
            image.seek(number)
            shown.append(np.asarray(image.convert("RGB")).astype(int))
            delays.append(image.info["duration"])
    return shown, delays


def test_a_gif_shows_every_frame_as_it_was_drawn(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    assert write_clip(path, pictures(12), 25) == 12
    shown, delays = frames_of(path)
    assert len(shown) == 12
    assert delays == [40] * 12
    for found, expected in zip(shown, pictures(12), strict=True):
        assert np.abs(found - expected).max() <= 3
        assert (found[0] == 255).all()  # the ground is not tinted


def test_a_gif_loops_for_ever(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.gif", pictures(3), 10)
    with Image.open(tmp_path / "a.gif") as image:
        assert image.info["loop"] == 0


@pytest.mark.parametrize("fps", [7.0, 12.0, 24.0, 29.97, 30.0, 50.0])
def test_a_gif_plays_at_its_speed_although_delays_are_hundredths(tmp_path: Path, fps: float) -> None:
    write_clip(tmp_path / "a.gif", pictures(60), fps)
    _, delays = frames_of(tmp_path / "a.gif")
    assert sum(delays) == pytest.approx(60_000 / fps, abs=10)


def test_a_gif_faster_than_programs_play_leaves_frames_out_and_keeps_its_length(tmp_path: Path) -> None:
    assert write_clip(tmp_path / "a.gif", pictures(120), 120) == 120
    _, delays = frames_of(tmp_path / "a.gif")
    assert min(delays) >= 20
    assert sum(delays) == pytest.approx(1000, abs=20)


def test_frames_that_do_not_change_keep_their_time(tmp_path: Path) -> None:
    still = [next(pictures(1))] * 5
    write_clip(tmp_path / "a.gif", iter(still), 10)
    shown, delays = frames_of(tmp_path / "a.gif")
    assert sum(delays) == 500
    assert all((frame == shown[0]).all() for frame in shown)


@pytest.mark.parametrize("ending", [".gif", ".mp4"])
def test_memory_does_not_grow_with_the_length(tmp_path: Path, ending: str) -> None:
    if ending == ".mp4" and clip.ffmpeg() is None:
        pytest.skip("no ffmpeg on this machine")
    write_clip(tmp_path / f"warm{ending}", pictures(2), 25)
    peaks = []
    for count in (30, 150):
        tracemalloc.start()
        write_clip(tmp_path / f"{count}{ending}", pictures(count, 240, 320), 25)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 240 * 320 * 3


def test_a_failed_writer_leaves_the_old_file_and_no_scrap(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    write_clip(path, pictures(3), 10)
    before = path.read_bytes()

    def broken() -> Iterator[np.ndarray]:
        yield from pictures(2)
        raise RuntimeError("the network failed")

    with pytest.raises(RuntimeError, match="network"):
        write_clip(path, broken(), 10)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.gif"]


@pytest.mark.parametrize(
    ("name", "count", "fps", "error", "message"),
    [
        ("a.avi", 3, 10, ConfigError, r"a\.avi ends in \.avi\. Pictures can be \.gif, \.mp4, \.png"),
        ("a.png", 3, 10, ConfigError, "still picture"),
        ("a.gif", 0, 10, DataError, "no frame to write"),
        ("a.gif", 3, 0, ConfigError, "positive number"),
    ],
)
def test_what_cannot_be_written_is_refused(
    tmp_path: Path, name: str, count: int, fps: float, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        write_clip(tmp_path / name, pictures(count), fps)
    assert not list(tmp_path.iterdir())


def test_mp4_without_ffmpeg_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip, "ffmpeg", lambda: None)
    with pytest.raises(ConfigError, match=r"or write a \.gif"):
        write_clip(tmp_path / "a.mp4", pictures(2), 10)


def test_ffmpeg_tells_why_it_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\necho 'Unknown encoder h264' >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setattr(clip, "ffmpeg", lambda: str(program))
    with pytest.raises(DataError, match=r"could not write .*a\.mp4: Unknown encoder h264"):
        write_clip(tmp_path / "a.mp4", pictures(400), 10)


def test_a_single_frame_faster_than_programs_play_is_still_written(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.gif", pictures(1), 120)
    shown, delays = frames_of(tmp_path / "a.gif")
    assert len(shown) == 1 and delays == [20]


def test_an_error_while_a_clip_is_open_stops_ffmpeg_and_leaves_nothing(tmp_path: Path) -> None:
    if clip.ffmpeg() is None:
        pytest.skip("no ffmpeg on this machine")
    with pytest.raises(KeyError), clip.opened(tmp_path / "a.mp4", 25) as add:
        add(next(pictures(1)))
        raise KeyError("gone")
    assert not list(tmp_path.iterdir())
