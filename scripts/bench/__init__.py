"""Speed of the library as ratios against plain forms of the published computations; `make bench` runs it."""
