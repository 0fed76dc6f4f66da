"""What README and docs promise: commands run, links lead somewhere, names exist, tables are complete.

A fence whose info string holds `tested` is run, line by line, in a folder that holds stand-ins for what the text
supposes: Human3.6M files, an official checkpoint, keypoints of a video. `slow` puts it among the long tests, where
commands run as a user types them; the others run in this process. Both get SMALL: a few steps on short takes.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

import kinema
from kinema import cli
from kinema.composition import compose
from kinema.core.camera import world_to_camera
from kinema.core.skeleton import skeleton
from kinema.models import registry
from kinema.models.videopose3d import VideoPose3D
from tests.data import bodies
from tests.data.layouts import layout

TOP = Path(__file__).resolve().parents[1]
PAGES = [TOP / "README.md", *sorted((TOP / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```\s*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")

# Appended to every run, before a line's own overrides so that those win where they say something on purpose.
SMALL = [
    "trainer.limit_train_batches=2", "trainer.max_epochs=1", "trainer.accelerator=cpu",
    "dataset.batch_size=4", "++callbacks.figures.moments=1",
]  # fmt: skip
SMALL_SYNTHETIC = ["dataset.reader_options.frames=40", "dataset.reader_options.actions=[walk,kick]"]
SMALL_MODEL = {
    "dstformer_tiny": ["model.dim=16", "model.dim_rep=16", "model.depth=1", "model.num_frames=27"],
    "poseformer": ["model.num_frames=9", "model.dim=8", "model.depth=1"],
    "videopose3d_small": ["model.channels=16"],
}


@dataclass(frozen=True)
class Fence:
    """A fenced block of a page."""

    page: Path
    number: int
    words: tuple[str, ...]
    text: str

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(TOP)}:{self.number}"


def fences() -> list[Fence]:
    return [
        Fence(page, number, tuple(info.split()), text)
        for page in PAGES
        for number, (info, text) in enumerate(FENCE.findall(page.read_text()), start=1)
    ]


def marked(language: str) -> list[object]:
    return [
        pytest.param(fence, id=fence.name, marks=[pytest.mark.slow] if "slow" in fence.words else [])
        for fence in fences()
        if fence.words[:1] == (language,) and "tested" in fence.words
    ]


def commands(text: str) -> list[list[str]]:
    """Words of every command of a shell block, without comments."""
    return [words for line in text.splitlines() if (words := shlex.split(line, comments=True))]


def run_arguments(words: list[str]) -> list[str] | None:
    """What follows `run.py` or `kinema` in a command, None for other programs."""
    words = [word for word in words if not re.fullmatch(r"[A-Z_]+=\S*", word)]  # VARIABLE=value before a command
    if words[:2] == ["python", "run.py"]:
        return words[2:]
    return words[1:] if words[:1] == ["kinema"] else None


def _human36m(folder: Path) -> None:
    """The test persons in the layout of Human3.6M's files: 32 joints in 3D, 17 in 2D."""
    data = layout({"S9": ("walk 1",), "S11": ("walk 1",)}, frames=40)
    places = skeleton("h36m32").map_to(skeleton("h36m17"))
    for actions in data.positions_3d.values():
        for action, pose in actions.items():
            wide = np.zeros((len(pose), 32, 3), np.float32)
            wide[:, places] = pose
            actions[action] = wide
    data.save(folder, "h36m", "cpn_ft_h36m_dbb")


# Commands.


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as the text supposes it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("COLUMNS", "160")
    _human36m(tmp_path / "data" / "h36m")
    torch.manual_seed(0)
    sizes = {"num_joints": 17, "num_joints_out": 17, "in_channels": 2, "filter_widths": [3, 3], "channels": 16}
    model = VideoPose3D(**sizes, dropout=0.25, causal=False, dense=False, trajectory=False, root=0)
    (tmp_path / "checkpoint").mkdir()
    state = {"epoch": 80, "lr": 1e-4, "random_state": np.random.RandomState(0), "optimizer": None}
    for path in ("checkpoint/pretrained_h36m_cpn.bin", "FILE"):
        torch.save({**state, "model_pos": model.state_dict()}, tmp_path / path)
    np.save(tmp_path / "keypoints.npy", bodies.synthetic("coco17", frames=20).astype(np.float32))
    np.savez(tmp_path / "predictions.npz", meta=np.asarray("{}"), **{"pose3d/a": np.zeros((5, 17, 3), np.float32)})
    return tmp_path


def small(arguments: list[str]) -> list[str]:
    """The arguments of a run with everything made short; what the text says on purpose stays."""
    if not arguments or arguments[0] in ("--help", "--cfg", "models", "datasets", "summarize"):
        return arguments
    said = {word.split("=")[0] for word in arguments}
    mode = next((word.split("=")[1] for word in arguments if word.startswith("mode=")), "train")
    dataset = next((word.split("=")[1] for word in arguments if word.startswith("dataset=")), "synthetic")
    more = list(SMALL) if mode in ("train", "test") else ["trainer.accelerator=cpu"]
    if arguments[0] == "-m":
        more += ["trainer.limit_val_batches=2", "trainer.limit_test_batches=2", "~callbacks.figures"]
    if "~callbacks.figures" in [*arguments, *more]:
        more = [word for word in more if not word.startswith("++callbacks.figures")]
    if dataset == "synthetic":
        more += SMALL_SYNTHETIC
    if any(word.startswith("search=") for word in arguments):
        more.append("hydra.sweeper.n_trials=2")
    models = next((word.split("=")[1].split(",") for word in arguments if word.startswith("model=")), ["none"])
    if len(models) == 1 and mode == "train":
        more += SMALL_MODEL.get(models[0], [])
    if "render" in mode:
        more += ["render.limit=4"]
    return [*arguments, *(word for word in more if word.split("=")[0] not in said or word.startswith("trainer.max"))]


def start(words: list[str], *, apart: bool) -> None:
    """Run one command of a page in the current folder; fails unless it exits with 0."""
    arguments = run_arguments(words)
    if arguments is None:
        raise AssertionError(f"no way to test the command {' '.join(words)!r}")
    arguments = small([_folder(word) for word in arguments])
    if apart:
        command = [sys.executable, str(TOP / "run.py"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, f"{' '.join(arguments)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return
    before, environment = sys.argv, dict(os.environ)
    sys.argv = ["run.py", *arguments]
    try:
        with contextlib.suppress(_Good):
            _main()
    finally:
        sys.argv = before
        os.environ.clear()
        os.environ.update(environment)


class _Good(Exception):
    """An exit with code 0."""


def _main() -> None:
    try:
        cli.main()
    except SystemExit as error:
        assert not error.code, f"{' '.join(sys.argv)} ended with code {error.code}"
        raise _Good from error


def _folder(word: str) -> str:
    """multirun/DIR means the sweep that the lines above have made."""
    if not word.endswith("/DIR"):
        return word
    return str(max(Path("multirun").iterdir(), key=lambda path: path.stat().st_mtime))


@pytest.mark.parametrize("fence", marked("bash"))
def test_commands_run(fence: Fence, home: Path) -> None:
    lines = commands(fence.text)
    if lines == [["make", "demo"]]:
        _make_demo(home)
        return
    for words in lines:
        start(words, apart="slow" in fence.words)


def _make_demo(home: Path) -> None:
    """What `make demo` types, read from the Makefile, with this Python and as long as it takes."""
    recipe = re.search(r"^demo:.*\n((?:\t.*\n)+)", (TOP / "Makefile").read_text(), re.MULTILINE)
    assert recipe is not None
    lines = commands(recipe[1].replace("$(BIN)/", ""))
    assert [words[:2] for words in lines] == [["python", "run.py"]] * 2
    for words in lines:
        subprocess.run([sys.executable, str(TOP / "run.py"), *words[2:]], check=True, timeout=1200)
    report = (home / "outputs/demo/report.md").read_text()
    found = float(re.search(r"\*\*mean over actions\*\*.*?\*\*([\d.]+)\*\*", report)[1])  # type: ignore[index]
    told = float(re.search(r"\*\*mean over actions\*\*.*?\*\*([\d.]+)\*\*", PAGES[0].read_text())[1])  # type: ignore[index]
    assert found == pytest.approx(told, rel=0.1), "the table in the README is out of date"
    assert (home / "outputs/demo/render/S9_walk_0.png").is_file()


@pytest.mark.parametrize("page", sorted({fence.page for fence in fences()}), ids=lambda page: page.stem)
def test_python_runs(page: Path, home: Path) -> None:
    blocks = [f.text for f in fences() if f.page == page and f.words[:2] == ("python", "tested")]
    known = dict(registry._MODELS)
    try:
        scope: dict[str, object] = {"__name__": "page"}
        for block in blocks:
            exec(compile(block, str(page), "exec", dont_inherit=True), scope)
    finally:
        registry._MODELS.clear()
        registry._MODELS.update(known)


# Commands that are only shown.


def shown() -> list[tuple[Fence, list[str]]]:
    """Every run.py command of all pages that composes one run."""
    found = []
    for fence in fences():
        if fence.words[:1] in (("bash",), ()):
            for words in commands(fence.text):
                arguments = run_arguments(words)
                if arguments and not arguments[0].startswith("-") and "=" in arguments[0]:
                    found.append((fence, arguments))
    return found


def test_every_command_composes(tmp_path: Path) -> None:
    pages = {fence.page.name for fence, _ in shown()}
    assert {"README.md", "lifting.md", "checkpoints.md", "h36m.md"} <= pages
    once: set[str] = set()
    for fence, arguments in shown():
        if " ".join(arguments) in once:
            continue
        once.add(" ".join(arguments))
        dataset = next((word.split("=")[1] for word in arguments if word.startswith("dataset=")), "cmu")
        if dataset not in names("dataset"):
            assert fence.page.name == "own_data.md", f"{fence.name}: dataset={dataset}"  # made by the reader
            continue
        if "model=linear" in arguments:
            continue  # made by the reader, tested above
        words = [word.split(",")[0] if word.startswith(("model=", "seed=")) else word for word in arguments]
        config = compose([word for word in words if not word.startswith("hydra")])
        assert config.mode in MODES, fence.name


# Names.


def names(group: str) -> set[str]:
    root = TOP / "conf" / group
    found = (path.relative_to(root).with_suffix("") for path in root.rglob("*.yaml"))
    return {str(path) for path in found if not path.name.startswith("_")}


MODES = {path.stem for path in (TOP / "src/kinema/modes").glob("*.py") if not path.stem.startswith("_")}


def column(page: Path, header: str) -> set[str]:
    """Names in code style in the first column of the table with that first header."""
    rows = re.search(rf"^\| {re.escape(header)} \|.*\n\|[-:| ]+\|\n((?:\|.*\n)+)", page.read_text(), re.MULTILINE)
    assert rows is not None, f"{page.name} has no table of {header}"
    return {name for row in rows[1].splitlines() for name in re.findall(r"`([^`]+)`", row.split("|")[1])}


README = PAGES[0]


def test_readme_lists_every_mode() -> None:
    assert column(README, "mode") == MODES


@pytest.mark.parametrize(("header", "group"), [("model", "model"), ("data set", "dataset")])
def test_readme_lists_every_option_of_a_group(header: str, group: str) -> None:
    assert column(README, header) == names(group)


def test_readme_lists_every_task() -> None:
    assert column(README, "task") == {name for name in names("task") if "/" not in name}


def test_readme_lists_every_recipe() -> None:
    told = set(re.findall(r"experiment=([\w/]+)", README.read_text()))
    assert told <= names("experiment"), "the README names recipes that do not exist"
    left = names("experiment") - told
    # The section on the CMU data is filled in from the results of that data.
    assert not left, f"missing in the README: {sorted(left)}"


def test_readme_lists_every_extra() -> None:
    text = (TOP / "pyproject.toml").read_text()
    section = text.split("[project.optional-dependencies]")[1].split("\n[")[0]
    extras = set(re.findall(r"^(\w+) = \[", section, re.MULTILINE))
    assert column(README, "extra") == extras


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_choices_named_in_text_exist(page: Path) -> None:
    made_by_the_reader = {"linear", "lab", "X", "FILE"}
    for group in ("model", "dataset", "experiment", "trainer", "callbacks", "search", "debug", "logger"):
        for found in re.findall(rf"(?<![\w.@]){group}=([\w/,]+)", page.read_text()):
            for name in set(found.rstrip(",").split(",")) - made_by_the_reader:
                assert name in names(group) or name == "mine", f"{page.name}: {group}={name} is no file of conf/{group}"


def test_parameters_in_the_tables_are_those_of_the_models() -> None:
    told = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|.*?\| ([\d,]{5,}) \|", README.read_text(), re.MULTILINE)
    rows = [(name, count) for names_, count in told for name in re.findall(r"\w+", names_)]
    assert {name for name, _ in rows} == names("model")
    for name, count in rows:
        with torch.device("meta"):
            model = kinema.create(name)
        assert f"{sum(p.numel() for p in model.parameters()):,}" == count, name


# Links.


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(FENCE.sub("", page.read_text())):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, f"{page.name}: {link}"


def test_every_page_is_reached_from_the_readme() -> None:
    seen, todo = set(), [README]
    while todo:
        page = todo.pop()
        if page in seen:
            continue
        seen.add(page)
        links = (link.partition("#")[0] for link in LINK.findall(page.read_text()))
        todo += [
            target for link in links if (target := (page.parent / link).resolve()).suffix == ".md" and target.exists()
        ]
    assert set(PAGES) <= seen, f"no link leads to {sorted(path.name for path in set(PAGES) - seen)}"


# The examples of docs/own_data.md.


def _examples() -> dict[str, str]:
    """The files that docs/own_data.md shows: two data sets and the reader of the second."""
    page = TOP / "docs" / "own_data.md"
    blocks = [f.text for f in fences() if f.page == page and f.words[:1] in (("yaml",), ("python",))]
    named = [text for text in blocks if text.startswith(("# conf/", "# mypackage/"))]
    assert len(named) == 3
    return dict(zip(("known format", "reader", "own format"), named, strict=True))


def test_the_data_set_in_a_known_format_works(home: Path) -> None:
    data = layout({"P01": ("walk 1",), "P03": ("walk 2", "squat 1"), "P11": ("walk 3",)}, frames=60)
    data.cameras["fps"] = 100
    data.save(home / "data" / "lab", "lab", "hrnet")
    folder = home / "conf" / "dataset"
    folder.mkdir(parents=True)
    (folder / "lab.yaml").write_text(_examples()["known format"])
    common = ["--config-dir=conf", "dataset=lab", "trainer.accelerator=cpu"]
    start(["python", "run.py", *common, "mode=doctor"], apart=False)
    small_run = ["model=videopose3d_small", "model.channels=16", "trainer.max_epochs=1", "~callbacks.figures"]
    start(["python", "run.py", *common, *small_run, "hydra.run.dir=run"], apart=False)
    assert (home / "run" / "report.md").is_file()


def test_the_reader_of_another_format_works(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = _examples()
    package, folder, raw = home / "mypackage", home / "conf" / "dataset", home / "data" / "lab"
    for path in (package, folder, raw):
        path.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "lab.py").write_text(examples["reader"])
    (folder / "lab.yaml").write_text(examples["own format"])
    for name in ("anna", "ben", "carl", "dora"):
        made = layout({name: ("walk 1",)}, frames=60)
        camera = made.cameras["extrinsics"][name][0]
        world = torch.from_numpy(made.positions_3d[name]["walk 1"])
        seen = world_to_camera(world, torch.tensor(camera["orientation"]), torch.tensor(camera["translation"]))
        np.savez(raw / f"{name}_walk.npz", pixels=made.positions_2d[name]["walk 1"][0], joints=seen.numpy())
    monkeypatch.syspath_prepend(home)
    words = ["--config-dir=conf", "dataset=lab", "trainer.accelerator=cpu", "model=videopose3d_small"]
    small_run = ["model.channels=16", "trainer.max_epochs=1", "~callbacks.figures", "hydra.run.dir=run"]
    try:
        start(["python", "run.py", *words, *small_run], apart=False)
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "mypackage"]:
            del sys.modules[name]
    assert (home / "run" / "report.md").is_file()
