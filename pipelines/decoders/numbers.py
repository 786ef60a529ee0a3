"""Numbers out of untrusted JSON."""

from __future__ import annotations

import math
from typing import Any, TypeGuard


def is_finite_number(value: Any) -> TypeGuard[int | float]:
    """Whether a value is a number that a float can hold; JSON may have NaN, infinities and integers of any length."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
