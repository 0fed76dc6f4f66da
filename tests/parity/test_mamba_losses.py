"""Losses and metrics of MotionAGFormer, PoseMamba and DBMambaPose against the published programs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kinema.core import losses, pose_errors
from kinema.core.skeleton import skeleton
from tests.parity.golden import Arrays, Case, cases
from tests.parity.test_core import LOSSES, evaluated, h36m

pytestmark = pytest.mark.parity

# Factors inside the published functions; ours are weights of the configuration.
FACTORS = {"weighted_bonelen_loss": (0.001, "limb_length_squared"), "weighted_boneratio_loss": (0.1, "limb_ratio")}
METRICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mpjpe": pose_errors.mpjpe,
    "p_mpjpe": pose_errors.p_mpjpe,
    "jpe": pose_errors.joint_errors,
    "acc_error": pose_errors.acceleration_error,
    "mean_velocity_error": lambda pred, target: pose_errors.mpjve(pred, target).mean(),
}


def loss_of(name: str, arrays: Arrays, frames: slice = slice(None)) -> Callable[[Tensor], Tensor]:
    """A published loss as a function of the prediction, in the type of the prediction."""

    def evaluate(pred: Tensor) -> Tensor:
        target, weight, confidence = (torch.from_numpy(arrays[key]).to(pred.dtype) for key in ("gt", "w", "conf"))
        pred, target, confidence = pred[:, frames], target[:, frames], confidence[:, frames]
        if name in LOSSES:
            return LOSSES[name](pred, target, h36m())
        if name in FACTORS:
            factor, ours = FACTORS[name]
            return factor * losses.LOSSES[ours](pred, target, h36m())
        return {
            "weighted_mpjpe": lambda: losses.weighted_mpjpe(pred, target, weight),
            "loss_TCL": lambda: losses.temporal_consistency(pred, weight),
            "loss_2d_weighted": lambda: losses.joint_2d(pred, target, confidence),
        }[name]()

    return evaluate


@cases("mamba", "losses")
def test_losses(case: Case) -> None:
    arrays, body = case.arrays(), h36m()
    pred = arrays["pred"]
    for key in arrays.names("value/"):
        name = key.removeprefix("value/")
        for dtype in (torch.float64, torch.float32):
            value, gradient = evaluated(loss_of(name, arrays), pred, dtype)
            case.close(f"{name} in {dtype}", value, arrays[key], atol=1e-6)
            case.close(f"gradient of {name} in {dtype}", gradient, arrays[f"grad/{name}"], atol=1e-6)
    for key in arrays.names("single_frame/"):
        name = key.removeprefix("single_frame/")
        value, gradient = evaluated(loss_of(name, arrays, slice(1)), pred)
        case.close(f"{name} of one frame", value, arrays[key], atol=1e-6)
        case.close(f"gradient of {name} of one frame", gradient.isfinite().all(), True)
    check_names(case, arrays)
    pose = torch.from_numpy(pred)
    case.close("limb lengths", losses.limb_lengths(pose, body), arrays["limb_lens"], atol=1e-6)
    case.close("limb angles", losses.limb_angles(pose, body), arrays["angles"], atol=1e-5)
    check_metrics(case, arrays)
    case.finish()


def check_names(case: Case, arrays: Arrays) -> None:
    """The losses by name take the published joint weights; another set may use weights of its own."""
    if arrays["w"].tolist() != list(skeleton("h36m17").tables["joint_weights"]):
        return
    pred, target = torch.from_numpy(arrays["pred"]), torch.from_numpy(arrays["gt"])
    for name, key in (("weighted_mpjpe", "weighted_mpjpe"), ("tcl", "loss_TCL")):
        case.close(f"{name} by name", losses.LOSSES[name](pred, target, h36m()), arrays[f"value/{key}"], atol=1e-6)


def check_metrics(case: Case, arrays: Arrays) -> None:
    pred, target = torch.from_numpy(arrays["metric_pred"]), torch.from_numpy(arrays["metric_gt"])
    for key in arrays.names("metric/"):
        name = key.removeprefix("metric/")
        if name == "p_mpjpe_mirrored":
            mirrored = target * torch.tensor([-1.0, 1.0, 1.0], dtype=target.dtype)
            found = pose_errors.p_mpjpe(mirrored, target)
            with case.check("a reflection is no alignment"):
                assert (found > 1e-3 * pose_errors.mpjpe(mirrored, target)).all()
        else:
            found = METRICS[name](pred, target)
        case.close(name, found, arrays[key], atol=1e-9, rtol=1e-12)
