"""mode=predict: blocks equal whole videos in the file as in memory, streams equal streams, lines equal arrays."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from kinema import composition
from kinema.composition import compose
from kinema.core.skeleton import skeleton
from kinema.data.readers import keypoint_file
from kinema.errors import ConfigError, DataError
from kinema.modes import predict
from kinema.modes.train import build
from tests.checkpoints import tiny
from tests.inference.test_stream import Recurrent, streamed

REPOSITORY = Path(__file__).resolve().parents[2]
SIZE = {"num_joints": 17}
NETWORKS: dict[str, dict[str, Any]] = {
    "dstformer": SIZE | {"in_channels": 2, "num_frames": 9},
    "poseformer": SIZE | {"num_frames": 5},
    "videopose3d": SIZE | {"num_joints_out": 17},
}
BODY = skeleton("h36m17")


@pytest.fixture(scope="module", params=NETWORKS)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = tiny.build(request.param, **NETWORKS[request.param])
    return tiny.save(tiny.lightning(model), tmp_path_factory.mktemp("checkpoint") / f"{request.param}.ckpt")


def keypoints(length: int, joints: int = 17, seed: int = 0) -> np.ndarray:
    """Pixels of a wandering person (T, J, 2) float32."""
    steps = np.random.default_rng(seed).normal(0, 3, (length, joints, 2)).cumsum(0)
    return (steps % 600 + 200).astype(np.float32)


def words(tmp_path: Path, checkpoint: Path, source: Path | str, *overrides: str) -> list[str]:
    return [
        "mode=predict", "dataset=custom", f"ckpt={checkpoint}", f"input={source}", "predict.width=1000",
        "predict.height=1000", "task.chunk=40", f"paths.output_dir={tmp_path / 'run'}", *overrides,
    ]  # fmt: skip


def predicted(tmp_path: Path, checkpoint: Path, source: Path, *overrides: str) -> np.ndarray:
    output = tmp_path / "out.npz"
    predict.run(compose(words(tmp_path, checkpoint, source, f"predict.output={output}", *overrides)))
    with np.load(output) as file:
        (name,) = [name for name in file.files if name.startswith("pose3d/")]
        return np.asarray(file[name])


def whole(tmp_path: Path, checkpoint: Path, source: Path, *overrides: str, **options: Any) -> torch.Tensor:
    """The whole video in one call of the task."""
    config = compose(words(tmp_path, checkpoint, source, *overrides))
    _, data, task = build(config)
    task.model.eval()
    made = keypoint_file.read(
        source, layout="h36m17", skeleton2d=BODY, preprocessing="videopose3d", width=1000, height=1000, track=None,
        fps=None,
    )  # fmt: skip
    block = predict.Block(0, made.num_frames)
    batch = predict.Source(made).batch(0, block, 0, task.model.signature.context)
    with torch.inference_mode():
        return task.predict(data.transform(batch), **options)[0]


@pytest.mark.parametrize("length", [1, 7, 40, 211])
def test_a_video_in_blocks_is_the_whole_video_bit_by_bit(tmp_path: Path, checkpoint: Path, length: int) -> None:
    source = tmp_path / "walk.npy"
    np.save(source, keypoints(length))
    found = predicted(tmp_path, checkpoint, source)
    assert found.shape == (length, 17, 3) and found.dtype == np.float32
    assert np.array_equal(found, whole(tmp_path, checkpoint, source).numpy())


@pytest.mark.parametrize("join", ["mean", "blend", "centre"])
def test_overlapping_clips_are_joined_across_blocks(tmp_path: Path, join: str) -> None:
    path = tiny.save(tiny.lightning(tiny.build("dstformer", **NETWORKS["dstformer"])), tmp_path / "dstformer.ckpt")
    source = tmp_path / "walk.npy"
    np.save(source, keypoints(123))
    found = predicted(tmp_path, path, source, "predict.overlap=5", f"predict.join={join}")
    expected = whole(tmp_path, path, source, overlap=5, join=join)
    torch.testing.assert_close(torch.from_numpy(found), expected)
    assert not np.array_equal(found, predicted(tmp_path, path, source))


def test_a_sequence_of_a_data_set_is_read_in_blocks(tmp_path: Path, checkpoint: Path) -> None:
    base = [
        "mode=predict", "dataset=synthetic", "dataset.reader_options.frames=90", f"ckpt={checkpoint}",
        "dataset.reader_options.actions=[walk]", "dataset.cache_dir=null", f"paths.output_dir={tmp_path / 'run'}",
    ]  # fmt: skip
    outputs = []
    for chunk in (30, 4096):
        output = tmp_path / f"{chunk}.npz"
        predict.run(compose([*base, f"task.chunk={chunk}", f"predict.output={output}"]))
        with np.load(output) as file:
            outputs.append({name: file[name] for name in file.files})
    assert len(outputs[0]) == 9  # two subjects in front of four cameras, and what the numbers mean
    assert json.loads(str(outputs[0]["meta"]))["unit"] == "metres"
    for name in (name for name in outputs[0] if name != "meta"):
        np.testing.assert_allclose(outputs[0][name], outputs[1][name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("flip", [True, False])
def test_a_causal_network_keeps_its_state_from_block_to_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flip: bool
) -> None:
    model = Recurrent().float().eval()
    source = tmp_path / "walk.npy"
    np.save(source, keypoints(150))
    path = tiny.save(tiny.lightning(tiny.build("videopose3d", **NETWORKS["videopose3d"])), tmp_path / "any.ckpt")

    def fake(config: Any) -> tuple[nn.Module, Any, Any]:
        data, task = composition.build_data(config, model.signature), composition.build_task(config, model)
        task.describe(spec=data.spec.to_dict(), config=composition.plain(config))
        return model, data, task

    monkeypatch.setattr(predict, "build", fake)
    monkeypatch.setattr(sys.modules[__name__], "build", fake)
    averaged = f"task.flip_average={str(flip).lower()}"
    found = predicted(tmp_path, path, source, averaged)
    assert max(model.passes) == 40
    expected = whole(tmp_path, path, source, averaged).numpy()
    assert np.array_equal(found, expected)
    by_frame = predicted(tmp_path, path, source, averaged, "predict.stream=true")
    np.testing.assert_allclose(by_frame, expected, rtol=1e-5, atol=1e-6)


def test_frame_by_frame_is_the_stream_of_the_task(
    tmp_path: Path, checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = tmp_path / "walk.npy"
    np.save(source, keypoints(300))
    with caplog.at_level("INFO"):
        found = predicted(tmp_path, checkpoint, source, "predict.look_ahead=1")
    assert (
        "300 frames one by one" in caplog.text and "ms per frame" in caplog.text and "latency 1 frames" in caplog.text
    )
    _, data, task = build(compose(words(tmp_path, checkpoint, source)))
    task.model.eval()
    pose = torch.from_numpy(keypoints(300))[None] / 500 - 1
    expected = streamed(
        task.stream(look_ahead=1), data.transform({"pose2d": pose, "draw": torch.zeros(1).long()})["pose"]
    )
    np.testing.assert_allclose(found, expected[0].numpy(), rtol=1e-4, atol=1e-5)


def test_points_of_another_layout_and_type_are_converted_block_by_block(tmp_path: Path, checkpoint: Path) -> None:
    points = keypoints(100).astype(np.float64)
    for name, content in (("whole.npz", None), ("mapped.npy", points), ("columns.npy", np.asfortranarray(points))):
        if content is None:
            np.savez(tmp_path / name, walk=points)
        else:
            np.save(tmp_path / name, content)
    found = [
        predicted(tmp_path, checkpoint, tmp_path / name, "predict.layout=coco17")
        for name in ("whole.npz", "mapped.npy", "columns.npy")
    ]
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])


@pytest.mark.parametrize(
    ("points", "sentence"),
    [
        (np.where(np.arange(9000)[:, None, None] == 8999, np.nan, keypoints(9000)), "1 of 9000 .* .first 8999"),
        (keypoints(10) / 1000, "normalised coordinates"),
        (keypoints(0), "holds no frames"),
        (keypoints(10, joints=16), "17 expected"),
        (keypoints(10)[..., 0], "shape"),
    ],
)  # fmt: skip
def test_faults_of_a_mapped_file_are_named(tmp_path: Path, points: np.ndarray, sentence: str) -> None:
    path = tiny.save(tiny.lightning(tiny.build("videopose3d", **NETWORKS["videopose3d"])), tmp_path / "v.ckpt")
    source = tmp_path / "bad.npy"
    np.save(source, points)
    with pytest.raises(DataError, match=sentence):
        predicted(tmp_path, path, source)
    assert not (tmp_path / "out.npz").exists()


def test_options_that_exclude_each_other_are_refused(tmp_path: Path, checkpoint: Path) -> None:
    source = tmp_path / "walk.npy"
    np.save(source, keypoints(20))
    with pytest.raises(ConfigError, match="Leave them out"):
        predicted(tmp_path, checkpoint, source, "predict.stream=true", "predict.overlap=2")
    with pytest.raises(ConfigError, match=r"predict\.width=1920"):
        predict.run(compose(words(tmp_path, checkpoint, "-", "predict.width=null")))


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


# What a process holds for itself: pages of mapped files are the kernel's, which drops them when it needs room.
MEASURED = """
import sys, threading, time
import torch
from kinema.composition import compose
from kinema.modes import predict

def anonymous():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon")) / 1024

peak, ended = 0.0, threading.Event()
def watch():
    global peak
    while not ended.is_set():
        peak = max(peak, anonymous())
        time.sleep(0.002)

torch.set_num_threads(1)
thread = threading.Thread(target=watch, daemon=True)
thread.start()
predict.run(compose(sys.argv[1:]))
ended.set()
thread.join()
print(peak)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of a process from /proc (Linux)")
def test_memory_does_not_grow_with_the_video(tmp_path: Path) -> None:
    model = tiny.build("dstformer", **NETWORKS["dstformer"], depth=1, dim=4)
    path = tiny.save(tiny.lightning(model), tmp_path / "d.ckpt")
    peaks = []
    for length in (3_000, 60_000):
        source = tmp_path / f"{length}.npy"
        np.save(source, keypoints(length))
        arguments = words(tmp_path, path, source, "task.chunk=512")
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, *arguments],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
            timeout=120,
        )
        peaks.append(float(done.stdout.split()[-1]))
    # 57,000 more frames are 11 MB of output and 8 MB of input, in one copy each.
    assert abs(peaks[1] - peaks[0]) < 6, peaks
