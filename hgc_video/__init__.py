"""ControlNet-guided video diffusion made cheaper by the Hybrid-Grained Cache.

Loads its public names on first use: importing the package loads neither torch nor diffusers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = [
    "Clip", "Generator", "HGCVideoError", "Report", "__version__", "disable_cache", "enable_cache",
    "generate", "resume", "run_shot",
]  # fmt: skip

if TYPE_CHECKING:
    from .clip import Clip
    from .enable import disable_cache, enable_cache
    from .errors import HGCVideoError
    from .generator import Generator
    from .jobs.resume import resume
    from .jobs.run import run_shot
    from .pipeline import generate
    from .report import Report
else:
    # Hidden from the type checker, so that it still knows which names exist.
    def __getattr__(name: str) -> object:
        from importlib import import_module

        homes = {
            "Clip": "clip",
            "disable_cache": "enable",
            "enable_cache": "enable",
            "Generator": "generator",
            "HGCVideoError": "errors",
            "Report": "report",
            "generate": "pipeline",
            "resume": "jobs.resume",
            "run_shot": "jobs.run",
        }
        if name not in homes:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{homes[name]}"), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
