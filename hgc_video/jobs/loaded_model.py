"""The model that a worker keeps between its jobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..generator import Generator
from .run import StepCallback, run_configuration

if TYPE_CHECKING:
    from ..clip import Clip


class LoadedModel:
    """Makes clips one after the other; a model that the last clip used is not loaded again."""

    def __init__(self) -> None:
        self._generator = Generator()

    @property
    def loads(self) -> int:
        """How often a model was loaded."""
        return self._generator.num_loads

    def make(
        self,
        options: Mapping[str, Any],
        where: str,
        callback: StepCallback,
        names: Mapping[str, str],
    ) -> Clip:
        """The clip of a configuration; after an error the model is loaded anew. `names` are those that the
        clip tells of its inputs, by path."""
        self._generator.input_names = names
        try:
            return run_configuration(
                options, where, progress=False, callback=callback, generator=self._generator
            )
        except BaseException:
            self._generator.unload()
            raise
