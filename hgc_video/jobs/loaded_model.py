"""The model that a worker keeps between its jobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..models.kept_pipeline import KeptPipeline
from .run import StepCallback, run_configuration

if TYPE_CHECKING:
    from ..clip import Clip


class LoadedModel:
    """Makes clips one after the other; a model that the last clip used is not loaded again."""

    def __init__(self) -> None:
        self._kept = KeptPipeline()

    @property
    def loads(self) -> int:
        """How often a model was loaded."""
        return self._kept.loads

    def make(self, options: Mapping[str, Any], where: str, callback: StepCallback) -> Clip:
        """The clip of a configuration."""
        try:
            with self._kept.in_use():
                return run_configuration(options, where, progress=False, callback=callback)
        except BaseException:
            self._kept.forget()
            raise
