"""PoseFormer V2: contract, published sizes, a plain loop as oracle, the split of its blocks, shared spatial stage."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from kinema.core.dct import dct_matrix, inverse_dct_matrix
from kinema.errors import ConfigError
from kinema.inference.complexity import count_macs, count_parameters
from kinema.models.poseformer import PoseFormer
from kinema.models.poseformerv2 import PoseFormerV2
from kinema.testing import check_model
from tests.models import oracle
from tests.models.configs import arguments


def small(**changes: Any) -> dict[str, Any]:
    values = {
        "num_frames": 9,
        "num_joints": 3,
        "num_joints_out": 3,
        "in_channels": 2,
        "kept_frames": 3,
        "kept_coeffs": 3,
        "dim": 4,
        "depth": 2,
        "num_heads": 2,
        "mlp_ratio": 2,
        "qkv_bias": True,
        "dropout": 0.0,
        "attn_dropout": 0.0,
        "drop_path": 0.0,
    }
    return {**values, **changes}


CASES = (
    small(),
    small(kept_frames=1, num_joints=5, num_joints_out=4, dim=8, num_heads=4, depth=1, mlp_ratio=1.7, in_channels=3),
    small(num_frames=7, kept_frames=3, kept_coeffs=1, qkv_bias=False, dropout=0.1, attn_dropout=0.1, drop_path=0.1),
    small(num_frames=1, kept_frames=1, kept_coeffs=1),
)
# conf/model file, num_frames, kept_frames, kept_coeffs, parameters, millions of MACs (paper: MFLOPs = 2 MACs).
SIZES = [
    ("poseformerv2_27_1_3", 27, 1, 1, 14_353_559, 19.7),
    ("poseformerv2_27_1_3", 27, 1, 3, 14_354_649, 38.7),
    ("poseformerv2_27_3_3", 27, 3, 1, 14_354_649, 39.9),
    ("poseformerv2_27_3_3", 27, 3, 3, 14_355_739, 59.0),
    ("poseformerv2_27_3_3", 27, 9, 9, 14_362_279, 177.8),
    ("poseformerv2_81_1_3", 81, 1, 3, 14_354_649, 38.7),
    ("poseformerv2_81_3_3", 81, 3, 3, 14_355_739, 59.0),
    ("poseformerv2_81_9_9", 81, 9, 9, 14_362_279, 177.8),
    ("poseformerv2_243_27_27", 243, 27, 27, 14_381_899, 541.7),
]
RELEASED = ((27, 1, 3), (27, 3, 3), (81, 1, 3), (81, 3, 3), (81, 9, 9), (243, 27, 27))


def test_keeps_the_model_contract() -> None:
    check_model(PoseFormerV2, *CASES)


@pytest.mark.slow
def test_compiles() -> None:
    check_model(PoseFormerV2, small(depth=1), compile_backend="inductor")


@pytest.mark.parametrize(("name", "frames", "kept", "coeffs", "parameters", "macs"), SIZES)
def test_sizes_are_the_published_ones(
    name: str, frames: int, kept: int, coeffs: int, parameters: int, macs: float
) -> None:
    values = {**arguments(name), "kept_frames": kept, "kept_coeffs": coeffs}
    assert values["num_frames"] == frames
    with torch.device("meta"):
        model = PoseFormerV2(**values)
    assert count_parameters(model) == parameters
    # The paper does not count the transforms, which are constant.
    half = (coeffs + kept) - (coeffs + kept) // 2
    transforms = coeffs * frames * 2 * 17 + 4 * 2 * half**2 * 17 * 32
    assert (count_macs(model).total - transforms) / 1e6 == pytest.approx(macs, abs=0.05)


@pytest.mark.parametrize("size", RELEASED)
def test_there_is_a_file_of_every_released_size(size: tuple[int, int, int]) -> None:
    values = arguments("poseformerv2_{}_{}_{}".format(*size))
    assert (values["num_frames"], values["kept_frames"], values["kept_coeffs"]) == size
    assert (values["num_heads"], values["dim"], values["depth"], values["drop_path"]) == (8, 32, 4, 0.1)


def slow_dct(series: Tensor) -> Tensor:
    """2 sum_m x_m cos(pi k (2m + 1) / 2N), term by term, along the first axis."""
    count = len(series)
    rows = [
        sum(2 * series[m] * math.cos(math.pi * k * (2 * m + 1) / (2 * count)) for m in range(count))
        for k in range(count)
    ]
    return torch.stack(rows)


def slow_inverse(spectrum: Tensor) -> Tensor:
    """The series whose `slow_dct` this is: x_m = (X_0 / 2 + sum_k X_k cos(pi k (2m + 1) / 2N)) / N."""
    count = len(spectrum)
    rows = [
        sum((0.5 if k == 0 else 1) * spectrum[k] * math.cos(math.pi * k * (2 * m + 1) / (2 * count)) / count
            for k in range(count))
        for m in range(count)
    ]  # fmt: skip
    return torch.stack(rows)


def plain(pose: Tensor, model: PoseFormerV2) -> Tensor:
    """One window (F, J, C) to (1, J, 3) from the text of the paper and the notes on its code."""
    state, options = model.state_dict(), model.arguments
    part, heads = oracle.part, options["num_heads"]
    kept, coeffs, frames = options["kept_frames"], options["kept_coeffs"], options["num_frames"]
    centre = (frames - 1) // 2
    times = []
    for frame in pose[centre - kept // 2 : centre + kept // 2 + 1]:
        x = oracle.linear(frame, part(state, "Joint_embedding")) + state["Spatial_pos_embed"][0]
        for level in range(options["depth"]):
            block = part(state, f"Spatial_blocks.{level}")
            x = x + oracle.attention(oracle.norm(x, part(block, "norm1"), 1e-6), part(block, "attn"), heads)
            x = x + oracle.mlp(oracle.norm(x, part(block, "norm2"), 1e-6), part(block, "mlp"))
        times.append(oracle.norm(x, part(state, "Spatial_norm"), 1e-6).flatten())
    time = torch.stack(times) + state["Temporal_pos_embed"][0]
    spectrum = slow_dct(pose.flatten(1))[:coeffs]
    x = torch.cat([oracle.linear(spectrum, part(state, "Freq_embedding")) + state["Temporal_pos_embed_"][0], time])
    for level in range(options["depth"]):
        block = part(state, f"blocks.{level}")
        x = x + oracle.attention(oracle.norm(x, part(block, "norm1"), 1e-6), part(block, "attn"), heads)
        half = (coeffs + kept) // 2
        first = [token + oracle.mlp(oracle.norm(token, part(block, "norm2"), 1e-6), part(block, "mlp1"))
                 for token in x[:half]]  # fmt: skip
        rest = oracle.mlp(slow_dct(oracle.norm(x[half:], part(block, "norm3"), 1e-6)), part(block, "mlp2"))
        x = torch.cat([torch.stack(first), x[half:] + slow_inverse(rest)])
    x = oracle.norm(x, part(state, "Temporal_norm"), 1e-6)
    low = sum(w * token for w, token in zip(state["weighted_mean.weight"].flatten(), x[:coeffs], strict=True))
    mid = sum(w * token for w, token in zip(state["weighted_mean_.weight"].flatten(), x[coeffs:], strict=True))
    both = torch.cat([low + state["weighted_mean.bias"], mid + state["weighted_mean_.bias"]])
    return oracle.linear(oracle.norm(both, part(state, "head.0"), 1e-5), part(state, "head.1")).reshape(1, -1, 3)


def scattered(**changes: Any) -> PoseFormerV2:
    model = PoseFormerV2(**small(**changes)).double().eval()
    oracle.scatter(model)
    return model


@pytest.mark.parametrize(("kept", "coeffs"), [(3, 3), (1, 3), (3, 1), (3, 4), (1, 1), (5, 2)])
def test_equals_a_plain_loop_also_where_the_split_is_not_between_the_domains(kept: int, coeffs: int) -> None:
    model = scattered(kept_frames=kept, kept_coeffs=coeffs)
    pose = torch.randn(2, 9, 3, 2, dtype=torch.float64)
    expected = torch.stack([plain(window, model) for window in pose])
    torch.testing.assert_close(model(pose), expected, rtol=1e-10, atol=1e-10)


def test_a_coefficient_behind_the_middle_goes_with_the_frames() -> None:
    block = scattered(kept_frames=1, kept_coeffs=3).blocks[0]
    assert block.split == 2
    seen: dict[str, Tensor] = {}
    for name in ("mlp1", "mlp2"):
        block.get_submodule(name).register_forward_hook(lambda _, args, __, key=name: seen.__setitem__(key, args[0]))
    block(torch.randn(1, 4, 12, dtype=torch.float64))
    assert (seen["mlp1"].shape[1], seen["mlp2"].shape[1]) == (2, 2)


@pytest.mark.parametrize("length", [1, 2, 9, 28])
def test_the_transform_is_that_of_the_fourier_transform_of_the_mirrored_signal(length: int) -> None:
    signal = torch.randn(length, 4, dtype=torch.float64)
    turned = torch.fft.fft(torch.cat([signal, signal.flip(0)]), dim=0)[:length]
    shift = torch.exp(-1j * math.pi * torch.arange(length, dtype=torch.float64) / (2 * length))
    found = dct_matrix(length) @ signal
    torch.testing.assert_close(found, (turned * shift[:, None]).real, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(inverse_dct_matrix(length) @ found, signal, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(dct_matrix(length, 1), found.new_full((1, length), 2.0))


def test_a_double_network_has_double_transforms() -> None:
    model = PoseFormerV2(**small())
    torch.testing.assert_close(model.double().dct.matrix, dct_matrix(9, 3), rtol=0, atol=0)
    again = copy.deepcopy(model).float().double()
    torch.testing.assert_close(again.blocks[1].inverse_dct.matrix, inverse_dct_matrix(3), rtol=0, atol=0)
    with torch.device("meta"):
        ghost = PoseFormerV2(**small())
    torch.testing.assert_close(ghost.to_empty(device="cpu").dct.matrix, dct_matrix(9, 3).float(), rtol=0, atol=0)


@pytest.mark.parametrize("chunk", [1, 3, 4, 100, None])
@pytest.mark.parametrize("kept", [1, 5])
def test_slide_does_not_depend_on_its_chunks(chunk: int | None, kept: int) -> None:
    model = scattered(kept_frames=kept)
    pose = torch.randn(2, 17, 3, 2, dtype=torch.float64)
    expected = torch.cat([model(pose[:, i : i + 9]) for i in range(9)], dim=1)
    torch.testing.assert_close(model.slide(pose, chunk=chunk), expected, rtol=1e-10, atol=1e-10)


def test_slide_of_the_published_width_agrees_in_single_precision() -> None:
    torch.manual_seed(0)
    model = PoseFormerV2(**{**arguments("poseformerv2_243_27_27"), "depth": 1}).eval()
    oracle.scatter(model, 0.02)
    pose = torch.rand(1, 242 + 3, 17, 2) * 2 - 1
    with torch.no_grad():
        expected = torch.cat([model(pose[:, i : i + 243]) for i in range(3)], dim=1)
        torch.testing.assert_close(model.slide(pose, chunk=2), expected, rtol=1e-5, atol=1e-5)


def test_slide_runs_the_spatial_stage_once_per_frame_that_is_kept() -> None:
    model = PoseFormerV2(**small()).eval()
    seen: list[int] = []
    model.Spatial_norm.register_forward_hook(lambda _, args, __: seen.append(args[0].shape[:2].numel()))
    model.slide(torch.randn(1, 40, 3, 2))
    assert seen == [32 + 2]  # 32 windows of 9 frames, of which 3 are kept


def test_starts_from_zero_position_embeddings_and_keeps_the_epsilons() -> None:
    model = PoseFormerV2(**small())
    for name in ("Spatial_pos_embed", "Temporal_pos_embed", "Temporal_pos_embed_"):
        assert not model.get_parameter(name).any()
    norms = {name: m.eps for name, m in model.named_modules() if isinstance(m, torch.nn.LayerNorm)}
    assert norms.pop("head.0") == 1e-5
    assert set(norms.values()) == {1e-6}


def test_spatial_samples_are_frames_and_mixed_samples_are_windows() -> None:
    model = PoseFormerV2(**small(drop_path=0.2))
    assert {block.drop_path.sample_axes for block in model.Spatial_blocks} == {2}
    assert {block.drop_path.sample_axes for block in model.blocks} == {1}
    assert [block.drop_path.rate for block in model.blocks] == pytest.approx([0.0, 0.2])


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"num_frames": 8}, r"model\.num_frames=9"),
        ({"kept_frames": 2}, r"model\.kept_frames=3"),
        ({"num_frames": 3, "kept_frames": 4}, r"model\.kept_frames=3"),
        ({"kept_frames": 11}, r"model\.kept_frames=9"),
        ({"kept_coeffs": 10}, r"model\.kept_coeffs=9"),
        ({"kept_coeffs": 0}, r"model\.kept_coeffs=1"),
    ],
)
def test_refuses_sizes_that_do_not_fit_with_one_that_does(changes: dict[str, int], remedy: str) -> None:
    with pytest.raises(ConfigError, match=remedy):
        PoseFormerV2(**small(**changes))


def test_is_told_from_its_predecessor() -> None:
    first = {key: value for key, value in small().items() if not key.startswith("kept")}
    old = {name: tuple(t.shape) for name, t in PoseFormer(**first).state_dict().items()}
    new = {name: tuple(t.shape) for name, t in PoseFormerV2(**small()).state_dict().items()}
    assert PoseFormerV2.recognise(old) is None and PoseFormer.recognise(new) is None
    assert "num_frames" not in (PoseFormerV2.recognise(new) or {"num_frames": 0})
    assert PoseFormerV2.recognise({**new, "Temporal_pos_embed_": (3, 12)}) is None
