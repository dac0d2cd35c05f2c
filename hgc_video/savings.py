"""What every report of MACs derives: their sums, and the share that was saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Savings:
    """MACs by part: executed, and those that the same run without a cache takes."""

    macs_by_part: Mapping[str, int]
    macs_baseline_by_part: Mapping[str, int]

    @property
    def macs(self) -> int:
        """MACs executed, all parts."""
        return sum(self.macs_by_part.values())

    @property
    def macs_baseline(self) -> int:
        """MACs of the same run without a cache, all parts."""
        return sum(self.macs_baseline_by_part.values())

    @property
    def macs_saved(self) -> float:
        """The share of the baseline that was not executed, 0..1."""
        return 1 - self.macs / self.macs_baseline if self.macs_baseline else 0.0
