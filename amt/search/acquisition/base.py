"""Types that acquisition functions share."""

from collections.abc import Callable

from jaxtyping import Array, Float

Values = Float[Array, "config"]

Acquisition = Callable[..., Values]
"""A function of `amt.search.acquisition`, or one of your own with the same arguments."""
