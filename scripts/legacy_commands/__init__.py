"""What the published scripts' flags mean here: one table per script, read by `scripts.legacy`."""
