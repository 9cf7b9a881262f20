"""Tuners without a model: they look at scores as they are."""
