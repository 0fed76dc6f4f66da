"""From the owners' files of Human3.6M and MPI-INF-3DHP to a trained network, through the converters and `run.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

from kinema.data.convert import h36m, mpi_inf_3dhp
from tests.data.convert import originals
from tests.e2e.running import in_process, metrics

SHORT = [
    "trainer=cpu", "trainer.max_epochs=1", "trainer.limit_train_batches=2", "dataset.batch_size=16", "logger=none",
    "~callbacks.figures",
]  # fmt: skip
SMALL = ["model.num_frames=9", "model.dim=16", "model.depth=1"]


def test_human36m_is_trained_from_its_cdf_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cdflib", reason="the converter of Human3.6M needs cdflib (kinema[mat])")
    monkeypatch.chdir(tmp_path)
    originals.h36m(tmp_path / "downloads", ("S1", "S9"), 12, ("Walking", "Walking 1", "TakingPhoto"))
    h36m.convert([tmp_path / "downloads"], tmp_path / "data" / "h36m", partial=True)
    split = ["dataset.subjects_train=[S1]", "dataset.subjects_test=[S9]"]
    where = ["dataset=h36m_gt", f"paths.data_dir={tmp_path / 'data'}", *split]
    in_process("mode=doctor", *where, "hydra.run.dir=doctor")
    in_process(*where, "model=poseformer", *SMALL, *SHORT, "hydra.run.dir=run")
    found = metrics(tmp_path / "run")
    actions = {key.split("/")[2] for key in found if key.startswith("test/p_mpjpe/")}
    assert actions == {"Walking", "Photo"}


def test_mpi_inf_3dhp_is_trained_from_its_mat_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("scipy.io", reason="the converter of MPI-INF-3DHP needs SciPy (kinema[mat])")
    pytest.importorskip("h5py", reason="the converter of MPI-INF-3DHP needs h5py (kinema[mat])")
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "downloads"
    originals.mpi_training(source / "S1" / "Seq1" / "annot.mat", 1, 20)
    originals.mpi_training(source / "S2" / "Seq1" / "annot.mat", 2, 20)
    originals.mpi_test(source / "TS1" / "annot_data.mat", 3, 15, (2048, 2048))
    originals.mpi_test(source / "TS6" / "annot_data.mat", 4, 15, (1920, 1080))
    mpi_inf_3dhp.convert([source], tmp_path / "data" / "mpi_inf_3dhp", partial=True)
    where = ["dataset=mpi_inf_3dhp", f"paths.data_dir={tmp_path / 'data'}"]
    in_process("mode=doctor", *where, "hydra.run.dir=doctor")
    in_process(*where, "model=dstformer_tiny", "model.dim_rep=16", *SMALL, *SHORT, "hydra.run.dir=run")
    found = metrics(tmp_path / "run")
    assert found["test/mpjpe"] > 0 and 0 <= found["test/pck"] <= 100
    report = (tmp_path / "run" / "report_activitywise.csv").read_text()
    assert "Exercising" in report
