"""Bridges to other libraries, each an optional dependency of its own."""
