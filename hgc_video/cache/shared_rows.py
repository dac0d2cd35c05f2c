"""Rows that are the same for every step, frame or branch are computed once and shared.

Exact: equal rows through the same linear or convolutional layer give equal results. Whether rows are
equal is looked at once per run and window, before the model is called: a compiled model stays whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from torch import Tensor, equal

from .nbytes import storage_nbytes
from .wrappers import GIVE, RUN, Site


class Prompt(NamedTuple):
    """The text that a model gets for a window: its rows, one of each branch where all frames of a branch
    have the `same`; `number` is one for all windows with the same rows."""

    number: int
    rows: Tensor
    branches: int
    same: bool


class Prompts:
    """The texts that one model has got in a run."""

    def __init__(self) -> None:
        self._of: dict[int, Prompt] = {}

    def at(self, window: int, states: Any, branches: int) -> Prompt | None:
        """What is known of encoder_hidden_states (branches·f n d), or (branches n d); None where there are
        none. After a gate the prompt's branch is left, which is last."""
        if not isinstance(states, Tensor) or len(states) % branches:
            return None
        known = self._of.get(window)
        if known is None or known.branches < branches:
            known = self._of[window] = self._look(states, branches)
        return known

    def state(self) -> list[Any]:
        """The texts by window: plain data and tensors."""
        return [[window, list(prompt)] for window, prompt in self._of.items()]

    def restore(self, state: Iterable[Any]) -> None:
        """Knows the texts that `state` told."""
        self._of = {window: Prompt(*told) for window, told in state}

    def forget(self) -> None:
        """Frees the texts, for a new run."""
        self._of.clear()

    def _look(self, states: Tensor, branches: int) -> Prompt:
        grouped = states.unflatten(0, (branches, -1))
        same = _equal(grouped, grouped[:, :1])
        rows = grouped[:, 0].contiguous() if same else states
        for other in self._of.values():
            if (other.branches, other.same) == (branches, same) and _equal(other.rows, rows):
                return other
        number = 1 + max((known.number for known in self._of.values()), default=-1)
        return Prompt(number, rows, branches, same)


class TextProjectionCache(Site):
    """A projection of the text to keys or values: once per prompt, for all frames, steps and windows.

    Told by `read` what the coming call brings. macs: of one row.
    """

    def __init__(self, name: str, macs: int) -> None:
        super().__init__(name)
        self.macs = macs
        self.branches, self.same, self.number = 1, False, 0
        self.rows = 0  # that the call projected
        self._kept: dict[
            int, tuple[Tensor, int]
        ] = {}  # by the prompt's number, for so many branches

    def __call__(self, forward: Any, states: Tensor) -> Tensor:
        """`forward(states)` for states (branches·f n d) in which all frames of a branch may be equal."""
        if self.mode == GIVE:
            return self._spread(self.value, len(states))
        if not self.keep:
            self.rows += len(states)
            return forward(states)  # type: ignore[no-any-return]
        self.ran = True
        rows = states.unflatten(0, (self.branches, -1))[:, 0].contiguous() if self.same else states
        self.rows += len(rows)
        self.made = made = forward(rows)
        return self._spread(made, len(states))

    def _spread(self, out: Tensor, rows: int) -> Tensor:
        if not self.same:
            return out[-rows:]
        return out[-self.branches :].repeat_interleave(rows // self.branches, 0)

    def read(self, prompt: Prompt | None, branches: int) -> None:
        """The coming call brings this text, for so many branches."""
        self.mode, self.keep, self.ran, self.rows = RUN, prompt is not None, False, 0
        if prompt is None:
            return
        self.branches, self.same, self.number = branches, prompt.same, prompt.number
        kept = self._kept.get(prompt.number)
        if kept is not None and kept[1] >= branches:
            self.give(kept[0])

    def collect(self) -> int:
        """Keeps what the call made; how many rows it projected."""
        if self.made is not None:
            self._kept[self.number] = (self.made, self.branches)
        super().forget()
        return self.rows

    def forget(self) -> None:
        """Frees all tensors."""
        super().forget()
        self._kept.clear()

    def state(self) -> list[Any]:
        """The projected texts by number: plain data and tensors."""
        return [[number, *kept] for number, kept in self._kept.items()]

    def restore(self, state: Iterable[Any]) -> None:
        """Keeps the texts that `state` told."""
        self._kept = {number: (made, branches) for number, made, branches in state}

    @property
    def nbytes(self) -> int:
        """Bytes kept."""
        return storage_nbytes(out for out, _ in self._kept.values())


class HintSite(Site):
    """The control clip's encoder: for one branch where both see the same clip, as a rule.

    macs: of one branch. branches: how many the coming call brings; one of them is encoded where they are
    `shared`. dead: nobody reads what is handed on.
    """

    def __init__(self, name: str, macs: int) -> None:
        super().__init__(name)
        self.macs, self.branches = macs, 1
        self.dead = self.shared = False

    def __call__(self, forward: Any, conditioning: Tensor) -> Tensor:
        """In place of the encoder's forward, for conditioning (branches·f 3 H W)."""
        rows = len(conditioning)
        if self.mode == GIVE:
            return self.value if self.dead else hint_rows(self.value, rows)
        encoded: Tensor = forward(
            conditioning.chunk(self.branches)[0] if self.shared else conditioning
        )
        self.ran = True
        if self.keep:
            self.made = encoded
        return hint_rows(encoded, rows)

    def run(self) -> None:
        """Has the encoder run as it does by itself, and nothing kept."""
        super().run()
        self.shared = False

    def encode(self, conditioning: Any, branches: int, *, share: bool, keep: bool) -> None:
        """The coming call encodes controlnet_cond (branches·f 3 H W) or (branches … f H W); with `share`
        one branch of it where all are the same."""
        self.mode, self.keep, self.ran, self.dead = RUN, keep, False, False
        self.branches, self.shared = branches, share and _same_branches(conditioning, branches)

    def hand_on(self, value: Tensor, *, dead: bool) -> None:
        """The coming call gets this in place of what is encoded; nobody reads a `dead` one."""
        self.give(value)
        self.keep = self.ran = False
        self.dead = dead

    @property
    def executed(self) -> int:
        """MACs of what was encoded."""
        return self.macs * (1 if self.shared else self.branches)


def _same_branches(conditioning: Any, branches: int) -> bool:
    if not isinstance(conditioning, Tensor) or len(conditioning) % branches:
        return False
    first, *others = conditioning.chunk(branches)
    return all(_equal(first, other) for other in others)


def hint_rows(encoded: Tensor, rows: int) -> Tensor:
    """What was encoded, for so many rows."""
    if rows > len(encoded):
        return encoded.repeat(rows // len(encoded), *[1] * (encoded.ndim - 1))
    return encoded[-rows:]


def _equal(a: Tensor, b: Tensor) -> bool:
    """Whether rows are the same; on the meta device rows of one shape are taken to be. One row of `b` may
    stand for several."""
    if any(here != there and there != 1 for here, there in zip(a.shape, b.shape, strict=True)):
        return False  # a window's ControlNet gets fewer frames than another's where they overlap
    return a.is_meta or equal(a, b.expand_as(a))
