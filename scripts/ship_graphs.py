"""Writes the data that a plan answers from at once: block graphs, and bytes at memory peaks (configs/graphs).

    python scripts/ship_graphs.py                                  # everything: many minutes
    python scripts/ship_graphs.py --only puppet --only sd15        # the files of other models stay

Graphs that are shipped are built anew. Then it plans what is to be answered at once, with nothing shipped,
and ships what the plans had to make. What it made before with the same code, in --work, is not made again, so
that a run that broke off goes on.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hgc_video.errors import InputError
from hgc_video.files import package_data
from hgc_video.forecast import forecast
from hgc_video.models import kept_data
from hgc_video.models.configurations import known_model, known_models
from hgc_video.models.graph_store import graph_of, of_request
from hgc_video.plan.presets import PRESETS

PUPPET = "puppet"
LONG = (
    512  # frames: a step of any clip of three windows or more takes the same, but for its latents
)
BUDGETS = ("8GiB", "12GiB", "16GiB", "24GiB")  # what GPUs have; others are tried at first use


def plans(models: list[str], presets: list[str]) -> Iterator[dict[str, Any]]:
    """What is to be answered at once, as arguments of `forecast`; what most ask for comes first."""
    for model in models:
        controls = ("pose", "depth") if model == PUPPET else ("pose",)
        yield from ({"model": model, "control": control} for control in controls)
    video = [name for name in models if name != PUPPET and known_model(name).num_frames > 1]
    for memory, preset, model in product(BUDGETS, presets, video):
        asked = {"model": model, "preset": preset, "memory": memory}
        if not known_model(model).configurations().temporal:
            yield {**asked, "num_frames": LONG}
        yield asked


def build_shipped_graphs(shipped: list[tuple[dict[str, Any], Any]]) -> None:
    """Builds every graph that is shipped from its models as they are now."""
    for request, _ in shipped:
        if request["kind"] == "graph":
            graph_of(*of_request(request))


def main() -> None:
    """Makes the data, ships it, and tells how large it is."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", action="append", metavar="MODEL", help="default: all models")
    parser.add_argument(
        "--presets", default=",".join(PRESETS), help="whose memory is predicted; '' leaves it out"
    )
    parser.add_argument("--work", type=Path, default=Path("runs/ship_graphs"), metavar="FOLDER")
    parser.add_argument(
        "--out",
        type=Path,
        default=package_data("graphs"),
        metavar="FOLDER",
        help="of what is shipped",
    )
    options = parser.parse_args()
    models = options.only or [PUPPET, *known_models()]
    presets = [name for name in options.presets.split(",") if name]
    whole = options.only is None and set(presets) == set(PRESETS)
    os.environ["HGC_VIDEO_HOME"] = str(options.work.absolute())
    shipped = kept_data.shipped()
    try:
        with patch.object(kept_data, "_shipped_by", return_value={}):  # nothing is taken as shipped
            if options.only is None:
                build_shipped_graphs(shipped)
            for asked in plans(models, presets):
                began = time.process_time()
                with suppress(InputError):  # some models need more
                    forecast(**asked)
                print(f"{time.process_time() - began:6.1f} s  {asked}", flush=True)
    finally:
        kept_data.ship_own(options.out)
    made = {path.name for path in options.work.glob("graphs/*.json.gz")}
    for path in options.out.glob("*.json.gz"):
        if whole and path.name not in made:
            path.unlink()
    sizes = [path.stat().st_size for path in options.out.glob("*.json.gz")]
    print(f"{len(sizes)} files, {sum(sizes) / 1024:.0f} KiB in {options.out}")


if __name__ == "__main__":
    main()
