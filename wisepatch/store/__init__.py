"""Keep what lies on the disk: checkpoints and recipes, caches, results, predictions."""
