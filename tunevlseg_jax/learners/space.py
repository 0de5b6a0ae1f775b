"""What a search may vary: distributions of a field's values, as data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

Value = bool | int | float | str | None


@dataclass(frozen=True)
class LogUniform:
    """A float between `low` and `high`, uniform in its logarithm."""

    low: float
    high: float

    def check(self) -> None:
        """Raises a ValueError where there is no such value."""
        if not 0 < self.low <= self.high < math.inf:
            raise ValueError(f"a logarithmic range must have 0 < low <= high, got {self.low:g}..{self.high:g}")


@dataclass(frozen=True)
class Uniform:
    """A float between `low` and `high`."""

    low: float
    high: float

    def check(self) -> None:
        """Raises a ValueError where there is no such value."""
        if not -math.inf < self.low <= self.high < math.inf:
            raise ValueError(f"a range must have low <= high, got {self.low:g}..{self.high:g}")


@dataclass(frozen=True)
class Integers:
    """A whole number from `low` to `high`, both included."""

    low: int
    high: int

    def check(self) -> None:
        """Raises a ValueError where there is no such value."""
        if self.low > self.high:
            raise ValueError(f"a range must have low <= high, got {self.low}..{self.high}")


@dataclass(frozen=True)
class LogIntegers(Integers):
    """A whole number from `low` to `high`, both included, uniform in its logarithm."""

    def check(self) -> None:
        """Raises a ValueError where there is no such value."""
        if not 0 < self.low <= self.high:
            raise ValueError(f"a logarithmic range must have 0 < low <= high, got {self.low}..{self.high}")


@dataclass(frozen=True)
class Choice:
    """One of some values."""

    values: tuple[Value, ...]

    def check(self) -> None:
        """Raises a ValueError where there is no value, or one twice."""
        if not self.values or len(set(self.values)) != len(self.values):
            raise ValueError(f"must be one value or more, each once, got {', '.join(map(str, self.values))}")


Distribution = LogUniform | Uniform | Integers | Choice

Space = Mapping[str, Distribution]
"""The distributions of a search, by the field they are for, such as "learner.depth"."""

OPTIMIZER: Space = {"optim.learning_rate": LogUniform(1e-5, 5e-3), "optim.weight_decay": LogUniform(1e-5, 1e-2)}
"""What the paper searches with every learner (Table 2); the learner's own fields are in its `space`."""
