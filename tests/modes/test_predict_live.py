"""mode=predict with input=-: lines equal arrays, and every way in which a stream may end."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kinema.composition import compose
from kinema.errors import DataError
from kinema.modes import predict
from tests.checkpoints import tiny
from tests.modes.test_predict import NETWORKS, REPOSITORY, keypoints, predicted, words


def test_a_live_stream_answers_every_line_at_once(tmp_path: Path) -> None:
    path = tiny.save(tiny.lightning(tiny.build("poseformer", **NETWORKS["poseformer"])), tmp_path / "p.ckpt")
    points = keypoints(12)
    source = tmp_path / "walk.npy"
    np.save(source, points)
    expected = predicted(tmp_path, path, source, "predict.look_ahead=1")
    process = subprocess.Popen(
        [sys.executable, str(REPOSITORY / "run.py"), *words(tmp_path, path, "-", "predict.look_ahead=1"),
         f"hydra.run.dir={tmp_path / 'live'}"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
    )  # fmt: skip
    try:
        assert process.stdin is not None and process.stdout is not None
        found = []
        for number, frame in enumerate(points):
            process.stdin.write(json.dumps(frame.tolist()) + "\n")
            process.stdin.flush()
            if number >= 1:  # the answer comes before the next frame is sent
                found.append(json.loads(process.stdout.readline()))
        rest, log = process.communicate(timeout=60)
    finally:
        process.kill()
    found += [json.loads(line) for line in rest.splitlines()]
    assert process.returncode == 0, log
    assert [entry["frame"] for entry in found] == list(range(12))
    np.testing.assert_allclose([entry["pose3d"] for entry in found], expected, rtol=1e-4, atol=2e-6)
    assert "12 frames one by one" in log and "camera: x right" in log


def test_an_empty_stdin_gives_no_poses(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = tiny.save(tiny.lightning(tiny.build("poseformer", **NETWORKS["poseformer"])), tmp_path / "p.ckpt")
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    with caplog.at_level("INFO"):
        predict.run(compose(words(tmp_path, path, "-")))
    assert capsys.readouterr().out == "" and "0 frames one by one" in caplog.text


@pytest.mark.parametrize("wrong", ["NaN", "1e30", "1e300"])
def test_an_absurd_number_on_stdin_is_named_by_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], wrong: str
) -> None:
    path = tiny.save(tiny.lightning(tiny.build("poseformer", **NETWORKS["poseformer"])), tmp_path / "p.ckpt")
    good = json.dumps(keypoints(1)[0].tolist())
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{good}\n{good[: good.rindex(',')]}, {wrong}]]\n{good}\n"))
    with pytest.raises(DataError, match="stdin, line 2: a number that is not finite, or beyond"):
        predict.run(compose(words(tmp_path, path, "-", "predict.look_ahead=0")))
    (line,) = capsys.readouterr().out.splitlines()
    assert np.isfinite(json.loads(line)["pose3d"]).all()


LIVE = """
import logging, sys
from kinema.composition import compose
from kinema.modes import predict

logging.basicConfig(level="INFO")
predict.run(compose(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_reader_that_goes_ends_the_stream_quietly(tmp_path: Path) -> None:
    path = tiny.save(tiny.lightning(tiny.build("poseformer", **NETWORKS["poseformer"])), tmp_path / "p.ckpt")
    process = subprocess.Popen(
        [sys.executable, "-c", LIVE, *words(tmp_path, path, "-", "predict.look_ahead=0")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
    )  # fmt: skip
    line = json.dumps(keypoints(1)[0].tolist()) + "\n"
    try:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        process.stdin.write(line)
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["frame"] == 0
        process.stdout.close()
        process.stdin.write(line)
        process.stdin.flush()  # stdin stays open: the missing reader alone ends the stream
        process.wait(timeout=60)
        log = process.stderr.read()
    finally:
        process.kill()
    assert process.returncode == 0, log
    assert "the reader of the poses has gone" in log
    assert "Traceback" not in log and "Exception ignored" not in log
