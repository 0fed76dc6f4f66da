"""scripts/legacy.py: main.py of HumanMAC and of SMRNet, and the yaml files in their cfg/."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from scripts.legacy import main, translate
from scripts.legacy_commands.diffusion_config import KEYS
from scripts.legacy_commands.flags import LegacyError

from kinema import composition
from kinema.composition import compose
from tests.e2e.running import metrics
from tests.test_legacy import fits, words_of

# cfg/h36m.yml and cfg/humaneva.yml as HumanMAC releases them.
PUBLISHED = {
    "dataset": "h36m", "t_his": 25, "t_pred": 100, "batch_size": 64, "num_epoch": 1001, "num_data_sample": 50000,
    "num_val_data_sample": 5000, "lr": 3e-4, "n_pre": 20, "multimodal_path": "./data/data_multi_modal/a.npz",
    "data_candi_path": "./data/data_multi_modal/b.npz", "padding": "LastFrame", "Complete": True, "noise_steps": 1000,
    "ddim_timesteps": 100, "scheduler": "Cosine", "num_layers": 8, "num_heads": 8, "latent_dims": 512, "dropout": 0.2,
    "mod_train": 0.8, "mod_test": 1.0, "dct_norm_enable": False,
}  # fmt: skip
HUMANEVA = PUBLISHED | {
    "dataset": "humaneva", "t_his": 15, "t_pred": 60, "num_epoch": 501, "n_pre": 10, "num_layers": 4, "mod_train": 1.0,
}  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(base: dict[str, object], **changes: object) -> str:
    """A yaml file in cfg/ with some changes; returns its name."""
    Path("cfg").mkdir(exist_ok=True)
    Path("cfg", "mine.yml").write_text(yaml.safe_dump(base | changes))
    return "mine"


def refusal(command: str) -> str:
    with pytest.raises(LegacyError) as error:
        translate(shlex.split(command))
    return str(error.value)


ZERO_SHOT = [
    "mode=zero_shot", "experiment=humanmac/h36m", "dataset=amass_motion", "dataset.root=data/amass_retargeted.npy",
    "dataset.reader_options.sides=published", "motion.count=15", "ckpt=a.pt",
]  # fmt: skip


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("smrnet main.py --cfg h36m --mode train", ["experiment=smrnet/h36m"]),
        ("SMRNet/main.py --cfg humaneva --mode train --seed 3", ["experiment=smrnet/humaneva", "seed=3"]),
        (
            "smrnet main.py --cfg humaneva --mode eval --ckpt a.pt",
            ["mode=test", "experiment=smrnet/humaneva", "ckpt=a.pt"],
        ),
        ("humanmac python main.py --cfg h36m", ["experiment=humanmac/h36m"]),
        (
            "HumanMAC-main/main.py --mode eval",
            ["mode=test", "experiment=humanmac/h36m", "ckpt=checkpoints/h36m_ckpt.pt"],
        ),
        (
            "humanmac --mode eval --ckpt a.pt --multimodal_threshold 0.4 --device cpu",
            ["mode=test", "experiment=humanmac/h36m", "trainer=cpu", "task.protocol_options.prediction.threshold=0.4",
             "ckpt=a.pt"],
        ),
        (
            "humanmac main.py --cfg h36m --mode pred --vis_row 2 --vis_col 10 --ckpt ./a.pt",
            ["mode=predict", "experiment=humanmac/h36m", "motion.columns=10", "motion.rows=2", "ckpt=a.pt"],
        ),
        (
            "humanmac --mode switch --ckpt a.pt",
            ["mode=switch", "experiment=humanmac/h36m", "motion.count=10", "ckpt=a.pt"],
        ),
        ("humanmac --mode control --ckpt a.pt", ["mode=control", "experiment=humanmac/h36m", "ckpt=a.pt"]),
        ("humanmac --mode zero_shot --ckpt a.pt", ZERO_SHOT),
        (
            "humanmac --mode gif --ckpt a.pt",
            ["mode=predict", "experiment=humanmac/h36m", "ckpt=a.pt", "motion.windows=[0]"],
        ),
        ("humanmac --save_metrics_interval 5", ["experiment=humanmac/h36m", "trainer.check_val_every_n_epoch=5"]),
    ],
)  # fmt: skip
def test_documented_commands(command: str, expected: list[str]) -> None:
    assert words_of(command) == expected
    config = fits(expected)
    kind = "SMRNet" if any("smrnet" in word for word in expected) else "HumanMAC"
    assert config.model._target_.endswith(f".{kind}")


def test_the_mode_tells_the_system() -> None:
    made = translate(["main.py", "--mode", "control"])
    assert made.words[1] == "experiment=humanmac/h36m" and not made.notes
    made = translate(["main.py", "--mode", "eval"])
    assert made.words[1] == "experiment=smrnet/h36m" and "humanmac would take it, too" in made.notes[0]


def test_the_released_file_of_humaneva_trains_as_it_says() -> None:
    made = translate(["humanmac", "--cfg", "humaneva"])
    assert made.words == [
        "experiment=humanmac/humaneva", "task.mod_train=1.0", "task.mod_test=1.0", "task.variants.conditioned=null",
        "task.variants.half_conditioned={mod_test:0.5}",
    ]  # fmt: skip
    assert "experiment=humanmac/humaneva" in made.notes[0]
    config = compose(made.words)
    shares = {name: options.get("mod_test") for name, options in config.task.variants.items() if options is not None}
    assert config.task.mod_test == 1.0 and shares["half_conditioned"] == 0.5 and "conditioned" not in shares
    data = yaml.safe_dump(HUMANEVA)
    Path("cfg").mkdir()
    Path("cfg", "humaneva.yml").write_text(data)
    assert sorted(translate(["humanmac", "--cfg", "humaneva"]).words) == sorted(made.words)


@pytest.mark.parametrize("base", [PUBLISHED, HUMANEVA])
@pytest.mark.parametrize("system", ["humanmac", "smrnet"])
def test_a_published_yaml_is_its_recipe(base: dict[str, object], system: str) -> None:
    recipe = compose([f"experiment={system}/{base['dataset']}"])
    shares = {} if base is PUBLISHED else {"mod_train": 0.8, "mod_test": 0.5}
    own = {} if system == "humanmac" else {"dropout": recipe.model.dropout, "num_epoch": recipe.trainer.max_epochs}
    if system == "smrnet":
        base = {"latent_dim" if key == "latent_dims" else key: value for key, value in base.items()}
    made = translate([system, "--cfg", written(base, **shares, **own)])
    assert made.words == [f"experiment={system}/{base['dataset']}"] and not made.notes


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"t_his": 10, "t_pred": 20, "n_pre": 6}, {"dataset.history=10", "dataset.horizon=20", "model.kept_coeffs=6"}),
        ({"batch_size": 8, "num_epoch": 3}, {"dataset.batch_size=8", "trainer.max_epochs=3"}),
        ({"num_data_sample": 64, "lr": 1e-3}, {"dataset.windows_per_epoch=64", "task.optimizer.lr=0.001"}),
        ({"padding": "Zero", "Complete": False}, {"task.padding=zero", "task.completion=false"}),
        ({"noise_steps": 100, "ddim_timesteps": 10}, {"task.noise_steps=100", "task.ddim_timesteps=10"}),
        ({"scheduler": "Sqrt", "dropout": 0.1}, {"task.schedule=sqrt", "model.dropout=0.1"}),
        ({"num_layers": 2, "num_heads": 4, "latent_dims": 16}, {"model.depth=2", "model.num_heads=4", "model.dim=16"}),
        ({"mod_train": 1.0, "mod_test": 0.5},
         {"task.mod_train=1.0", "task.mod_test=0.5", "task.variants.half_conditioned=null"}),
    ],
)  # fmt: skip
def test_changed_keys_become_overrides(changes: dict[str, object], expected: set[str]) -> None:
    words = words_of(f"humanmac --cfg {written(PUBLISHED, **changes)}")
    assert set(words) == {"experiment=humanmac/h36m", *expected}
    fits(words)


def test_evaluation_leaves_out_what_matters_for_training() -> None:
    name = written(PUBLISHED, lr=1.0, num_epoch=2, dropout=0.5, ddim_timesteps=10, mod_train=0.1)
    assert words_of(f"humanmac --cfg {name} --mode eval --ckpt a.pt") == [
        "mode=test", "experiment=humanmac/h36m", "task.ddim_timesteps=10", "ckpt=a.pt",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("humanmac --mode evaluate", "'evaluate' is none of train, eval, pred, gif, switch, control, zero_shot"),
        ("smrnet --mode switch", "Kinema has it for SMRNet, too: python run.py mode=switch experiment=smrnet/h36m"),
        ("humanmac --cfg humaneva --mode control", "Kinema does it: python run.py mode=control experiment=humanmac/"),
        ("humanmac --cfg humaneva --mode zero_shot", "the clips of AMASS have the 17 joints"),
        ("humanmac --cfg amass", "there is no cfg/amass.yml here, and the released ones are h36m, humaneva."),
        ("humanmac --ddim_timesteps 10", "It is a key of cfg/*.yml. Here: -- task.ddim_timesteps=..."),
        ("smrnet main.py --cfg h36m --milestones 3", "Did you mean --milestone?"),
        ("humanmac --milestone often", "is no list of epochs such as 75,150,225"),
        ("humanmac --device tpu", "is neither cpu nor cuda"),
        ("humanmac --seed one", "invalid int value: 'one'"),
    ],
)
def test_what_has_no_counterpart_is_refused(command: str, sentence: str) -> None:
    assert sentence in refusal(command)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"num_layrs": 3}, "the key 'num_layrs' is none of those of cfg/*.yml. Did you mean 'num_layers'?"),
        ({"dataset": "cmu"}, "is none of h36m, humaneva. Motion of your own: docs/own_data.md"),
        ({"padding": "Last"}, "padding: Last in the yaml is none of LastFrame, Repeat, Zero."),
        ({"scheduler": "linear"}, "none of Cosine, Linear, Sqrt, Sigmoid"),
        ({"dct_norm_enable": True}, "task.coeff_scale divides coefficients"),
    ],
)
def test_yaml_that_has_no_counterpart_is_refused(changes: dict[str, object], sentence: str) -> None:
    said = refusal(f"humanmac --cfg {written(PUBLISHED, **changes)}")
    assert sentence.replace("'num_layers'", "num_layers") in said


def test_every_published_key_is_known() -> None:
    assert set(PUBLISHED) <= {key.name for key in KEYS}


@pytest.mark.parametrize(
    ("typed", "note"),
    [
        ("--ema False", "any text meant true there"),
        ("--milestone [75,150]", "was split into characters there"),
        ("--ckpt a.pt", "init=FILE starts from its weights"),
        ("--mode pred --device cpu", "CUDA_VISIBLE_DEVICES= takes the CPU"),
        ("--mode eval --gamma 0.5", "--gamma: without effect there"),
        ("--mode eval --vis_row 2", "--vis_row: without effect there in a command that does not draw"),
    ],
)
def test_what_changed_or_did_nothing_is_told(typed: str, note: str) -> None:
    assert any(note in one for one in translate(["humanmac", *shlex.split(typed)]).notes)


def test_an_old_evaluation_runs(here: Path) -> None:
    """A released kind of file, the archive's layout and a cfg file, by the old command."""
    random = np.random.default_rng(0)
    motion = {
        subject: {
            action: np.cumsum(random.standard_normal((70, 17, 3)) * 0.01, axis=0).astype(np.float32)
            for action in ("Walking", "Eating 1")
        }
        for subject in ("S1", "S5", "S6", "S7", "S8", "S9", "S11")
    }
    Path("data").mkdir()
    np.savez("data/data_3d_h36m.npz", positions_3d=np.array(motion, dtype=object))
    small = {"t_his": 5, "t_pred": 10, "n_pre": 6, "num_layers": 2, "latent_dims": 16, "ddim_timesteps": 4}
    name = written(PUBLISHED, **small)
    sizes = [word for word in words_of(f"humanmac --cfg {name}") if not word.startswith("task")]
    network = composition.build_model(compose(sizes))
    torch.save(network.state_dict(), "ckpt_ema_10.pt")
    more = [
        "dataset.cache_dir=null",
        "trainer=cpu",
        "hydra.run.dir=out",
        "task.num_samples=3",
        "dataset.limit_windows=6",
    ]
    more += ["callbacks.figures=null"]
    assert (
        main(["--run", *shlex.split(f"humanmac main.py --cfg {name} --mode eval --ckpt ckpt_ema_10.pt"), "--", *more])
        == 0
    )
    assert metrics(here / "out")["test/ade"] > 0
