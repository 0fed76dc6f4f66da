"""Published results, results of runs and checkpoints at hand, and the tables that set them side by side."""
