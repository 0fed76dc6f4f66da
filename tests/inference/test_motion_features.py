"""Features of motions by a recogniser of actions, and the Frechet distance that the protocol takes in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import kinema
from kinema.core import motion_metrics
from kinema.core.clip_preprocess import clip_preprocess
from kinema.core.skeleton import skeleton
from kinema.errors import ConfigError, KinemaError
from kinema.inference.motion_features import MotionFeatures
from kinema.protocols.prediction import PredictionProtocol
from tests.modes.action_networks import lifter, trained
from tests.protocols.motion_store import HISTORY, batch, motion, samples, windows

BODY = skeleton("h36m17")
HEADING = ("dataset.preprocess=heading", "dataset.name=cmu_things")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(trained(tmp_path_factory.mktemp("fid") / "best.ckpt", *HEADING))


def judged(made: Any, values: torch.Tensor, network: str, size: int = 5) -> Any:
    one = PredictionProtocol(made, history=HISTORY, feature_network=network)
    for rows in torch.arange(len(values)).split(size):
        one.update(values[rows], batch(rows.tolist()))
    return one.compute()


def test_features_are_what_the_network_sees_of_each_clip(network: str) -> None:
    clips = motion(windows())
    found = MotionFeatures(network, BODY)(clips)
    model: Any = kinema.load(network).eval()
    frames = np.floor(np.linspace(0, clips.shape[1], 8, endpoint=False)).astype(int)
    for clip, told in zip(clips[:3], found, strict=False):
        pose = torch.cat([torch.zeros(len(clip), 1, 3), clip.unflatten(-1, (-1, 3))], dim=1).numpy()
        seen = clip_preprocess("heading").apply(pose[None], score=None, size=None, skeleton=BODY)
        expected = model.pool(torch.from_numpy(np.asarray(seen, np.float32))[None, :, frames])[0]
        torch.testing.assert_close(told.float(), expected, rtol=1e-4, atol=1e-5)
    assert found.dtype == torch.float64 and found.isfinite().all()


def test_there_is_nothing_random_in_them_and_batches_do_not_matter(
    network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = motion(windows())
    first = MotionFeatures(network, BODY)(clips)
    torch.manual_seed(5)
    torch.testing.assert_close(MotionFeatures(network, BODY)(clips), first, rtol=0, atol=0)
    monkeypatch.setattr("kinema.inference.motion_features._TOGETHER", 3)
    torch.testing.assert_close(MotionFeatures(network, BODY)(clips), first, rtol=1e-5, atol=1e-6)


def test_a_motion_that_diverged_is_nan_and_alone(network: str) -> None:
    clips = motion(windows())
    broken = clips.clone()
    broken[1, 2, 3] = torch.nan
    found, whole = MotionFeatures(network, BODY)(broken), MotionFeatures(network, BODY)(clips)
    assert found[1].isnan().all()
    torch.testing.assert_close(found[2:], whole[2:])


def test_bodies_in_one_point_and_still_ones_are_no_error(network: str) -> None:
    still = motion(windows())[:2, :1].expand(-1, 6, -1).clone()
    still[1] = 0
    found = MotionFeatures(network, BODY)(still)
    assert found[0].isfinite().all() and found[1].isnan().all()


def test_fid_is_the_distance_of_both_sets_of_features(network: str) -> None:
    made = windows()
    values = samples(made)
    found = judged(made, values, network)
    features = MotionFeatures(network, BODY)
    real, predicted = features(motion(made)[:, HISTORY:]).numpy(), features(values.flatten(0, 1)).numpy()
    sides = [torch.from_numpy(one) for side in (predicted, real) for one in (side.mean(0), np.cov(side.T))]
    expected = float(motion_metrics.frechet_distance(*sides))
    assert found.scalars["fid_cmu"] == pytest.approx(expected, rel=1e-6)
    assert found.summary["fid_cmu"] == found.scalars["fid_cmu"] > 0
    assert judged(made, values, network, size=2).scalars["fid_cmu"] == pytest.approx(expected, rel=1e-6)


def test_the_truth_is_no_distance_away(network: str) -> None:
    made = windows()
    truth = motion(made)[:, None, HISTORY:]
    far = judged(made, truth + 0.5 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(0)), network)
    assert judged(made, truth, network).scalars["fid_cmu"] < 1e-6 * far.scalars["fid_cmu"]


def test_without_predictions_there_is_no_fid(network: str) -> None:
    made = windows()
    found = judged(made, torch.full_like(samples(made), torch.nan), network)
    assert "fid_cmu" not in found.scalars and found.summary["fid_cmu"] != found.summary["fid_cmu"]


def test_networks_that_are_no_recogniser_are_refused(network: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no recogniser of actions.*experiment=cmu/actions"):
        MotionFeatures(str(lifter(tmp_path / "lifter.ckpt")), BODY)
    with pytest.raises(ConfigError, match="knows the joints of h36m17, the motions have those of humaneva15"):
        MotionFeatures(network, skeleton("humaneva15"))
    with pytest.raises(KinemaError, match=r"absent\.ckpt"):
        MotionFeatures(str(tmp_path / "absent.ckpt"), BODY)
