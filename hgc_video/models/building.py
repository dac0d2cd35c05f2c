"""One thread at a time builds models: while diffusers and transformers load one, they replace functions of
torch (how modules keep parameters, how weights begin) and set its default dtype, for all threads."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

BUILDING = RLock()  # held while modules are made and filled with weights


@contextmanager
def garbage_waits() -> Iterator[None]:
    """Within this block garbage is not looked for: importing the hosts and building a model make a million
    objects that stay, and to look through them again and again takes time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def importing() -> Iterator[None]:
    """What is imported within this block counts as old at once. Garbage waits, and afterwards the younger
    generations, which are looked through often, do not hold the objects that the imports made. Where nothing
    was new, nothing is moved: a run's own garbage would be found late among the old."""
    before = len(sys.modules)
    with garbage_waits():
        yield
        is_new = len(sys.modules) > before
        if is_new and not gc.get_freeze_count():  # or what somebody else froze would be let go
            gc.freeze()
            gc.unfreeze()  # into the oldest generation


def import_hosts() -> None:
    """Imports of diffusers and transformers what nearly every model needs."""
    with importing():
        from diffusers import AnimateDiffControlNetPipeline, AutoencoderKL  # noqa: F401
        from transformers import CLIPTextModel, CLIPTokenizer  # noqa: F401


@contextmanager
def loading() -> Iterator[None]:
    """`BUILDING`, and the hosts' loading bars, a dozen lines for one second's work, are off the screen."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    with BUILDING:
        hosts = [
            h for h in (diffusers_logging, transformers_logging) if h.is_progress_bar_enabled()
        ]
        for host in hosts:
            host.disable_progress_bar()
        try:
            yield
        finally:
            for host in hosts:
                host.enable_progress_bar()
