"""Losses, errors, cameras and input preparation against the published programs."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from kinema.core import camera, crop, detections, keypoints, losses, motion, pose_errors
from kinema.core.preprocess import preprocess
from kinema.core.random import deterministic_random
from kinema.core.skeleton import Skeleton, skeleton
from kinema.data.mirror import mirrored
from kinema.data.readers.detections import tracks
from kinema.inference.flip import mirror_pose
from tests.parity.golden import Arrays, Case, cases

pytestmark = pytest.mark.parity

# Published names of the pose losses.
LOSSES = {
    "loss_mpjpe": losses.mpjpe,
    "n_mpjpe": losses.n_mpjpe,
    "loss_velocity": losses.velocity,
    "loss_limb_var": losses.limb_variance,
    "loss_limb_gt": losses.limb_length,
    "loss_angle": losses.angle,
    "loss_angle_velocity": losses.angle_velocity,
    "loss_joint": losses.joint_l1,
}
# Order of the weights of the whole loss, and those of the published configs; MPJPE has weight 1.
TOTAL = ("n_mpjpe", "loss_velocity", "loss_limb_var", "loss_limb_gt", "loss_angle", "loss_angle_velocity")
DEFAULT_LAMBDAS = (0.5, 20.0, 0.0, 0.0, 0.0, 0.0)


def h36m() -> Skeleton:
    return skeleton("h36m17")


def evaluated(
    loss: Callable[[Tensor], Tensor], x: np.ndarray, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """Value of a loss and its gradient with respect to the first argument."""
    variable = torch.from_numpy(x).to(dtype).requires_grad_()
    value = loss(variable)
    value.backward()
    assert variable.grad is not None
    return value, variable.grad


@cases("motionbert", "losses")
def test_losses(case: Case) -> None:
    arrays, body = case.arrays(), h36m()
    pred, target = arrays["pred"], torch.from_numpy(arrays["gt"])

    def check(name: str, loss: Callable[[Tensor], Tensor], x: np.ndarray = pred, rtol: float = 1e-9) -> None:
        value, gradient = evaluated(loss, x)
        case.close(f"{name} value", value, arrays[f"{name}_value64"], rtol=rtol)
        expected = arrays[f"{name}_grad64"]
        case.close(f"{name} gradient", gradient, expected, rtol=rtol, atol=rtol * abs(expected).max())

    for name, loss in LOSSES.items():
        check(name, lambda p, loss=loss: loss(p, target, body))
        value, gradient = evaluated(lambda p, loss=loss: loss(p, target.float(), body), pred, torch.float32)
        case.close(f"{name} float32", value, arrays[f"{name}_value32"], rtol=1e-5)
        expected = arrays[f"{name}_grad32"]
        case.close(f"{name} float32 gradient", gradient, expected, rtol=1e-4, atol=1e-4 * abs(expected).max())
        one_frame = loss(torch.from_numpy(pred)[:, :1], target[:, :1], body)
        case.close(f"{name} one frame", one_frame, arrays[f"{name}_T1"], rtol=1e-9)
    confidence, weight = torch.from_numpy(arrays["conf"]), torch.from_numpy(arrays["w"])
    check("loss_2d_weighted", lambda p: losses.joint_2d(p, target, confidence))
    check("weighted_mpjpe", lambda p: losses.weighted_mpjpe(p, target, weight))

    def total(p: Tensor, lambdas: tuple[float, ...]) -> Tensor:
        terms = zip(lambdas, TOTAL, strict=True)
        return losses.mpjpe(p, target, body) + sum(f * LOSSES[name](p, target, body) for f, name in terms)

    check("total", lambda p: total(p, tuple(arrays["total_lambdas"].tolist())))
    check("total_default", lambda p: total(p, DEFAULT_LAMBDAS))
    case.close("limb lengths", losses.limb_lengths(torch.from_numpy(pred), body), arrays["limb_lens"], rtol=1e-9)
    case.close("limb angles", losses.limb_angles(torch.from_numpy(pred), body), arrays["angles"], rtol=1e-9)
    check_contrastive(case, arrays)
    case.finish()


def check_contrastive(case: Case, arrays: Arrays) -> None:
    labels = torch.from_numpy(arrays["supcon_labels"])
    for name in arrays.names("supcon_feat_"):
        views = name.removeprefix("supcon_feat_")
        features = arrays[name]
        value, gradient = evaluated(lambda f: losses.supcon(f, labels, temperature=0.1), features)
        case.close(f"supcon {views}", value, arrays[f"supcon_value_{views}"], rtol=1e-6)
        expected = arrays[f"supcon_grad_{views}"]
        case.close(f"supcon {views} gradient", gradient, expected, rtol=1e-6, atol=1e-6 * abs(expected).max())
        if f"supcon_value_{views}_one" in arrays:
            one = losses.supcon(torch.from_numpy(features), labels, temperature=0.1, anchors="one")
            case.close(f"supcon {views} one", one, arrays[f"supcon_value_{views}_one"], rtol=1e-6)
        if f"simclr_value_{views}" in arrays:
            unlabelled = losses.supcon(torch.from_numpy(features), temperature=0.1)
            case.close(f"simclr {views}", unlabelled, arrays[f"simclr_value_{views}"], rtol=1e-6)


@cases("motionbert", "metrics")
def test_motionbert_metrics(case: Case) -> None:
    arrays = case.arrays()
    pred, target = torch.from_numpy(arrays["pred"]), torch.from_numpy(arrays["gt"])
    aligned = pose_errors.p_mpjpe(pred, target)
    close = {"rtol": 1e-8}
    case.close("mpjpe", pose_errors.mpjpe(pred, target), arrays["mpjpe"], **close)
    case.close("p_mpjpe", aligned, arrays["p_mpjpe"], **close)
    case.close("p_mpjpe of the mesh routine", aligned, arrays["pa_rigid_align"], **close)
    case.close("p_mpjpe of VideoPose3D", aligned.mean(), arrays["p_mpjpe_videopose3d"], **close)
    case.close("n_mpjpe", pose_errors.n_mpjpe(pred, target), arrays["n_mpjpe"], **close)
    case.close("n_mpjpe mean", pose_errors.n_mpjpe(pred, target).mean(), arrays["n_mpjpe_mean"], **close)
    for name in ("mpjve_loss_velocity", "mpjve_videopose3d"):
        case.close(name, pose_errors.mpjve(pred, target).mean(), arrays[name], **close)
    case.close("mpjpe32", pose_errors.mpjpe(pred.float(), target.float()), arrays["mpjpe32"], rtol=1e-4)
    case.close("p_mpjpe32", pose_errors.p_mpjpe(pred.float(), target.float()), arrays["p_mpjpe32"], rtol=1e-4)
    case.finish()


@cases("poseformer", "metrics")
def test_videopose3d_metrics(case: Case) -> None:
    arrays = case.arrays()
    target, weight = torch.from_numpy(arrays["target"]), torch.from_numpy(arrays["weight"])
    for name in (name.removeprefix("pred_") for name in arrays.names("pred_")):
        pred = torch.from_numpy(arrays[f"pred_{name}"])
        aligned = pose_errors.p_mpjpe(pred, target)
        found = {
            "mpjpe": pose_errors.mpjpe(pred, target).mean(),
            "p_mpjpe": aligned.mean(),
            "n_mpjpe": pose_errors.n_mpjpe(pred, target).mean(),
            "velocity": pose_errors.mpjve(pred, target).mean(),
            "per_frame_p_mpjpe": aligned,
        }
        for key, value in found.items():
            case.close(f"{key} {name}", value, arrays[f"{key}_{name}"], atol=1e-10)
        if f"weighted_mpjpe_{name}" in arrays:
            weighted = losses.weighted_mpjpe(pred, target, weight)
            case.close(f"weighted_mpjpe {name}", weighted, arrays[f"weighted_mpjpe_{name}"], atol=1e-10)
    if (case.path / "deterministic_random.json").is_file():
        for row in case.json("deterministic_random.json"):
            with case.check(f"deterministic_random {row}"):
                assert deterministic_random(row["min_value"], row["max_value"], row["data"]) == row["result"]
    case.finish()


@cases("poseformer", "camera")
def test_camera(case: Case) -> None:
    arrays = case.arrays()
    q, v = arrays["q"], arrays["v"]
    world = arrays["world"]
    # One pass over arrays, one over tensors: the functions take both.
    for kind in (np.asarray, torch.from_numpy):
        case.close("qrot", camera.qrot(kind(q), kind(v)), arrays["qrot"], atol=1e-5)
        case.close("qinverse", camera.qinverse(kind(q)), arrays["qinverse"], atol=1e-5)
        unnormalised = camera.qrot(kind(arrays["q_unnormalised"]), kind(v))
        case.close("qrot unnormalised", unnormalised, arrays["qrot_unnormalised"], atol=1e-5, rtol=1e-5)
        for name in arrays["cam_names"].tolist():
            subject, index = name.rsplit("_", 1)
            recorded = camera.recorded_camera("h36m", subject, int(index))
            outer = kind(recorded["orientation"]), kind(recorded["translation"])
            inner, size = kind(recorded["intrinsics"]), (recorded["width"], recorded["height"])
            seen = camera.world_to_camera(kind(world), *outer)
            case.close(f"{name} cam", seen, arrays[f"{name}_cam"], atol=1e-5)
            case.close(f"{name} back", camera.camera_to_world(seen, *outer), arrays[f"{name}_back"], atol=1e-5)
            given = kind(arrays[f"{name}_cam"])
            case.close(f"{name} proj", camera.project(given, inner), arrays[f"{name}_proj"], atol=1e-5)
            linear = camera.project_linear(given, inner)
            case.close(f"{name} proj linear", linear, arrays[f"{name}_proj_linear"], atol=1e-5)
            pixels = camera.to_pixels(kind(arrays[f"{name}_proj"]), *size)
            case.close(f"{name} pixels", pixels, arrays[f"{name}_pixels"], atol=1e-9)
            renormalised = camera.normalise_screen(pixels, *size)
            case.close(f"{name} renorm", renormalised, arrays[f"{name}_renorm"], atol=1e-9)
        points, parameters = kind(arrays["clamp_X"]), kind(arrays["clamp_K"])
        clamped, linear = camera.project(points, parameters), camera.project_linear(points, parameters)
        case.close("clamp", clamped, arrays["clamp_proj"], atol=1e-5, rtol=1e-5)
        case.close("clamp linear", linear, arrays["clamp_proj_linear"], atol=1e-5, rtol=1e-5)
        size = arrays["pix_wh"].tolist()
        normalised = camera.normalise_screen(kind(arrays["pix"]), *size)
        case.close("pix norm", normalised, arrays["pix_norm"], atol=1e-9)
        # The published function was given its own float64 result here.
        case.close("pix back", camera.to_pixels(normalised, *size), arrays["pix_back"], atol=1e-9)
    vectors = arrays["intrinsic_4x9"]
    found = [camera.intrinsics_vector(entry) for entry in camera.camera_table()["h36m"]["intrinsics"]]
    case.close("intrinsics", np.stack(found), vectors, atol=1e-7)
    case.finish()


@cases("motionbert", "preprocess")
def test_preprocess(case: Case) -> None:
    arrays = case.arrays()
    check_crops(case, arrays)
    check_layouts(case, arrays)
    check_resampling(case, arrays)
    check_clips(case, arrays)
    check_action_input(case, arrays)
    check_wild(case, arrays)
    check_augmentation(case)
    case.finish()


def close64(case: Case, name: str, found: np.ndarray | Tensor, expected: np.ndarray) -> None:
    case.close(name, found, expected, atol=1e-9, rtol=1e-9)


def check_crops(case: Case, arrays: Arrays) -> None:
    body = h36m()
    for name in arrays.names("crop"):
        if name.endswith("_in"):
            continue
        prefix, options = re.fullmatch(r"(crop\w*?)_out(?:_(.+))?", name).groups()  # type: ignore[union-attr]
        clip = torch.from_numpy(arrays[f"{prefix}_in"])
        options = options or "r1"
        if random := re.fullmatch(r"rand_seed(\d+)_range_([\d.]+)_([\d.]+)", options):
            seed, low, high = random.groups()
            ratio = np.random.RandomState(int(seed)).uniform(float(low), float(high))
        else:
            ratio = float(options.removeprefix("r"))
        found = crop.crop_scale_3d(clip, body, ratio) if prefix == "crop3d" else crop.crop_scale(clip, ratio)
        close64(case, name, found, arrays[name])


def check_layouts(case: Case, arrays: Arrays) -> None:
    converters = {
        "coco2h36m_out": ("coco_in", keypoints.coco_to_h36m),
        "halpe2h36m_out": ("halpe_in", keypoints.halpe_to_h36m),
        "posetrack2h36m_out": ("posetrack_in", keypoints.posetrack_to_h36m),
    }
    for name, (source, convert) in converters.items():
        if name not in arrays:
            continue
        close64(case, name, convert(arrays[source]), arrays[name])
        close64(case, f"{name} of a tensor", convert(torch.from_numpy(arrays[source])), arrays[name])
    if "flip_in" not in arrays:
        return
    pose, flipped = arrays["flip_in"], arrays["flip_out"]
    close64(case, "flip on the device", mirror_pose(torch.from_numpy(pose), h36m()), flipped)
    close64(case, "flip in the data layer", mirrored(pose, h36m(), negate=True, axis=-2), flipped)


def check_resampling(case: Case, arrays: Arrays) -> None:
    for name in arrays.names("resample_"):
        kind, source, count, seed = re.fullmatch(r"resample_([a-z]+)_(\d+)_(\d+)(?:_seed(\d+))?", name).groups()  # type: ignore[union-attr]
        if kind == "det":
            found = motion.resample_indices(int(source), int(count))
        else:
            draw = {"rand": motion.resample_legacy, "replay": motion.replay_legacy}[kind]
            found = draw(int(source), int(count), np.random.RandomState(int(seed)))
        case.close(name, found, arrays[name])


def check_clips(case: Case, arrays: Arrays) -> None:
    for name in arrays.names("split_"):
        if found := re.fullmatch(r"split_(\w*?)(\d+)_(\d+)_seed(\d+)", name):
            prefix, count, stride, seed = found.groups()
            videos = arrays[f"split_{prefix}vids"]
            clips = motion.split_clips(videos, int(count), int(stride), np.random.RandomState(int(seed)))
            case.close(name, clips, arrays[name])


def check_action_input(case: Case, arrays: Arrays) -> None:
    for name in arrays.names("make_cam_"):
        height, width = (int(side) for side in name.removeprefix("make_cam_").split("x"))
        way = preprocess("motionbert_action")
        close64(case, name, way.to_network(arrays["cam_in"], width, height), arrays[name])
        close64(case, f"{name} back", way.from_network(arrays[name], width, height), arrays["cam_in"])
    if "track_in" in arrays:
        close64(case, "track_out", motion.repair_identities(arrays["track_in"]), arrays["track_out"])
    seeds = [int(name.removeprefix("move_out_seed")) for name in arrays.names("move_out_seed")]
    told = []
    for seed in seeds:
        # The published draw of the number of segments comes from python's generator and has one possible result.
        draws = motion.drift_ranges(torch.from_numpy(np.random.RandomState(seed).random_sample((4, 2))))
        moved = motion.drift(torch.from_numpy(arrays["move_in"]), draws)
        close64(case, f"move_out_seed{seed}", moved, arrays[f"move_out_seed{seed}"])
        told.append(np.abs(draws.numpy() - arrays["move_draws_A_S_Tx_Ty"]).max())
    if seeds:
        close64(case, "draws of one of the moves", np.array(min(told)), np.array(0.0))


def check_wild(case: Case, arrays: Arrays) -> None:
    for name in arrays.names("wild_"):
        path = case.file("alphapose-results.json")
        track = re.search(r"focus(\d+)", name)
        (people,) = tracks(path, int(track[1]) if track else "all")
        pose = keypoints.halpe_to_h36m(people.points)
        if pixel := re.fullmatch(r"wild_pixel_.*?(\d+)x(\d+)", name):
            width, height = int(pixel[1]), int(pixel[2])
            found = preprocess("motionbert_pixel").to_network(pose, width, height)
        else:
            found = crop.crop_scale(torch.from_numpy(pose)).numpy()
        case.close(name, found.astype(np.float32), arrays[name], atol=1e-6)


def check_augmentation(case: Case) -> None:
    if not (case.path / "augment2d.npz").exists():  # left out of the kept case
        return
    arrays = case.arrays("augment2d.npz")
    model = detections.NoiseModel.from_dict(
        {
            "mean": arrays["noise_mean"],
            "std": arrays["noise_std"],
            "weight": arrays["noise_weight"],
            "confidence": {key: arrays[f"d2c_{key}"] for key in "abms"},
            "uniform_range": 0.06,
            "jitter": 0.002,
            "key_frames": arrays["draw_sel"].shape[1],
        }
    )
    with case.check("shipped noise model"):
        assert model == detections.noise_model()
    clean = torch.from_numpy(arrays["x"])
    batch, frames, joints, _ = clean.shape
    names = ("draw_sel", "draw_gauss", "draw_unif", "draw_delta", "draw_conf")
    given = detections.NoiseDraws(*(torch.from_numpy(arrays[name]) for name in names))
    masks = detections.MaskDraws(torch.from_numpy(arrays["draw_mask"]), torch.from_numpy(arrays["draw_mask_T"]))
    ratios = (0.05, 0.1)  # of the pretraining configs
    close = {"atol": 1e-5}
    case.close("noisy, given draws", detections.add_noise(clean, model, given), arrays["noisy"], **close)
    case.close("masked, given draws", detections.mask(clean, masks, *ratios), arrays["masked"], **close)

    def seeded() -> torch.Generator:
        return torch.Generator().manual_seed(int(arrays["torch_seed"]))

    drawn = detections.legacy_draws(batch, frames, model, seeded())
    for name, found, expected in zip(drawn._fields, drawn, given, strict=True):
        case.close(f"legacy draw {name}", found, expected)
    hidden = detections.legacy_mask_draws(batch, frames, joints, seeded())
    for name, found, expected in zip(hidden._fields, hidden, masks, strict=True):
        case.close(f"legacy draw of the mask, {name}", found, expected)
    generator = seeded()
    noisy = detections.add_noise(clean, model, detections.legacy_draws(batch, frames, model, generator))
    both = detections.mask(noisy, detections.legacy_mask_draws(batch, frames, joints, generator), *ratios)
    case.close("noise, then mask", both, arrays["both"], **close)
