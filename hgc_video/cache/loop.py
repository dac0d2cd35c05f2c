"""When a stock pipeline's own loop begins and ends, told by what the pipeline calls on itself.

Every loop of diffusers runs within the pipeline's progress bar, which is left after an error or an
interruption too. Before it the prompt is encoded, or handed through where embeddings were given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from .patch import Patch, undo_all


class Loop:
    """Wraps two methods of one pipeline. `begins()` is called when its loop is entered, `ends(whole)` when
    it is left: whole, or by an error. `num_tokens` is the length of the last prompt that was encoded;
    1 where the pipeline has none, but an image."""

    def __init__(self, pipe: Any, begins: Callable[[], None], ends: Callable[[bool], None]) -> None:
        self.pipe, self.begins, self.ends = pipe, begins, ends
        self.num_tokens = 1
        self._patches: list[Patch] = []

    def start(self) -> None:
        """Begins to listen."""
        self._patches.append(Patch(self.pipe, self._bar, "progress_bar"))
        if hasattr(self.pipe, "encode_prompt"):
            self._patches.append(Patch(self.pipe, self._encode, "encode_prompt"))

    def stop(self) -> None:
        """Puts the pipeline's methods back as they were."""
        undo_all(self._patches)

    def _bar(self, original: Any, *args: Any, **kwargs: Any) -> _Bar:
        return _Bar(original(*args, **kwargs), self)

    def _encode(self, original: Any, *args: Any, **kwargs: Any) -> Any:
        encoded = original(*args, **kwargs)
        self.num_tokens = int(
            encoded[0].shape[1]
        )  # (b n d), the prompt's before the negative one's
        return encoded


class _Bar:
    """A progress bar that tells when the block that it is opened for begins and ends."""

    def __init__(self, bar: Any, loop: Loop) -> None:
        self._bar, self._loop = bar, loop

    def __enter__(self) -> Any:
        self._loop.begins()
        return self._bar.__enter__()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            self._loop.ends(kind is None)
        finally:
            self._bar.__exit__(kind, error, trace)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._bar)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bar, name)
