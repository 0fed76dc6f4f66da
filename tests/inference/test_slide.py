"""Whole videos: windows and clips against loops over frames."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from kinema.core.skeleton import skeleton
from kinema.core.spec import Signature
from kinema.errors import ConfigError, DataError
from kinema.inference.flip import flip_average
from kinema.inference.slide import pad_edges, slide
from kinema.models.dstformer import DSTformer
from kinema.models.poseformer import PoseFormer
from kinema.models.videopose3d import VideoPose3D
from tests.models import oracle, test_dstformer, test_poseformer, test_videopose3d


class Toy(nn.Module):
    """Its output tells what it saw: the window's mean and each target's place in the clip."""

    def __init__(self, frames: int, rule: Any, context: tuple[int, int] = (0, 0)) -> None:
        super().__init__()
        self.signature = Signature(
            output="pose3d", in_channels=2, joints=2, joints_out=2, frames=frames, frames_rule=rule, context=context
        )
        self.seen: list[tuple[int, int]] = []

    def forward(self, pose: Tensor) -> Tensor:
        self.seen.append((pose.shape[0], pose.shape[1]))
        before, after = self.signature.context
        targets = pose.shape[1] - before - after
        own = pose[:, before : before + targets]
        place = torch.arange(targets, dtype=pose.dtype) / 10
        extra = (pose.mean((1, 2, 3))[:, None, None] + place[:, None]).expand(-1, -1, 2)
        return torch.cat([own, extra[..., None]], dim=-1)


def video(length: int, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(length)
    return torch.randn(batch, length, 2, 2, generator=generator, dtype=torch.float64)


def spans(length: int, frames: int, overlap: int, tail: str) -> list[tuple[int, int]]:
    """(first, end) of every clip."""
    if length <= frames:
        return [(0, length)]
    clips = [(0, frames)]
    while clips[-1][1] < length:
        first = clips[-1][0] + frames - overlap
        if first + frames > length:
            first = first if tail == "short" else length - frames
        clips.append((first, min(first + frames, length)))
    return clips


def joined(model: Toy, pose: Tensor, overlap: int, join: str, tail: str) -> Tensor:
    """Frame by frame: which clips hold it, and how they share."""
    length = pose.shape[1]
    clips = spans(length, model.signature.frames, overlap, tail)
    out = []
    for t in range(length):
        values, ranks = [], []
        for first, end in clips:
            if first <= t < end:
                values.append(model(pose[:, first:end])[:, t - first])
                # Distance to the nearest cut; the ends of the video are no cuts.
                cuts = ([t - first + 1] if first > 0 else []) + ([end - t] if end < length else [])
                ranks.append(min(cuts, default=model.signature.frames))
        if join == "first":
            out.append(values[0])
        elif join == "centre":
            out.append(values[ranks.index(max(ranks))])
        else:
            shares = [1.0] * len(ranks) if join == "mean" else [float(rank) for rank in ranks]
            out.append(sum(s * v for s, v in zip(shares, values, strict=True)) / sum(shares))
    return torch.stack(out, dim=1)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_clips_are_joined_as_a_loop_over_frames_would(data: st.DataObject) -> None:
    frames = data.draw(st.integers(1, 7), "frames")
    rule = data.draw(st.sampled_from(["max", "exact"]), "rule")
    length = data.draw(st.integers(frames if rule == "exact" else 1, 25), "length")
    overlap = data.draw(st.integers(0, frames - 1), "overlap")
    join = data.draw(st.sampled_from(["first", "mean", "blend", "centre"]), "join")
    tail = data.draw(st.sampled_from(["short", "shift"]), "tail") if rule == "max" else "shift"
    chunk = data.draw(st.sampled_from([1, 5, 16, 4096]), "chunk")
    model, pose = Toy(frames, rule), video(length)
    found = slide(model, pose, overlap=overlap, join=join, tail=tail, chunk=chunk)
    torch.testing.assert_close(found, joined(Toy(frames, rule), pose, overlap, join, tail))


def test_tiles_come_out_bit_by_bit() -> None:
    model, pose = Toy(4, "max"), video(11)
    expected = torch.cat([model(pose[:, 0:4]), model(pose[:, 4:8]), model(pose[:, 8:11])], dim=1)
    assert torch.equal(slide(model, pose), expected)


def test_a_last_clip_that_must_be_full_is_shifted_back() -> None:
    model, pose = Toy(4, "exact"), video(10)
    expected = torch.cat([model(pose[:, 0:4]), model(pose[:, 4:8]), model(pose[:, 6:10])[:, 2:]], dim=1)
    assert torch.equal(slide(model, pose), expected)


@pytest.mark.parametrize("length", [1, 2, 4])
def test_short_videos(length: int) -> None:
    pose = video(length)
    flexible, full = Toy(5, "max"), Toy(5, "exact")
    assert torch.equal(slide(flexible, pose), flexible(pose))
    filled = torch.cat([pose, pose[:, -1:].expand(-1, 5 - length, -1, -1)], dim=1)
    assert torch.equal(slide(full, pose), full(filled)[:, :length])


@settings(max_examples=30, deadline=None)
@given(
    before=st.integers(0, 4), after=st.integers(0, 4), length=st.integers(1, 12), chunk=st.sampled_from([1, 10, 4096])
)
def test_windows_without_a_slide_of_their_own(before: int, after: int, length: int, chunk: int) -> None:
    model = Toy(before + 1 + after, "exact", (before, after))
    pose = video(length)
    found = slide(model, pad_edges(pose, (before, after)), chunk=chunk)
    expected = []
    for t in range(length):
        frames = [min(max(i, 0), length - 1) for i in range(t - before, t + after + 1)]
        expected.append(model(pose[:, frames]))
    torch.testing.assert_close(found, torch.cat(expected, dim=1))


@pytest.mark.parametrize("rule", ["max", "exact"])
def test_memory_is_bounded_by_the_chunk(rule: str) -> None:
    model = Toy(10, rule)
    slide(model, video(400, batch=3), chunk=120)
    assert max(batch * frames for batch, frames in model.seen) <= 120
    assert len(model.seen) == 10


def test_a_model_of_free_length_sees_a_stretch_with_its_context() -> None:
    model = Toy(5, "any", (2, 2))
    pose = video(40 + 4, batch=1)
    found = slide(model, pose, chunk=20)
    assert [frames for _, frames in model.seen] == [20, 20, 12]
    assert torch.equal(found[..., :2], pose[:, 2:-2])


def test_a_model_of_free_length_without_context_sees_the_whole_video() -> None:
    model = Toy(3, "any")
    pose = video(100)
    assert torch.equal(slide(model, pose, chunk=10), model(pose))
    short = video(2)
    assert torch.equal(slide(model, short), model(short[:, [0, 1, 1]])[:, :2])


def dstformer() -> DSTformer:
    return DSTformer(**test_dstformer.small())


def poseformer() -> PoseFormer:
    return PoseFormer(**test_poseformer.small())


def videopose3d(**changes: Any) -> VideoPose3D:
    return VideoPose3D(**test_videopose3d.small(**changes))


@pytest.mark.parametrize("length", [1, 4, 30])
@pytest.mark.parametrize("chunk", [1, 64, 4096])
@pytest.mark.parametrize(
    "model",
    [poseformer(), videopose3d(), videopose3d(causal=True), videopose3d(trajectory=True), videopose3d(dense=True)],
    ids=["poseformer", "videopose3d", "causal", "trajectory", "dense"],
)
def test_fast_forms_equal_one_window_per_frame(model: Any, chunk: int, length: int) -> None:
    model = model.double().eval()
    oracle.scatter(model)
    signature = model.signature
    pose = torch.randn(2, length, signature.joints, signature.in_channels, dtype=torch.float64)
    padded = pad_edges(pose, signature.context)
    expected = torch.cat([model(padded[:, i : i + signature.frames]) for i in range(length)], dim=1)
    torch.testing.assert_close(slide(model, padded, chunk=chunk), expected, rtol=1e-9, atol=1e-9)
    plain = slide(model, padded, chunk=chunk, predict=model.forward)
    torch.testing.assert_close(plain, expected, rtol=1e-9, atol=1e-9)


def test_the_spatial_stage_of_poseformer_is_shared() -> None:
    model = poseformer().eval()
    frames: list[int] = []
    model.Spatial_norm.register_forward_hook(lambda _, args, __: frames.append(args[0].shape[1]))
    slide(model, torch.randn(1, 104, 3, 2))
    assert sum(frames) == 104


def test_clips_of_dstformer_are_its_forward() -> None:
    model = dstformer().double().eval()
    oracle.scatter(model)
    pose = torch.randn(2, 13, 4, 3, dtype=torch.float64)
    expected = torch.cat([model(pose[:, i : i + 5]) for i in (0, 5, 10)], dim=1)
    torch.testing.assert_close(slide(model, pose), expected)


def test_flips_may_be_averaged_inside_or_outside() -> None:
    values = test_dstformer.small(num_joints=17)
    model = DSTformer(**values).double().eval()
    oracle.scatter(model)
    body = skeleton("h36m17")
    pose = torch.randn(2, 12, 17, 3, dtype=torch.float64)
    outside = flip_average(lambda p: slide(model, p), pose, body, body)
    inside = slide(model, pose, predict=lambda p: flip_average(model, p, body, body))
    torch.testing.assert_close(inside, outside)
    assert not torch.allclose(outside, slide(model, pose))


def test_padding_repeats_the_edges() -> None:
    assert torch.equal(pad_edges(torch.arange(3)[None], (2, 1)), torch.tensor([[0, 0, 0, 1, 2, 2]]))


def test_nothing_is_kept_for_gradients() -> None:
    assert not slide(dstformer().eval(), torch.randn(1, 9, 4, 3)).requires_grad


@pytest.mark.parametrize(
    ("model", "frames", "options", "words"),
    [
        (Toy(5, "exact", (2, 2)), 4, {}, "pad_edges"),
        (Toy(5, "exact", (2, 2)), 9, {"overlap": 1}, "in clips"),
        (Toy(5, "any"), 9, {"join": "mean"}, "in clips"),
        (Toy(5, "max"), 9, {"overlap": 5}, "overlap=5 must be below"),
        (Toy(5, "max"), 9, {"overlap": -1}, "overlap=-1"),
        (Toy(5, "max"), 9, {"join": "best"}, "first, mean, blend, centre"),
        (Toy(5, "max"), 9, {"tail": "long"}, "short or shift"),
    ],
)
def test_refuses_what_makes_no_sense(model: Toy, frames: int, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        slide(model, video(frames), **options)


def test_refuses_poses_of_another_skeleton() -> None:
    with pytest.raises(DataError, match="J=2"):
        slide(Toy(5, "max"), torch.zeros(1, 5, 3, 2))
