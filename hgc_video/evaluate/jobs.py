"""Runs independent jobs in worker processes of one thread each, or here."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

from ..errors import at_least

Map = Callable[[Callable[[Any], Any], Iterable[Any]], list[Any]]


@contextmanager
def workers(count: int) -> Iterator[Map]:
    """A `map` over `count` processes; over this one where it is 1. The order is the arguments'.

    InputError for a count below 1.
    """
    at_least("jobs", count, 1)
    if count == 1:
        yield lambda job, arguments: [job(argument) for argument in arguments]
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process that holds torch may hang
    with ProcessPoolExecutor(count, mp_context=context, initializer=_one_thread) as pool:
        yield lambda job, arguments: list(pool.map(job, arguments))


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)
