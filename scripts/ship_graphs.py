"""Writes the data that a plan answers from at once: block graphs, and bytes at memory peaks (configs/graphs).

    python scripts/ship_graphs.py                                  # everything: many minutes
    python scripts/ship_graphs.py --only puppet --only sd15        # the files of other models stay

It plans what is to be answered at once, with nothing shipped, and ships what the plans had to make. What it
made before with the same code, in --work, is not made again, so that a run that broke off goes on.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hgc_video.errors import InputError
from hgc_video.files import package_data
from hgc_video.forecast import forecast
from hgc_video.models.configurations import known_model, known_models
from hgc_video.models.kept_data import ship_own
from hgc_video.plan.presets import PRESETS

PUPPET = "puppet"
LONG = (
    512  # frames: a step of any clip of three windows or more takes the same, but for its latents
)
NO_MEMORY = 1  # byte: every memory plan is tried, and none fits


def plans(models: list[str], presets: list[str]) -> Iterator[dict[str, Any]]:
    """What is to be answered at once, as arguments of `forecast`; what most ask for comes first."""
    for model in models:
        controls = ("pose", "depth") if model == PUPPET else ("pose",)
        yield from ({"model": model, "control": control} for control in controls)
    for preset in presets:
        for model in models:
            if model != PUPPET and known_model(model).num_frames > 1:
                asked = {"model": model, "preset": preset, "memory": NO_MEMORY}
                if not known_model(model).configurations().temporal:
                    yield {**asked, "num_frames": LONG}
                yield asked


@contextmanager
def put_aside(folder: Path, aside: Path, *, back: bool) -> Iterator[None]:
    """Nothing is shipped while the `with` block lasts; at its end what is not there anew comes `back`."""
    aside.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.json.gz"):
        path.rename(aside / path.name)
    try:
        yield
    except BaseException:
        back = True
        raise
    finally:
        for path in aside.glob("*.json.gz"):
            if back and not (folder / path.name).exists():
                path.rename(folder / path.name)
            else:
                path.unlink()


def main() -> None:
    """Makes the data, ships it, and tells how large it is."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", action="append", metavar="MODEL", help="default: all models")
    parser.add_argument(
        "--presets", default=",".join(PRESETS), help="whose memory is predicted; '' leaves it out"
    )
    parser.add_argument("--work", type=Path, default=Path("runs/ship_graphs"), metavar="FOLDER")
    options = parser.parse_args()
    models = options.only or [PUPPET, *known_models()]
    presets = [name for name in options.presets.split(",") if name]
    whole = options.only is None and set(presets) == set(PRESETS)
    os.environ["HGC_VIDEO_HOME"] = str(options.work.absolute())
    shipped = package_data("graphs")
    with put_aside(shipped, options.work / "aside", back=not whole):
        try:
            for asked in plans(models, presets):
                began = time.process_time()
                with suppress(InputError):  # NO_MEMORY is too little
                    forecast(**asked)
                print(f"{time.process_time() - began:6.1f} s  {asked}", flush=True)
        finally:
            ship_own()
    sizes = [path.stat().st_size for path in shipped.glob("*.json.gz")]
    print(f"{len(sizes)} files, {sum(sizes) / 1024:.0f} KiB in {shipped}", file=sys.stderr)


if __name__ == "__main__":
    main()
