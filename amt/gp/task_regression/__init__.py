"""Task regression: curves of a target as a weighted sum of those of past tasks."""
