"""What readers share: finding files, options, and gaps filled by straight lines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinema.data import raw
from kinema.errors import ConfigError, DataError


@settings(deadline=None, max_examples=50)
@given(frames=st.integers(1, 12), joints=st.integers(1, 3), seed=st.integers(0, 10_000), share=st.floats(0, 1))
def test_gaps_are_filled_as_interp_does(frames: int, joints: int, seed: int, share: float) -> None:
    random = np.random.default_rng(seed)
    x = random.normal(size=(frames, joints, 2))
    hole = random.uniform(size=(frames, joints)) < share
    x[hole] = np.nan
    found = raw.filled(x, hole)
    for joint in range(joints):
        present = np.flatnonzero(~hole[:, joint])
        for axis in range(2):
            expected = (
                np.interp(np.arange(frames), present, x[present, joint, axis]) if len(present) else np.zeros(frames)
            )
            # Two ways to write one line differ by rounding.
            np.testing.assert_allclose(found[:, joint, axis], expected, atol=1e-12)


def test_filling_keeps_the_type_and_the_argument() -> None:
    x = np.array([[[1.0]], [[np.nan]], [[3.0]]], np.float32)
    hole = raw.holes(x)
    assert raw.filled(x, hole).dtype == np.float32
    assert raw.filled(x, hole).ravel().tolist() == [1, 2, 3]
    assert np.isnan(x[1]).all()


def test_file_is_found_in_the_folder_or_the_one_above(tmp_path: Path) -> None:
    inner = tmp_path / "h36m"
    inner.mkdir()
    with pytest.raises(DataError, match=rf"x\.npz not found in {inner} .* Ask Ada\. .*paths\.data_dir="):
        raw.locate(inner, "x.npz", "Ask Ada.")
    (tmp_path / "x.npz").touch()
    assert raw.locate(inner, "x.npz", "") == tmp_path / "x.npz"
    (inner / "x.npz").touch()
    assert raw.locate(inner, "x.npz", "") == inner / "x.npz"


def test_unknown_option_and_value_are_named() -> None:
    with pytest.raises(ConfigError, match=r"reader x has no option 'fsp'\. .*: fps, unit"):
        raw.known_options("x", {"fsp": 1}, {"fps": 1, "unit": 2})
    with pytest.raises(ConfigError, match=r"unit=cm is not known\. .* dataset\.reader_options\.unit=m\."):
        raw.one_of("unit", "cm", ("m", "mm"))
