"""Streams: causal networks against the whole video, sliding windows against windows cut by hand."""

from __future__ import annotations

import gc
import io
import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from kinema.core.skeleton import skeleton
from kinema.core.spec import Signature
from kinema.errors import ConfigError, DataError
from kinema.inference.flip import flip_average
from kinema.inference.live import lift_lines
from kinema.inference.slide import blocks, pad_edges, slide
from kinema.inference.stream import CausalStream, Stopwatch, Stream, WindowStream, stream
from kinema.models.dbmambapose import DBMambaPose
from kinema.models.dstformer import DSTformer
from kinema.models.poseformer import PoseFormer
from kinema.models.videopose3d import VideoPose3D
from tests.models import oracle, test_dstformer, test_poseformer, test_videopose3d

BODY = skeleton("h36m17")


class Recurrent(nn.Module):
    """A causal network of the least size: one leaky state per coordinate, and the interface of the Mamba networks."""

    causal = True

    def __init__(self, joints: int = 17, channels: int = 2, frames: int = 5) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.mix = nn.Parameter(torch.randn(joints * channels, joints * 3, generator=generator, dtype=torch.float64))
        self.signature = Signature(
            output="pose3d", in_channels=channels, joints=joints, joints_out=joints, frames=frames, frames_rule="max"
        )
        self.passes: list[int] = []

    def start(self, batch: int) -> Tensor:
        return self.mix.new_zeros(batch, self.mix.shape[1])

    def step(self, pose: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        state = 0.8 * state + torch.tanh(pose.flatten(1) @ self.mix)
        return state.unflatten(1, (-1, 3)), state

    def advance(self, pose: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        self.passes.append(pose.shape[1])
        out = []
        for frame in pose.unbind(1):
            one, state = self.step(frame, state)
            out.append(one)
        return torch.stack(out, dim=1), state

    def forward(self, pose: Tensor) -> Tensor:
        return self.advance(pose, self.start(len(pose)))[0]


def clips(**changes: Any) -> nn.Module:
    return oracle_of(DSTformer(**test_dstformer.small(num_joints=17, **changes)))


def windows() -> nn.Module:
    return oracle_of(PoseFormer(**test_poseformer.small(num_joints=17)))


def convolutions(**changes: Any) -> nn.Module:
    return oracle_of(VideoPose3D(**test_videopose3d.small(num_joints=17, num_joints_out=17, **changes)))


def mamba() -> nn.Module:
    """The causal DBMambaPose."""
    torch.manual_seed(0)
    return oracle_of(
        DBMambaPose(
            num_frames=5, num_joints=17, in_channels=2, dim=4, dim_rep=6, depth=2, d_state=2, d_conv=3, expand=2,
            mlp_ratio=2, dropout=0.0, drop_path=0.0, layer_scale=None, mixer="official", divide=True, streams="single",
            limbs=False, scan_backend="torch",
        )
    )  # fmt: skip


def oracle_of(model: nn.Module) -> nn.Module:
    model = model.double().eval()
    oracle.scatter(model)
    return model


def video(model: Any, length: int, batch: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(length)
    shape = (batch, length, model.signature.joints, model.signature.in_channels)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def streamed(made: Stream, pose: Tensor) -> Tensor:
    """Everything a stream gives, (B, L, J, 3), with the delay checked on the way."""
    out = []
    for number, frame in enumerate(pose.unbind(1)):
        one = made.push(frame)
        assert (one is None) == (number < made.latency)
        out += [] if one is None else [one]
    return torch.cat([torch.stack(out, dim=1), made.flush()] if out else [made.flush()], dim=1)


@pytest.mark.parametrize("flip", [None, (BODY, BODY)], ids=["plain", "flipped"])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("make", [Recurrent, mamba])
def test_a_causal_network_streams_exactly(make: Any, batch: int, flip: Any) -> None:
    model = make().eval()
    pose = video(model, 23, batch)

    def offline(part: Tensor) -> Tensor:
        return model.advance(part, model.start(batch))[0]

    expected = flip_average(offline, pose, BODY, BODY) if flip else offline(pose)
    made = stream(model, flip=flip, batch=batch)
    assert made.latency == 0
    torch.testing.assert_close(streamed(made, pose), expected, rtol=1e-9, atol=1e-9)
    again = stream(model, flip=flip, batch=batch)
    assert isinstance(again, CausalStream)
    parts = torch.cat([again.advance(part) for part in pose.split([4, 1, 11, 7], dim=1)], dim=1)
    torch.testing.assert_close(parts, expected, rtol=1e-9, atol=1e-9)


def test_a_causal_network_is_slid_with_its_state() -> None:
    model = Recurrent(frames=5)
    pose = video(model, 40, 2)
    expected = model(pose)
    model.passes.clear()
    torch.testing.assert_close(slide(model, pose, chunk=16), expected)
    assert model.passes == [8] * 5
    with pytest.raises(ConfigError, match="in clips"):
        slide(model, pose, overlap=2)


@pytest.mark.parametrize("look_ahead", [0, 1, 3, 4])
@pytest.mark.parametrize("length", [1, 3, 4, 5, 17])
def test_a_clip_network_answers_for_the_frame_before_the_newest(length: int, look_ahead: int) -> None:
    model = clips()
    pose = video(model, length)
    frames = model.signature.frames
    expected = []
    for t in range(length):
        end = min(t + look_ahead, length - 1)  # the last clip answers for the rest
        clip = pose[:, [max(0, i) for i in range(end - frames + 1, end + 1)]]
        expected.append(model(clip)[:, frames - 1 - (end - t)])
    found = streamed(stream(model, look_ahead=look_ahead), pose)
    torch.testing.assert_close(found, torch.stack(expected, dim=1), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("length", [1, 2, 7, 20])
@pytest.mark.parametrize("make", [windows, convolutions, lambda: convolutions(causal=True)])
def test_a_window_network_with_its_whole_window_is_offline(make: Any, length: int) -> None:
    model = make()
    pose = video(model, length, 2)
    made = stream(model, batch=2)
    assert made.latency == model.signature.context[1]
    expected = slide(model, pad_edges(pose, model.signature.context))
    torch.testing.assert_close(streamed(made, pose), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("look_ahead", [0, 1])
def test_a_window_network_that_does_not_wait_repeats_the_newest_frame(look_ahead: int) -> None:
    model = windows()
    pose = video(model, 9)
    before, after = model.signature.context
    expected = []
    for t in range(9):
        frames = [min(max(i, 0), t + look_ahead, 8) for i in range(t - before, t + after + 1)]
        expected.append(model(pose[:, frames])[:, 0])
    found = streamed(stream(model, look_ahead=look_ahead), pose)
    torch.testing.assert_close(found, torch.stack(expected, dim=1), rtol=1e-9, atol=1e-9)


def test_flips_are_averaged_in_every_window() -> None:
    model = clips()
    pose = video(model, 12)
    found = streamed(stream(model, look_ahead=2, flip=(BODY, BODY)), pose)
    straight = streamed(stream(model, look_ahead=2), pose)
    mirrored = streamed(stream(model, look_ahead=2), flip_average(lambda p: p, pose, BODY, BODY))
    assert not torch.allclose(found, straight) and not torch.allclose(found, mirrored)
    expected = flip_average(lambda p: streamed(stream(model, look_ahead=2), p), pose, BODY, BODY)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_a_frame_without_a_batch_gives_a_pose_without_one() -> None:
    made = stream(clips(), look_ahead=1)
    first = video(made.model, 3)[0]
    assert made.push(first[0].numpy()) is None
    assert made.push(first[1]).shape == (17, 3)
    assert made.flush().shape == (1, 17, 3)
    assert made.flush().shape[-3:] == (0, 17, 3), "a second flush has nothing"
    assert made.push(first[2]) is None, "after a flush a new video begins"


def test_a_new_video_knows_nothing_of_the_last_one() -> None:
    for model in (Recurrent().eval(), clips()):
        made = stream(model)
        pose = video(model, 9)
        first = streamed(made, pose)
        assert torch.equal(streamed(made, pose), first)


def test_nothing_grows_with_the_frames() -> None:
    def held() -> int:
        gc.collect()
        return sum(o.untyped_storage().nbytes() for o in gc.get_objects() if issubclass(type(o), Tensor))

    def pushed(made: Stream, frames: int) -> None:
        for frame in video(made.model, frames).unbind(1):
            made.push(frame)

    for model in (Recurrent().eval(), mamba(), clips()):
        made = stream(model, flip=(BODY, BODY))
        pushed(made, 30)
        before = held()
        pushed(made, 300)
        assert held() <= before


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        (lambda: Recurrent().eval(), {"look_ahead": 1}, "is causal"),
        (lambda: convolutions(causal=True), {"look_ahead": 1}, "look_ahead=0"),
        (clips, {"look_ahead": 5}, "look_ahead=4"),
        (clips, {"look_ahead": -1}, "look_ahead=-1 is no number of frames to wait for. DSTformer takes 0 to 4"),
        (clips, {"look_ahead": 1.5}, "look_ahead=1.5 is no number of frames"),
        (lambda: Recurrent().eval(), {"look_ahead": -1}, "takes 0, it is causal"),
        (windows, {"look_ahead": 40}, "frames ahead at most"),
        (lambda: clips().train(), {}, "model.eval"),
    ],
)
def test_refuses_what_a_network_cannot_do(model: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        stream(model(), **options)


def test_refuses_frames_of_another_shape() -> None:
    made = stream(clips(), batch=2)
    assert isinstance(made, WindowStream)
    with pytest.raises(DataError):
        made.push(torch.zeros(17, 3))
    with pytest.raises(DataError):
        made.push(torch.zeros(2, 16, 3))


# Blocks of a video.


class Echo(nn.Module):
    """Each output holds the frame, the mean of its clip and its place in it."""

    def __init__(self, frames: int, rule: Any, context: tuple[int, int] = (0, 0)) -> None:
        super().__init__()
        self.signature = Signature(
            output="pose3d", in_channels=2, joints=1, joints_out=1, frames=frames, frames_rule=rule, context=context
        )

    def forward(self, pose: Tensor) -> Tensor:
        before, after = self.signature.context
        own = pose[:, before : pose.shape[1] - after]
        place = torch.arange(own.shape[1], dtype=pose.dtype)
        mean = (pose.mean((1, 2, 3))[:, None] + place)[:, :, None, None].expand(*own.shape[:3], 1)
        return torch.cat([own, mean], dim=-1)


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_blocks_together_are_the_whole(data: st.DataObject) -> None:
    frames = data.draw(st.integers(1, 6), "frames")
    rule = data.draw(st.sampled_from(["max", "exact", "any"]), "rule")
    centre = data.draw(st.booleans(), "context")
    context = (frames // 2, frames - 1 - frames // 2) if centre else (0, 0)
    model: nn.Module = Echo(frames, rule, context)
    clip = context == (0, 0) and rule != "any"
    overlap = data.draw(st.integers(0, frames - 1), "overlap") if clip else 0
    join = data.draw(st.sampled_from(["first", "mean", "blend", "centre"]), "join") if clip else "first"
    length = data.draw(st.integers(1, 60), "length")
    chunk = data.draw(st.sampled_from([1, 5, 12, 30, 4096]), "chunk")
    pose = torch.randn(1, length, 1, 2, dtype=torch.float64)
    padded = pad_edges(pose, context)
    options: Any = {"overlap": overlap, "join": join}
    whole = slide(model, padded, chunk=chunk, **options)
    parts, end = [], 0
    for block in blocks(model, length, overlap=overlap, chunk=chunk):
        assert block.first == end
        end = block.end
        seen = padded[:, block.first - block.before : block.end + block.after + sum(context)]
        out = slide(model, seen, chunk=chunk, **options)
        parts.append(out[:, block.before : block.before + block.end - block.first])
        if context != (0, 0) or rule != "any":
            assert block.end - block.first < 2 * max(chunk, frames) + frames
    found = torch.cat(parts, dim=1)
    torch.testing.assert_close(found, whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("make", [clips, windows, convolutions, mamba])
def test_blocks_of_real_networks_are_equal_bit_by_bit(make: Any) -> None:
    model = make().float().eval()
    context = model.signature.context
    padded = pad_edges(video(model, 101).float(), context)
    whole = slide(model, padded, chunk=30)
    carried = stream(model)
    if isinstance(carried, CausalStream):
        parts = [carried.advance(padded[:, block.first : block.end]) for block in blocks(model, 101, chunk=30)]
    else:
        parts = [
            slide(model, padded[:, block.first : block.end + sum(context)], chunk=30)
            for block in blocks(model, 101, chunk=30)
        ]
    assert len(parts) > 2
    assert torch.equal(torch.cat(parts, dim=1), whole)


def test_refuses_to_cut_with_an_overlap_of_a_whole_clip() -> None:
    with pytest.raises(ConfigError, match="overlap=5"):
        list(blocks(Echo(5, "max"), 20, overlap=5))


# Lines of text.


def test_a_line_in_is_a_line_out() -> None:
    model = Echo(3, "max").eval()
    pose = video(model, 6)[0]
    lines = [json.dumps(frame.tolist()) + "\n" for frame in pose]
    lines[2] = json.dumps({"pose2d": pose[2].tolist(), "time": 0.1})
    lines.insert(1, "\n")
    out = io.StringIO()
    watch = lift_lines(lines, stream(model, look_ahead=1), lambda points, _: torch.from_numpy(points), out)
    found = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [entry["frame"] for entry in found] == list(range(6))
    expected = streamed(stream(model, look_ahead=1), pose[None])[0]
    np.testing.assert_allclose([entry["pose3d"] for entry in found], expected.numpy(), atol=1e-6)
    assert watch.frames == 6


NO_FRAMES = [
    "[[1, 2], [3", "{}", "[1, 2]", "[[1, 2, 3, 4]]", "[[1, NaN]]", '[["a", 1]]', "null", "[[1, Infinity]]",
    "[[1, 1e30]]", "[[-1e300, 1]]", "[[1, 1e400]]", f"[[1, 1{'0' * 400}]]", f"[[1, 1{'0' * 5000}]]", "[[1, 2, 1e9]]",
]  # fmt: skip


@pytest.mark.parametrize("line", NO_FRAMES, ids=range(len(NO_FRAMES)))
def test_a_line_that_is_no_frame_is_named(line: str) -> None:
    model = Echo(3, "max").eval()
    with pytest.raises(DataError, match="line 2"):
        lift_lines(["[[1, 2]]", line], stream(model), lambda points, _: torch.from_numpy(points), io.StringIO())


@pytest.mark.parametrize("lines", [[], ["\n", "  \n"]], ids=["nothing", "blank"])
@pytest.mark.parametrize("make", [lambda: Echo(3, "max"), lambda: Recurrent(joints=1)], ids=["clips", "causal"])
def test_a_stream_without_frames_ends_quietly(make: Any, lines: list[str]) -> None:
    out = io.StringIO()
    made = stream(make().eval())
    watch = lift_lines(lines, made, lambda points, _: torch.from_numpy(points), out)
    assert out.getvalue() == "" and watch.frames == 0
    assert "0 frames one by one: 0.0 frames/s" in watch.sentence(made.latency, 50.0)


def test_a_stopwatch_keeps_a_bounded_past() -> None:
    watch = Stopwatch(kept=5)
    for _ in range(50):
        with watch.frame():
            pass
    assert watch.frames == 50 and len(watch._last) == 5
    assert "latency 3 frames = 60 ms" in watch.sentence(3, 50.0)
