"""Tuners that learn from the learning curves of past tasks."""
