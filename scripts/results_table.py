#!/usr/bin/env python
"""Rewrites what the pages say of measurements, from the files in configs/results: README.md and the pages of
results, of the embedded model and of the policies. Only what stands between marks is written."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from hgc_video.evaluate.table import rows  # noqa: E402
from hgc_video.files import write_text  # noqa: E402
from scripts.result_tables import costs, methods, puppet, settings  # noqa: E402
from scripts.result_tables.measured import Told  # noqa: E402

RESULTS = ROOT / "configs" / "results"
PAGES = (
    ROOT / "README.md", RESULTS / "README.md", ROOT / "hgc_video" / "puppet" / "README.md",
    ROOT / "hgc_video" / "plan" / "policies" / "README.md",
)  # fmt: skip
_README_ROWS = (
    "off", "quality", "balanced", "fast", "turbo", "deepcache:interval=2,controlnet_interval=2",
    "l2p:calibration=configs/puppet-calibration.yaml,interval=3", "dpm++:steps=10",
)  # fmt: skip
_RIVALS = ("rivals-25", "rivals-2026", "rivals-savings")
# Comparisons at other numbers of steps and schedulers, each a file.
_SETTINGS = (
    "compare-4", "compare-8", "compare-12", "compare-50", "compare-25-dpmpp-2m", "compare-25-euler-ancestral",
    "compare-8-lcm",
)  # fmt: skip


def sections(results: Path) -> dict[str, str]:
    """What stands between the marks of each name, made from the files in `results`."""

    def read(name: str) -> Told:
        return dict(json.loads((results / f"{name}.json").read_text()))

    def if_measured(name: str, *write: Callable[[Told], str]) -> list[str]:
        if not (results / f"{name}.json").is_file():
            return ["Not measured with these weights yet (`scripts/reproduce`)."] * len(write)
        return [one(read(name)) for one in write]

    main = read("compare-25")
    others_of = [read(name) for name in _RIVALS if (results / f"{name}.json").is_file()]
    known = {figure["method"] for figure in main["figures"]}
    more = [figure for told in others_of for figure in told["figures"]]
    found = rows([*main["figures"], *(f for f in more if f["method"] not in known)])
    few = [row for name in _README_ROWS for row in found if row.method == name]
    others_told = [read(name) for name in _SETTINGS]
    others = [row for told in others_told for row in rows(told["figures"])]
    measured, steps = (main, *others_of), f", {main['num_inference_steps']} steps"
    made = {
        "presets": f"{methods.table(few)}\n\n{methods.caption(measured, few, steps)}",
        "margins": methods.margins(found),
        "best settings": methods.best_settings(found),
        "all methods": f"{methods.table(found)}\n\n{methods.caption(measured, found, steps)}",
        "other settings": f"{settings.settings_table(others_told)}\n\n{methods.caption(others_told, others)}",
    }
    made["published figures"], made["published video"] = if_measured(
        "published", costs.published, costs.published_video
    )
    for name, file, write in (
        ("engine", "engine", costs.engine), ("partial steps", "partial-steps", costs.partial_steps),
        ("low resolution", "low-resolution", costs.low_resolution),
        ("asked quality", "guard", settings.asked_table), ("fidelity", "puppet", puppet.fidelity),
        ("reconstruction", "puppet-vae", puppet.reconstruction),
        ("depth estimator", "puppet-depth", puppet.depth),
    ):  # fmt: skip
        (made[name],) = if_measured(file, write)
    return made


def rewritten(text: str, made: dict[str, str]) -> str:
    """A page with what stands between its marks made anew; a name may stand in it or not."""
    for name, body in made.items():
        begin, end = marks(name)
        if begin in text:
            before, rest = text.split(begin)
            _, after = rest.split(end)
            text = f"{before}{begin}\n{body}\n{end}{after}"
    return text


def marks(name: str) -> tuple[str, str]:
    """What stands before and after a section that is written here."""
    return f"<!-- {name}: scripts/results_table.py -->", f"<!-- end of {name} -->"


def main() -> None:
    """Rewrites the pages."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the figures")
    parser.add_argument("--pages", type=Path, nargs="+", default=PAGES, help="pages to rewrite")
    args = parser.parse_args()
    made = sections(args.results)
    for page in args.pages:
        write_text(page, rewritten(page.read_text(), made))


if __name__ == "__main__":
    main()
