"""Videos come frame by frame, in the size and the choice that is asked for, and say when they are none."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kinema.errors import ConfigError, DataError
from kinema.viz import clip
from kinema.viz.video import Video

pytestmark = pytest.mark.skipif(clip.ffmpeg() is None, reason="no ffmpeg on this machine")
COUNT = 23


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video whose frame n is grey of value 10 n."""
    pytest.importorskip("imageio_ffmpeg")
    path = tmp_path_factory.mktemp("video") / "grey.mp4"
    clip.write_clip(path, (np.full((48, 96, 3), 10 * number, np.uint8) for number in range(COUNT)), 30)
    return path


def values(path: Path, **options: Any) -> list[float]:
    """Mean of every picture, in frame numbers."""
    return [float(picture.mean()) / 10 for picture in Video(path).pictures(**options)]


def test_the_file_says_its_speed_size_and_length(path: Path) -> None:
    video = Video(path)
    assert video.fps == 30
    assert video.size == (96, 48)
    assert video.frames == COUNT


def test_every_frame_comes_once(path: Path) -> None:
    np.testing.assert_allclose(values(path), np.arange(COUNT), atol=0.3)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"skip": 20}, [20, 21, 22]),
        ({"skip": 2, "step": 5}, [10, 15, 20]),  # of a sequence that has every fifth frame
        ({"skip": 3, "downsample": 8}, [6.5, 14.5]),  # four are left over
        ({"skip": 1, "step": 3, "downsample": 2}, [4.5, 10.5, 16.5]),
        ({"skip": COUNT}, []),
    ],
)
def test_frames_are_skipped_thinned_and_averaged(path: Path, options: dict[str, Any], expected: list[float]) -> None:
    np.testing.assert_allclose(values(path, **options), expected, atol=0.3)


def test_pictures_come_no_larger_than_they_are_drawn(path: Path) -> None:
    assert next(Video(path).pictures()).shape == (48, 96, 3)
    assert next(Video(path).pictures(largest=32)).shape == (16, 32, 3)
    assert next(Video(path).pictures(largest=500)).shape == (48, 96, 3)


def test_an_mp4_comes_back_as_it_was_written_at_odd_sizes(tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg")
    written = [np.full((41, 61, 3), 255, np.uint8) for _ in range(5)]
    for number, picture in enumerate(written):
        picture[10:20, 5 * number : 5 * number + 10] = (200, 30, 40)
    clip.write_clip(tmp_path / "a.mp4", iter(written), 30, bitrate=2000)
    video = Video(tmp_path / "a.mp4")
    assert video.size == (62, 42)
    found = list(video.pictures())
    assert len(found) == 5
    for picture, expected in zip(found, written, strict=True):
        assert np.abs(picture[:41, :61].astype(int) - expected).mean() < 6


def test_a_file_that_breaks_off_ends_there(tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg")
    whole, broken = tmp_path / "a.mp4", tmp_path / "broken.mkv"
    noise = np.random.default_rng(0)
    clip.write_clip(whole, (noise.integers(0, 255, (64, 64, 3), np.uint8) for _ in range(40)), 20)
    convert(whole, broken)
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    assert 0 < len(list(Video(broken).pictures())) < 40


def convert(source: Path, target: Path) -> None:
    """Copy into another container, whose index is not at the end."""
    import subprocess

    subprocess.run([clip.ffmpeg() or "", "-loglevel", "error", "-i", source, "-c", "copy", target], check=True)


def test_what_is_no_video_is_named(tmp_path: Path, path: Path) -> None:
    with pytest.raises(DataError, match="There is no video"):
        Video(tmp_path / "none.mp4")
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(DataError, match="cannot be read as a video"):
        Video(tmp_path / "text.mp4")
    (tmp_path / "cut.mp4").write_bytes(path.read_bytes()[:200])  # the index at its end is gone
    with pytest.raises(DataError, match="cannot be read as a video"):
        Video(tmp_path / "cut.mp4")


def test_without_the_extra_the_remedy_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *args: Any, **options: Any) -> Any:
        if name == "imageio_ffmpeg":
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ConfigError, match=r"pip install 'kinema\[video\]', or drop render\.video"):
        Video(path)
