"""mode=predict: blocks equal whole videos in the file as in memory, streams equal streams."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from kinema import composition
from kinema.composition import compose
from kinema.core.skeleton import skeleton
from kinema.data.readers import detections
from kinema.data.readers.detections.conversion import Conversion
from kinema.errors import ConfigError, DataError
from kinema.inference.slide import Block
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
        "predict.height=1000", "predict.check=false", "task.chunk=40",
        f"paths.output_dir={tmp_path / 'run'}", *overrides,
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
    conversion = predict.conversion_of(config, data)
    made = detections.read(source, conversion, detections.Options(check=False))
    block = Block(0, made.num_frames)
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
        (keypoints(10) / 1000, "normalised coordinates"),
        (keypoints(10) * 1e6, "no image is that large"),
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
        predicted(tmp_path, path, source, "predict.check=true")
    assert not (tmp_path / "out.npz").exists()


def test_a_mapped_file_with_gaps_is_read_whole(tmp_path: Path, checkpoint: Path) -> None:
    points = keypoints(5000)
    points[4999] = np.nan
    np.save(tmp_path / "lost.npy", points)
    points[4999] = points[4998]
    np.save(tmp_path / "held.npy", points)
    found = [predicted(tmp_path, checkpoint, tmp_path / name)[-50:] for name in ("lost.npy", "held.npy")]
    assert np.array_equal(found[0], found[1])


def test_an_archive_without_frames_is_named(tmp_path: Path) -> None:
    path = tiny.save(tiny.lightning(tiny.build("videopose3d", **NETWORKS["videopose3d"])), tmp_path / "v.ckpt")
    source = tmp_path / "bad.npz"
    for content, sentence in (({"walk": keypoints(0)}, "walk holds no frames"), ({}, "holds no sequences")):
        np.savez(source, **content)
        with pytest.raises(DataError, match=sentence):
            predicted(tmp_path, path, source)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failed_prediction_leaves_the_file_of_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    path = tiny.save(tiny.lightning(tiny.build("videopose3d", **NETWORKS["videopose3d"])), tmp_path / "v.ckpt")
    source, output = tmp_path / "walk.npy", tmp_path / "out.npz"
    np.save(source, keypoints(100))
    predicted(tmp_path, path, source)
    before, names = output.read_bytes(), {file.name for file in tmp_path.iterdir()}
    seen = set()
    blocks = predict.Lifter.blocks

    def fails(*arguments: Any) -> Iterator[np.ndarray]:
        for part in blocks(*arguments):
            yield part
            seen.update(file.name for file in tmp_path.iterdir())
            raise error("in the middle of the file")

    monkeypatch.setattr(predict.Lifter, "blocks", fails)
    with pytest.raises((RuntimeError, KeyboardInterrupt, SystemExit)):
        predicted(tmp_path, path, source)
    assert seen - names == {".out.npz.writing"}
    assert {file.name for file in tmp_path.iterdir()} == names
    assert output.read_bytes() == before


def test_a_look_ahead_is_refused_before_the_input_is_read(tmp_path: Path, checkpoint: Path) -> None:
    for wrong in ("-1", "1.5", "1000"):
        with pytest.raises(ConfigError, match=rf"look_ahead={wrong}\b.* Use predict\.look_ahead=\d"):
            predicted(tmp_path, checkpoint, tmp_path / "missing.npy", f"predict.look_ahead={wrong}")


def test_options_that_exclude_each_other_are_refused(tmp_path: Path, checkpoint: Path) -> None:
    source = tmp_path / "walk.npy"
    np.save(source, keypoints(20))
    with pytest.raises(ConfigError, match="Leave them out"):
        predicted(tmp_path, checkpoint, source, "predict.stream=true", "predict.overlap=2")
    with pytest.raises(ConfigError, match=r"predict\.width=1920"):
        predict.run(compose(words(tmp_path, checkpoint, "-", "predict.width=null")))


def _held(folder: Path) -> list[int]:
    """Bytes of arrays and tensors after 12, 26 and 40 blocks of a prediction; runs in a process of its own."""
    path = tiny.save(tiny.lightning(tiny.build("dstformer", **NETWORKS["dstformer"])), folder / "d.ckpt")
    blocks, held = predict.Lifter.blocks, []

    def watched(*arguments: Any) -> Iterator[np.ndarray]:
        tracemalloc.start()
        for number, part in enumerate(blocks(*arguments)):
            yield part
            if number in (12, 26, 40):
                gc.collect()
                tensors = [o for o in gc.get_objects() if issubclass(type(o), torch.Tensor)]
                traced, _ = tracemalloc.get_traced_memory()
                held.append(traced + sum(x.untyped_storage().nbytes() for x in tensors))

    predict.Lifter.blocks = watched  # type: ignore[method-assign]
    source = folder / "walk.npy"
    np.save(source, keypoints(40 * 42))
    predicted(folder, path, source)
    return held


@pytest.mark.slow
def test_nothing_held_between_blocks_grows_with_the_video(tmp_path: Path) -> None:
    """The short form of the next test: arrays and tensors of a process instead of all its memory."""
    # A process of its own: what exporters and other threads of a long test process keep would be counted too.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        held = pool.submit(_held, tmp_path).result(timeout=240)
    # 14 blocks of 40 frames are 114 kB of output and 76 kB of input; what is cached once is in one difference only.
    assert len(held) == 3 and min(held[1] - held[0], held[2] - held[1]) < 90_000, held


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


@pytest.mark.slow
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


def test_videos_whose_names_differ_by_a_space_keep_arrays_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "two.npz"
    np.savez(path, **{"a b": keypoints(9), "a_b": keypoints(9)})
    conversion = Conversion("h36m17", skeleton("h36m17"), "videopose3d", 1000, 1000)
    found = detections.read(path, conversion, detections.Options(check=False))
    assert predict.names(found) == ["pose3d/a_b/custom/0", "pose3d/a_b/custom/0_2"]
