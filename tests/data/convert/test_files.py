"""What the converters share: files in bounded memory, output that appears whole or not at all, MATLAB's axes."""

from __future__ import annotations

import importlib
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kinema.data.convert.files import Spool, save_npz, staged
from kinema.data.convert.mat import read_mat
from kinema.errors import ConfigError, DataError
from tests.data.convert import originals


def test_files_of_nested_dicts_are_what_numpy_writes(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    array = random.normal(size=(7, 3)).astype(np.float32)
    value: dict[str, Any] = {"S1": {"Walking 1": array, "Eating": [array[:4, :2], array[::2]]}}
    save_npz(tmp_path / "ours.npz", positions=value, metadata={"num_joints": 3, "pairs": [[1], [2]]})
    np.savez_compressed(tmp_path / "theirs.npz", positions=np.array(value, dtype=object))
    ours, theirs = (dict(np.load(tmp_path / f"{name}.npz", allow_pickle=True)) for name in ("ours", "theirs"))
    np.testing.assert_equal(ours["positions"].item(), theirs["positions"].item())
    assert ours["metadata"].item() == {"num_joints": 3, "pairs": [[1], [2]]}


def test_spooled_arrays_come_back_and_packing_needs_one_at_a_time(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    arrays = [random.integers(0, 9, (20_000, 5)).astype(kind) for kind in (np.float32, np.float64) * 6]
    with Spool(tmp_path) as spool:
        places = [spool.put(array) for array in arrays[:9]]
        np.testing.assert_array_equal(spool.take(places[3]), arrays[3])
        places += [spool.put(array) for array in arrays[9:]]  # more may come after some were looked at
        tracemalloc.start()
        save_npz(tmp_path / "all.npz", all={str(i): spool.take(place) for i, place in enumerate(places)})
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 3 * max(array.nbytes for array in arrays)
    stored = np.load(tmp_path / "all.npz", allow_pickle=True)["all"].item()
    for i, array in enumerate(arrays):
        assert stored[str(i)].dtype == array.dtype
        np.testing.assert_array_equal(stored[str(i)], array)


def test_output_appears_only_when_all_is_well(tmp_path: Path) -> None:
    def write(text: str, *, fail: bool = False, overwrite: bool = False) -> None:
        with staged(tmp_path / "out", ["a.npz"], overwrite=overwrite) as folder:
            (folder / "a.npz").write_text(text)
            if fail:
                raise DataError("half-way")

    with pytest.raises(DataError, match="half-way"):
        write("first", fail=True)
    assert list((tmp_path / "out").iterdir()) == []
    write("first")
    with pytest.raises(DataError, match=r"a\.npz is there already\. Use --overwrite, or another --output"):
        write("second")
    with pytest.raises(DataError, match="half-way"):
        write("second", fail=True, overwrite=True)
    assert (tmp_path / "out" / "a.npz").read_text() == "first"
    write("second", overwrite=True)
    assert [path.read_text() for path in (tmp_path / "out").iterdir()] == ["second"]


def test_matlab_files_of_both_kinds_show_the_same_axes(tmp_path: Path) -> None:
    pytest.importorskip("h5py", reason="MATLAB 7.3 needs h5py (kinema[mat])")
    random = np.random.default_rng(0)
    values = {
        "cube": random.normal(size=(2, 17, 3, 5)),
        "row": random.normal(size=(1, 4)),
        "column": originals.cells([random.normal(size=(3, 2)), random.normal(size=(6, 2))]),
    }
    paths = originals.mat(tmp_path / "five.mat", **values), originals.mat73(tmp_path / "seven.mat", **values)
    for path in paths:
        found = read_mat(path, list(values), ["absent"])
        assert list(found) == list(values)
        np.testing.assert_array_equal(found["cube"], values["cube"])
        np.testing.assert_array_equal(found["row"], values["row"])
        assert found["column"].shape == (2, 1)
        for cell, value in zip(found["column"].ravel(), values["column"].ravel(), strict=True):
            np.testing.assert_array_equal(cell, value)


@pytest.mark.parametrize("name", ["h36m", "humaneva", "mpi_inf_3dhp"])
def test_every_program_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    program = importlib.import_module(f"scripts.convert_{name}")
    with pytest.raises(SystemExit) as ended:
        program.main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "Written: data_3d" in text or "Written:\ndata_train" in text
    assert all(word in text for word in ("--output", "--partial", "--overwrite", f"docs/datasets/{name}"))


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = originals.mat(tmp_path / "a.mat", x=np.zeros((2, 2)))
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(ConfigError, match=r"read with SciPy\. Use pip install 'kinema\[mat\]'"):
        read_mat(path, ["x"])
