"""Mirrored poses and flip averaging."""

from __future__ import annotations

import pytest
import torch

from kinema.core.skeleton import SKELETONS, skeleton
from kinema.errors import DataError
from kinema.inference.flip import flip_average, mirror_pose


@pytest.mark.parametrize("name", sorted(SKELETONS))
@pytest.mark.parametrize("channels", [2, 3])
def test_mirror_twice_is_identity(name: str, channels: int) -> None:
    pose = torch.randn(2, 5, len(skeleton(name)), channels)
    mirrored = mirror_pose(pose, skeleton(name))
    assert not torch.equal(mirrored, pose)
    assert torch.equal(mirror_pose(mirrored, skeleton(name)), pose)


def test_mirror_exchanges_sides_and_negates_x_only() -> None:
    body = skeleton("h36m17")
    pose = torch.randn(4, 17, 3)
    mirrored = mirror_pose(pose, body)
    for side, other in ((body.left, body.right), (body.right, body.left)):
        for a, b in zip(side, other, strict=True):
            assert torch.equal(mirrored[:, a, 0], -pose[:, b, 0])
            assert torch.equal(mirrored[:, a, 1:], pose[:, b, 1:])  # y and the confidence move with the joint
    assert torch.equal(mirrored[:, body.root, 1:], pose[:, body.root, 1:])


def test_mirror_leaves_its_input_and_passes_gradients() -> None:
    pose = torch.randn(2, 17, 2, requires_grad=True)
    kept = pose.detach().clone()
    mirror_pose(pose, skeleton("h36m17"))[..., 0].sum().backward()
    assert torch.equal(pose.detach(), kept)
    assert torch.equal(pose.grad[..., 0], torch.full((2, 17), -1.0))


def test_mirror_works_in_training_after_inference_mode() -> None:
    body = skeleton("humaneva15")
    with torch.inference_mode():
        mirror_pose(torch.randn(1, 15, 2), body)
    pose = torch.randn(1, 15, 2, requires_grad=True)
    mirror_pose(pose, body).square().sum().backward()
    torch.testing.assert_close(pose.grad, 2 * pose.detach())


def test_mirror_refuses_another_skeleton() -> None:
    with pytest.raises(DataError, match="J=15"):
        mirror_pose(torch.zeros(1, 17, 2), skeleton("humaneva15"))


def test_average_of_a_symmetric_predictor_changes_nothing() -> None:
    body = skeleton("h36m17")

    def predict(pose: torch.Tensor) -> torch.Tensor:  # mirrors with its input
        return torch.cat([pose * 2, pose[..., 1:] ** 2], dim=-1)

    pose = torch.randn(2, 3, 17, 2, dtype=torch.float64)
    torch.testing.assert_close(flip_average(predict, pose, body, body), predict(pose))


def test_average_uses_the_skeleton_of_each_side() -> None:
    body2d, body = skeleton("coco17"), skeleton("humaneva15")
    weight = torch.randn(17 * 2, 15 * 3, dtype=torch.float64)

    def predict(pose: torch.Tensor) -> torch.Tensor:
        return (pose.flatten(2) @ weight).unflatten(2, (15, 3))

    pose = torch.randn(2, 3, 17, 2, dtype=torch.float64)
    expected = (predict(pose) + mirror_pose(predict(mirror_pose(pose, body2d)), body)) / 2
    found = flip_average(predict, pose, body2d, body)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(mirror_pose(flip_average(predict, mirror_pose(pose, body2d), body2d, body), body), found)
