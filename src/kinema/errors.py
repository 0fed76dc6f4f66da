"""Errors meant for the user: one sentence for what is wrong, one for the remedy."""

from __future__ import annotations


class KinemaError(Exception):
    """A fault the user can mend; the command line prints it without a stack trace."""


class ConfigError(KinemaError, ValueError):
    """An unknown or impossible choice in the configuration; the last sentence is an override that works."""


class DataError(KinemaError, ValueError):
    """A data file that is missing, damaged or holds something else than expected; names the file."""


class CheckpointError(KinemaError, ValueError):
    """A checkpoint of an unknown family, or one that does not fit the model asked for."""
