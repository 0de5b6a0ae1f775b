"""Choices of a conversion."""

from typing import Literal

Precision = Literal["float32", "float16"]
"""Type of the stored weights."""
