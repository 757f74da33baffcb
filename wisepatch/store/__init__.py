"""Keep what lies on the disk: checkpoints and recipes, caches, runs, results, predictions."""
