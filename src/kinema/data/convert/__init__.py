"""From the files the owners of a data set hand out to those the readers take; `scripts/convert_*.py` run these."""
