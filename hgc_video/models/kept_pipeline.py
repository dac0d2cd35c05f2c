"""Keeps the last pipeline that was loaded, for a process that makes many clips.

Knows nothing about how pipelines are loaded or run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any


class KeptPipeline:
    """One loaded pipeline and what it was loaded with; another one takes its place, so that two are never in
    memory. `loads` counts how often something was loaded."""

    def __init__(self) -> None:
        self.loads = 0
        self._loaded_with: object = None
        self._pipeline: Any = None

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Has the runs of this block use the kept pipeline where it is theirs."""
        token = _KEPT.set(self)
        try:
            yield
        finally:
            _KEPT.reset(token)

    def get(self, load: Callable[..., Any], *names: str, **options: Any) -> Any:
        """What `load(*names, **options)` gives, loaded anew only where the last one was another."""
        wanted = (names, tuple(sorted((k, str(v)) for k, v in options.items())))
        if self._loaded_with != wanted:
            self.forget()
            self._pipeline = load(*names, **options)
            self._loaded_with, self.loads = wanted, self.loads + 1
        return self._pipeline

    def forget(self) -> None:
        """Frees the pipeline, as after a run that failed and may have left it in a state of its own."""
        self._loaded_with = self._pipeline = None


_KEPT: ContextVar[KeptPipeline | None] = ContextVar("kept pipeline", default=None)


def kept_or_loaded(load: Callable[..., Any], *names: str, **options: Any) -> Any:
    """`load(*names, **options)`, or the pipeline that is kept where one is in use."""
    kept = _KEPT.get()
    return load(*names, **options) if kept is None else kept.get(load, *names, **options)
