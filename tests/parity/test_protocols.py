"""Evaluation and training steps as the published programs do them, through protocols, task and data layer."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kinema.checkpoints.load import load
from kinema.composition import build_data, build_task, compose, quieten_lightning
from kinema.core.camera import camera_table
from kinema.core.skeleton import skeleton
from kinema.core.spec import DataSpec
from kinema.data.readers import motionbert_h36m
from kinema.data.sequences import Sequences
from kinema.data.windows import Windows
from kinema.inference.flip import flip_average
from kinema.inference.trajectory import separated
from kinema.protocols.motionbert import MotionBERTProtocol
from kinema.protocols.report import Report
from kinema.tasks import optim
from kinema.tasks.lifting import LiftingTask
from tests.parity.golden import Arrays, Case, cases
from tests.parity.official import Peer

pytestmark = pytest.mark.parity

MB_KEYS = ("pose2d", "pose3d", "pose3d_eval", "factor", "size")


# MotionBERT's 2.5D protocol.


@cases("motionbert", "h36m_eval")
@torch.no_grad()
def test_h36m_eval(case: Case) -> None:
    arrays = case.arrays()
    (pickle,) = [path for path in case.path.iterdir() if path.suffix == ".pkl"]
    sequences = motionbert_h36m.read(case.file(pickle.name).parent, file=pickle.name)
    splits = clip_windows(case, arrays, sequences)
    check_geometry(case, arrays, sequences)
    batches = {name: windows[picks_of(windows)] for name, windows in splits.items()}
    for key, name in (("pose2d", "input"), ("pose3d", "label")):
        case.close(f"{name}_train_first", batches["train"][key][0], arrays[f"{name}_train_first"])
        case.close(f"{name}_test", batches["std"][key], arrays[f"{name}_test"])
    case.close("test_hw", batches["std"]["size"][:, 0], arrays["test_hw"])
    for name in arrays.names():
        match = re.fullmatch(r"(\w+)_canned_rootrel([01])_pred", name)
        if match:
            check_canned(case, arrays, splits[match[1]], batches[match[1]], name, relative=match[2] == "1")
    check_models(case, arrays, splits["std"], batches["std"])
    case.finish()


def clip_windows(case: Case, arrays: Arrays, sequences: Sequences) -> dict[str, Windows]:
    """Clips of the training split and of every test split; the generator is seeded anew before each pair."""
    frames, seed = int(arrays["n_frames"]), int(arrays["numpy_seed"])
    of_split = {name: sequences.select(sequences.table["split"] == name) for name in ("train", "test")}
    strides = {"std": frames, "overlap": frames // 3}
    made = {}
    for name in arrays.names():
        match = re.fullmatch(r"(\w+)_split_test", name)
        if not match:
            continue
        random = np.random.RandomState(seed)
        made["train"] = Windows.strided(
            of_split["train"], frames, frames // 3, random=random, keys=("pose2d", "pose3d", "size")
        )
        made[match[1]] = Windows.strided(of_split["test"], frames, strides[match[1]], random=random, keys=MB_KEYS)
        first = int(of_split["test"].table["start"][0])
        found = made[match[1]].frames(picks_of(made[match[1]])) - first
        case.close(name, found, arrays[name])
    case.close("split_train", made["train"].frames(picks_of(made["train"])), arrays["split_train"])
    return made


def picks_of(windows: Windows) -> Tensor:
    """All rows of some windows, in order."""
    rows = torch.arange(len(windows))
    return torch.stack([torch.zeros_like(rows), rows, rows], dim=1)


def check_geometry(case: Case, arrays: Arrays, sequences: Sequences) -> None:
    """The image-space labels of the file are the projections of the camera-space joints it was made from."""
    intrinsics = {camera["id"]: camera for camera in camera_table()["h36m"]["intrinsics"]}
    for split in ("train", "test"):
        table = sequences.select(sequences.table["split"] == split).table
        first, count = int(table["start"][0]), int(table["length"].sum())
        size = sequences.arrays["size"][first : first + count].astype(np.float64)
        label = sequences.arrays["pose3d"][first : first + count].astype(np.float64)
        # back to pixels, x / w * 2 - 1, y / w * 2 - h / w, z / w * 2
        width = size[:, 0, None, None]
        shift = np.stack([np.ones(count), size[:, 1] / size[:, 0], np.zeros(count)], axis=-1)[:, None]
        label = (label + shift) * width / 2
        joints = arrays[f"{split}_joint_3d_camera"]
        fits = np.stack([image_of(joints, camera) for camera in intrinsics.values()])
        error = np.abs(fits - label).max((2, 3)).min(0)
        case.close(f"{split}_joint_3d_camera", error, np.zeros(count), atol=2e-3)
        if split == "test":
            depth = (joints[:, :, 2] - joints[:, :1, 2])[..., None]
            factor = sequences.arrays["factor"][first : first + count, None, None]
            case.close("depth in mm", label[..., 2:] * factor, depth, atol=2e-2)


def image_of(joints: np.ndarray, camera: dict[str, Any]) -> np.ndarray:
    """Camera-space millimetres (N, J, 3) to pixels and relative depth, as gendb.py of lcn-pose does it."""
    # made with the calibration rounded to 0.01 pixels
    focal, centre = np.round(camera["focal_length"], 2), np.round(camera["center"], 2)
    places = joints[..., :2] / joints[..., 2:] * focal + centre
    root = joints[:, :1, 2:]
    ratio = (2000 * focal[0] / root + 1) / 2000
    return np.concatenate([places, ratio * (joints[..., 2:] - root)], axis=-1)


def check_canned(
    case: Case, arrays: Arrays, windows: Windows, batch: dict[str, Tensor], name: str, *, relative: bool
) -> None:
    """Errors of stored predictions, in one batch and in three, and the denormalised values."""
    stem, pred = name.removesuffix("_pred"), torch.from_numpy(arrays[name])
    protocol = MotionBERTProtocol(windows, root_relative=relative)
    protocol.update(pred, batch)
    check_report(case, arrays, stem, protocol.compute(), windows, atol=1e-3)
    protocol.reset()
    for part in torch.arange(len(pred)).chunk(3):
        protocol.update(pred[part], {key: value[part] for key, value in batch.items()})
    check_report(case, arrays, stem, protocol.compute(), windows, atol=1e-3)
    if f"{stem}_denorm_first3" in arrays:
        expected = arrays[f"{stem}_denorm_first3"]
        shown = slice(0, len(expected))
        # the published program leaves blocked clips in pixels
        blocked = protocol._frames.left_out[batch["index"][shown]]
        scaled = dict(batch, factor=batch["factor"].clone())
        scaled["factor"][shown][blocked] = 1
        found = protocol.millimetres(pred, scaled)[shown]
        case.close(f"{stem}_denorm_first3", found, expected, rtol=1e-6, atol=1e-3)


def check_report(case: Case, arrays: Arrays, stem: str, report: Report, windows: Windows, *, atol: float) -> None:
    """P1, P2 per action in the order of the file, and their means."""
    rows = {row["action"]: row for row in report.tables["action"]}
    names = [str(name) for name in arrays["action_names"]]
    for number, measure in ((1, "mpjpe"), (2, "p_mpjpe")):
        with case.check(stem):
            assert set(rows) == set(names)
            found = np.array([rows[name][measure] for name in names])
            np.testing.assert_allclose(found, arrays[f"{stem}_P{number}"], rtol=0, atol=atol)
            assert abs(report.scalars[measure] - float(arrays[f"{stem}_e{number}"])) <= atol
        arrays.unread -= {f"{stem}_P{number}", f"{stem}_e{number}"}


def check_models(case: Case, arrays: Arrays, windows: Windows, batch: dict[str, Tensor]) -> None:
    """The stored network makes the predictions, with the options in the names."""
    config = case.json()
    (path,) = [path for path in case.path.iterdir() if path.suffix == ".bin"]
    model = load(case.file(path.name), num_heads=config["num_heads"])
    skeleton = windows.sequences.skeleton
    stems = [name.removesuffix("_P1") for name in arrays.names("model_") if name.endswith("_P1")]
    for stem in stems:
        match = re.fullmatch(r"model_flip([01])_rootrel([01])_gt2d([01])", stem)
        with case.check(stem):
            assert match, "a name of unknown meaning"
        flip, relative, gt_2d = (value == "1" for value in match.groups())
        pose = batch["pose2d"]  # also with gt2d, which only overwrites the prediction here
        pred = flip_average(model, pose, skeleton, skeleton) if flip else model(pose)
        protocol = MotionBERTProtocol(windows, root_relative=relative, gt_2d=gt_2d)
        protocol.update(pred, dict(batch, pose=pose))
        check_report(case, arrays, stem, protocol.compute(), windows, atol=1e-2)


# MotionBERT's training steps.

TERMS = {
    "3d_pos": "mpjpe",
    "3d_scale": "n_mpjpe",
    "3d_velocity": "velocity",
    "lv": "limb_variance",
    "lg": "limb_length",
    "angle": "angle",
    "angle_velocity": "angle_velocity",
    "2d_proj": "joint_2d",
    "total": "loss",
}
LAMBDAS = {
    "lambda_scale": "n_mpjpe",
    "lambda_3d_velocity": "velocity",
    "lambda_lv": "limb_variance",
    "lambda_lg": "limb_length",
    "lambda_a": "angle",
    "lambda_av": "angle_velocity",
}
TARGET_OF_MODE = {"rootrel": "root_relative", "global": "first_frame_depth", "2d": "root_relative"}


@cases("motionbert", "train_step")
def test_train_step(case: Case) -> None:
    arrays, config = case.arrays(), case.json()
    heads = {"num_heads": config["num_heads"]}
    checkpoint = load(case.file("train_latest_epoch.bin"), **heads)
    with torch.no_grad():
        first = torch.from_numpy(arrays["x"][0]).float()
        case.close("train_ckpt_out", checkpoint(first), arrays["train_ckpt_out"], atol=2e-5)
    with case.check("numpy scalar in the checkpoint"):
        assert np.isfinite(checkpoint.provenance.facts["min_loss"])
    modes = dict.fromkeys(name.partition("_loss_")[0] for name in arrays if "_loss_" in name)
    for mode in modes:
        target = TARGET_OF_MODE[mode]
        model = load(case.file("init.bin"), **heads).double()
        check_mode(case, arrays, config, mode, target, model)
    case.finish()


def check_mode(case: Case, arrays: Arrays, config: dict[str, Any], mode: str, target: str, model: nn.Module) -> None:
    """One epoch in one mode: every loss before each step, some weights and the output after the last."""
    weights = {"joint_2d": 1.0} if mode == "2d" else {"mpjpe": 1.0}
    if mode != "2d":
        weights |= {ours: float(config.get(key, 0)) for key, ours in LAMBDAS.items()}
    recipe = partial(torch.optim.AdamW, lr=config["lr"], weight_decay=config["weight_decay"])
    task = lifting(model, weights, target, recipe)
    judge = lifting(model, dict.fromkeys(weights, 1.0), target, recipe)  # terms of weight 0 too
    found: dict[str, list[float]] = {}
    optimizer = optim.build(recipe, optim.parameter_groups(model, None))
    for x, gt in zip(arrays["x"], arrays["gt"], strict=True):
        batch = {"pose": torch.from_numpy(x), "pose2d": torch.from_numpy(x), "pose3d": torch.from_numpy(gt)}
        terms = task.loss(batch)
        with torch.no_grad():
            every = {**judge.loss(batch), "loss": terms["loss"]}
        for name, value in every.items():
            found.setdefault(name, []).append(float(value.detach()))
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
    for name in arrays.names(f"{mode}_loss_"):
        ours = TERMS[name.removeprefix(f"{mode}_loss_")]
        case.close(name, np.array(found[ours]), arrays[name], rtol=1e-9)
    state = model.state_dict()
    for name in arrays.names(f"{mode}_after::"):
        case.close(name, state[name.split("::")[1]], arrays[name], atol=1e-7)
    total = sum(parameter.detach().abs().sum() for parameter in model.parameters())
    case.close(f"{mode}_after_abs_sum", total, arrays[f"{mode}_after_abs_sum"], rtol=1e-9)
    with torch.no_grad():
        out = model.eval()(torch.from_numpy(arrays["x"][0]))
    case.close(f"{mode}_after_out", out, arrays[f"{mode}_after_out"], atol=1e-7)


def lifting(model: nn.Module, losses: dict[str, float], target: str, recipe: Any, **options: Any) -> LiftingTask:
    """A lifting task around a model for 17 joints in image space."""
    task = LiftingTask(
        model,
        recipe,
        losses=losses,
        target=target,
        flip_average=True,
        mask_invalid=True,
        chunk=4096,
        protocol="motionbert",
        objective="val/mpjpe",
        objective_mode="min",
        **options,
    )
    task.spec = DataSpec(
        skeleton=skeleton("h36m17"),
        skeleton2d=skeleton("h36m17"),
        in_channels=3,
        unit="image",
        space="image",
        preprocess="motionbert",
        fps=50,
        has_3d=True,
        tasks=frozenset({"lifting"}),
    )
    return task


# VideoPose3D's protocol, as PoseFormer runs it too.

MEASURES = ("mpjpe", "p_mpjpe", "n_mpjpe", "mpjve")


def peer_of(case: Case, row: dict[str, Any]) -> Peer:
    """The published run of a row of results.json."""
    weights = row.get("weights") or row["initial_weights"]
    return Peer(case.path.parent, case.sibling("dataset"), weights, row["cli"])


def network(peer: Peer, **overrides: Any) -> Any:
    """The stored pose network; what its file cannot tell comes from its config."""
    return load(peer.path, part="model_pos", **{**peer.arguments, **overrides})


def trainer_for(**options: Any) -> pl.Trainer:
    """A Lightning Trainer that prints and writes nothing."""
    quieten_lightning()
    return pl.Trainer(
        accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, num_sanity_val_steps=0, **options,
    )  # fmt: skip


def check_evaluation(
    case: Case, what: str, found: Report, expected: dict[str, Any], model: nn.Module, rtol: float = 0.0
) -> None:
    """A report against the printed results of a script: information, every action, the means."""
    with case.check(f"{what} info"):
        info = expected.pop("info")
        assert info["Receptive field"] == model.signature.frames
        # the scripts count the pose network alone
        pose_network, _ = separated(model)
        assert info["Trainable parameter count"] == sum(p.numel() for p in pose_network.parameters())
        assert info["Testing on"] == sum(row["frames"] for row in found.tables["action"])
    subjects = expected.pop("by_subject", None)
    if subjects is not None:
        rows = {row["subject"]: row for row in found.tables["subject"]}
        with case.check(f"{what} subjects"):
            assert set(rows) == set(subjects)
        for subject, values in subjects.items():
            detail = [row for row in found.tables["subject_action"] if row["subject"] == subject]
            check_rows(case, f"{what} {subject}", detail, rows[subject], values, rtol)
    else:
        check_rows(case, what, found.tables["action"], found.scalars, expected, rtol)


def check_rows(
    case: Case, what: str, rows: list[dict[str, Any]], mean: dict[str, Any], expected: Any, rtol: float
) -> None:
    actions = {row["action"]: row for row in rows}
    wanted = {name: values for name, values in expected.items() if not name.startswith("average")}
    with case.check(f"{what} actions"):
        assert set(actions) == set(wanted)
    for measure in MEASURES:
        for action, values in wanted.items():
            found = actions[action][measure]
            case.close(f"{what} {action} {measure}", found, values[measure], atol=0.01, rtol=rtol)
        case.close(f"{what} average {measure}", mean[measure], expected["average"][measure], atol=0.01, rtol=rtol)
        digits = 2 if measure == "mpjve" else 1
        printed = expected["average_rounded"][measure]
        case.close(f"{what} printed {measure}", mean[measure], printed, atol=0.5 * 10**-digits + 0.01, rtol=rtol)


@cases("poseformer", "evaluate")
def test_evaluate(case: Case) -> None:
    for name, row in case.json("results.json").items():
        peer, shown = peer_of(case, row), f"pred_{name}.npz"
        model = network(peer)
        config = compose(peer.overrides())
        data, task = build_data(config, model.signature), build_task(config, model)
        trainer_for().test(task, datamodule=data, verbose=False)
        check_evaluation(case, name, task.reports["test"], dict(row["results"]), model)
        if (case.path / shown).is_file():
            check_prediction(case, case.arrays(shown), task, data)
    case.finish()


def check_prediction(case: Case, arrays: Arrays, task: LiftingTask, data: Any) -> None:
    """The one stored sequence, found by its keypoints: input, target and the averaged prediction."""
    windows = data.windows("test")
    keypoints = arrays["keypoints_normalised"]
    length = len(keypoints)
    rows = np.flatnonzero(windows.sequences.table["length"] == length)
    near = {r: np.abs(windows.sequences.sequence(r)["pose2d"][..., :2] - keypoints).max() for r in rows}
    best = min(near, key=near.__getitem__)
    case.close(f"{arrays.name} keypoints", near[best], 0.0, atol=1e-5)
    batch = data.transform(windows[picks_of(windows)[best : best + 1]])
    pose3d = batch["pose3d"][0].clone()
    pose3d[:, 1:] -= pose3d[:, :1].clone()  # slot 0 keeps the trajectory
    case.close(f"{arrays.name} positions_3d", pose3d, arrays["positions_3d"], atol=1e-5)
    with torch.no_grad():
        found = task.eval().predict(batch)[0]
    expected = arrays["prediction"]
    case.close(f"{arrays.name} prediction", found.reshape(expected.shape), expected, atol=1e-5)
