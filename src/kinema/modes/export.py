"""mode=export: a checkpoint into an official layout, safetensors, ONNX or a torch.export graph."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from kinema import composition, runs
from kinema.checkpoints.export import FORMATS, export, suffix_of
from kinema.errors import ConfigError


def run(config: DictConfig) -> None:
    """Write `ckpt` as `export.format`, compared with the eager model; prints the largest difference.

    Raises:
        ConfigError: without a checkpoint, because random weights are worth nothing elsewhere.
    """
    with runs.recorded(config) as run_:
        if not config.ckpt:
            raise ConfigError(
                "mode=export writes the weights of a checkpoint, and none is given. Use ckpt=path/to/file."
            )
        options = config.export
        if options.format not in FORMATS:
            raise ConfigError(f"export.format={options.format} is unknown. Use one of {', '.join(FORMATS)}.")
        model = composition.build_model(config)
        name = Path(config.ckpt).stem + suffix_of(model, options.format)
        output = Path(options.output) if options.output else run_.folder / name
        exported = export(model, output, options.format, overwrite=options.overwrite)
        run_.metrics({"export/difference": exported.difference}, {"export": str(exported.path)})
        print(exported)
