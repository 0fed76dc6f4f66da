"""Source: raw files and their reader, read once into mapped arrays that every later run opens in milliseconds."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from kinema.core.skeleton import Skeleton
from kinema.data import checks
from kinema.data.sequences import ArrayStore, Sequences, cache_key
from kinema.errors import ConfigError, DataError


@dataclass(frozen=True)
class Source:
    """Where the sequences of a data set come from.

    Attributes:
        name: of the data set.
        reader: name of a module in `kinema.data.readers`, or a dotted path.
        options: of the reader.
        root: folder of the raw files.
        cache_dir: of the mapped arrays; None = memory.
        skeleton: the targets must have, None where there are no targets.
        skeleton2d: the input must have, None where there is none.
        preprocess: way from pixels to network units that the reader went.
        on_nan: "error"; "mask" (zeros that count as missing), "fill" (from the frames around).
        store_mirrored: whether a mirrored copy is stored behind the arrays.
    """

    name: str
    reader: str
    options: Mapping[str, Any]
    root: Path
    cache_dir: Path | None
    skeleton: Skeleton | None
    skeleton2d: Skeleton | None
    preprocess: str
    on_nan: str
    store_mirrored: bool

    @cached_property
    def module(self) -> ModuleType:
        """The reader.

        Raises:
            ConfigError: for an unknown name, with the nearest known one.
        """
        if "." in self.reader:
            try:
                return importlib.import_module(self.reader)
            except ImportError as error:
                raise ConfigError(f"dataset.reader={self.reader} cannot be imported ({error}).") from error
        package = importlib.import_module("kinema.data.readers")
        known = [module.name for module in pkgutil.iter_modules(package.__path__)]
        if self.reader not in known:
            near = difflib.get_close_matches(self.reader, known, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}."
            raise ConfigError(f"dataset.reader: no reader is called {self.reader!r}. {hint}")
        return importlib.import_module(f"kinema.data.readers.{self.reader}")

    def files(self) -> list[Path]:
        """Raw files; DataError with where they come from if one is missing."""
        files: list[Path] = self.module.files(self.root, **self.options)
        return files

    @cached_property
    def key(self) -> str:
        """Name of the cached store: it changes with the files' bytes and with everything that shapes the arrays.

        Computed once: a file that changes during a run changes the next run.
        """
        if self.cache_dir is None:
            return self.name
        return cache_key(
            self.name,
            self.files(),
            self.cache_dir,
            reader=self.reader,
            version=getattr(self.module, "VERSION", 1),
            options=dict(self.options),
            preprocess=self.preprocess,
            on_nan=self.on_nan,
            store_mirrored=self.store_mirrored,
        )

    def open(self) -> Sequences:
        """Map the cached store, building it if it is not there."""
        if self.cache_dir is None:
            return self._build()
        return Sequences.cached(self.cache_dir, self.key, self._build)

    def _build(self) -> Sequences:
        made = _scores_joined(self.module.read(self.root, **self.options))
        if self.skeleton is not None and "pose3d" not in made.arrays:
            raise DataError(f"{self.root} holds no 3D for dataset={self.name}. Use dataset.has_3d=false for 2D alone.")
        checks.refuse_joints(made, self.skeleton, self.skeleton2d)
        checks.count_nonfinite(made)
        if self.on_nan == "mask" and made.table["nonfinite"].any():
            made = checks.mask_nonfinite(made)
        if self.on_nan == "fill" and made.table["nonfinite"].any():
            made = checks.fill_nonfinite(made)
        return made.with_mirror() if self.store_mirrored else made


def _scores_joined(sequences: Sequences) -> Sequences:
    """Detector scores as third channel of `pose2d`, where a reader keeps them in an array of their own."""
    if "score" not in sequences.arrays:
        return sequences
    arrays = {name: sequences.arrays[name] for name in sequences.arrays if name != "score"}
    if arrays["pose2d"].shape[-1] == 2:
        score = sequences.arrays["score"].astype(arrays["pose2d"].dtype)
        arrays["pose2d"] = np.concatenate([arrays["pose2d"], score[..., None]], axis=-1)
    return sequences.replace(arrays=ArrayStore(sequences.arrays.rows, arrays))
