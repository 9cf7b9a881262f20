"""Tuners that learn from the final scores of past tasks."""
