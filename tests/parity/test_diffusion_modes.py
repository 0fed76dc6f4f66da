"""What the modes control and switch hold: the masks and motions of the published runs.

The runs themselves are those of `test_diffusion_core`.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kinema.core import motion_masks
from kinema.core.skeleton import SKELETONS, Skeleton
from kinema.inference import motion_modes
from kinema.inference.motion_windows import MotionWindow
from tests.parity.golden import Case, cases

pytestmark = pytest.mark.parity


def body_of(features: int) -> Skeleton:
    """The body whose parts the released code numbers."""
    return next(one for one in SKELETONS.values() if "control" in one.tables and 3 * (len(one) - 1) == features)


def windows(motion: np.ndarray, body: Skeleton) -> list[MotionWindow]:
    joints = motion.reshape(*motion.shape[:2], -1, 3)
    return [MotionWindow(f"window {i}", 0, np.insert(one, body.root, 0.0, axis=1)) for i, one in enumerate(joints)]


@cases("diffusion", "ddim_humanmac_control")
def test_what_control_holds(case: Case) -> None:
    config, arrays = case.json(), case.arrays()
    traj, mask = arrays["traj"], arrays["mask"]
    body = body_of(traj.shape[-1])
    wish = motion_modes.control(windows(traj, body), [config["mode"]], body, config["t_his"])
    (known,) = wish.known
    for one in mask:
        np.testing.assert_array_equal(known.mask.numpy(), one.astype(bool))
    np.testing.assert_array_equal(known.motion.numpy(), arrays["traj_fix"])
    assert known.shared and known.until == 0
    assert len(arrays["injected_noise"][0]) == 1  # which is why one noise is shared
    name = motion_masks.part_names(body)[int(config["mode"].removeprefix("fix_"))]
    assert motion_masks.joints_of([name], body) == wish.given


@cases("diffusion", "ddim_humanmac_switch")
def test_what_switch_holds(case: Case) -> None:
    config, arrays = case.json(), case.arrays()
    traj, history = arrays["traj"], config["t_his"]
    body = body_of(traj.shape[-1])
    count = motion_masks.switch_frames(history, config["t_pred"], None)
    until = 2 * config["ddim_timesteps"] - config["n_injected"]
    here = windows(traj, body)
    wish = motion_modes.switch(here, here[0], count, until, body, history)
    (known,) = wish.known
    np.testing.assert_array_equal(known.motion.numpy(), arrays["traj_switch"])
    for one in arrays["mask_end"]:
        np.testing.assert_array_equal(known.mask.numpy(), one[:, 0].astype(bool))
        assert (one == one[:, :1]).all()
    for one in arrays["mask"]:
        observed = motion_masks.observed(history, len(one)).numpy()
        np.testing.assert_array_equal(one.astype(bool), np.broadcast_to(observed[:, None], one.shape))
    assert known.until == until and torch.equal(wish.target, torch.from_numpy(traj[:1]).expand(len(traj), -1, -1))
