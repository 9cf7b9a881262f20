"""Tuners with a model of the target alone."""
