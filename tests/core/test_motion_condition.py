"""The history as condition: the last pose and what leads to it."""

from __future__ import annotations

import pytest
import torch

from kinema.core.motion_space import MotionSpace
from kinema.errors import ConfigError


@pytest.mark.parametrize(("history", "stride", "rows"), [(25, 3, 9), (25, 1, 25), (4, 3, 2), (5, 10, 1)])
def test_rows_are_the_last_pose_and_differences_to_it(history: int, stride: int, rows: int) -> None:
    space = MotionSpace(history, 10, 5, condition="history", condition_stride=stride)
    motion = torch.randn(3, history + 10, 6, generator=torch.Generator().manual_seed(0))
    found = space.encode(motion).condition
    assert found.shape == (3, rows, 6) and space.condition_rows == rows
    last = motion[:, history - 1]
    torch.testing.assert_close(found[:, 0], last)
    for row in range(1, rows):
        torch.testing.assert_close(found[:, row], motion[:, history - 1 - row * stride] - last)


def test_the_future_never_enters() -> None:
    space = MotionSpace(6, 4, 5, condition="history", heading=True, hips=(0, 1), residual="padded")
    motion = torch.randn(2, 10, 6, generator=torch.Generator().manual_seed(1))
    other = motion.clone()
    other[:, 6:] = 5.0
    torch.testing.assert_close(space.encode(motion).condition, space.encode(other).condition)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"condition": "poses"}, "task.condition=coeffs"),
        ({"condition": "history", "condition_stride": 0}, "task.condition_stride=1"),
        ({"condition": "history", "condition_scale": (1.0,) * 5}, "task.condition_scale=null"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        MotionSpace(6, 4, 5, **options)  # type: ignore[arg-type]
