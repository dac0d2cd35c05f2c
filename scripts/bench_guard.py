#!/usr/bin/env python
"""Asked against achieved quality of `guard`, over samplers and numbers of steps, beside fixed presets.

    python scripts/bench_guard.py

First the map from PSNR to tolerance is fitted to runs of other clips and written to --map (--no-fit keeps
the one there is); then every setting runs at the asked qualities. What was measured is kept in --memory, so
that a stopped run goes on; another model, map or setting is measured anew. Writes --json.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from hgc_video.evaluate.measure import CompareConfig, measure
from hgc_video.evaluate.results_file import ResultsFile
from hgc_video.evaluate.results_header import results_header, write_results
from hgc_video.evaluate.trials import SampleSet, kept_trials
from hgc_video.files import write_text
from hgc_video.models.identity import model_hash
from hgc_video.plan.quality_map import QualityMap, fitted_map, psnr_of, shipped_map

ROOT = Path(__file__).resolve().parent.parent
SCHEDULERS = {
    "ddim": "", "dpm++": "DPMSolverMultistepScheduler", "unipc": "UniPCMultistepScheduler",
    "euler-a": "EulerAncestralDiscreteScheduler", "lcm": "LCMScheduler",
}  # fmt: skip
SETTINGS = "ddim-25,lcm-8,euler-a-25,lcm-4,ddim-12,dpm++-25,ddim-50,unipc-25"
FIT_SETTINGS, FIT_TOLERANCES = "ddim-25,ddim-12", "0.015,0.05,0.15"
FIT_FIRST = 3500  # the number of the first clip of the fit; --first is that of the others
KNOTS = (30, 35, 40, 45, 50, 55, 60)  # dB
FIXED = "balanced,fast"


def main() -> None:
    """Fits, measures and writes."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--model", default="puppet")
    asked.add_argument("--settings", default=SETTINGS, help="SCHEDULER-STEPS, divided by commas")
    asked.add_argument("--fit-settings", default=FIT_SETTINGS)
    asked.add_argument("--fit-tolerances", default=FIT_TOLERANCES)
    asked.add_argument("--asked", default="50,42,35", help="dB, divided by commas")
    asked.add_argument("--tolerances", default="", help="in place of --asked")
    asked.add_argument("--fixed", default=FIXED, help="presets beside it, divided by commas")
    asked.add_argument("--clips", type=int, default=2)
    asked.add_argument("--fit-clips", type=int, default=1)
    asked.add_argument("--first", type=int, default=3000)
    asked.add_argument("--num-frames", type=int, default=4)
    asked.add_argument("--no-fit", action="store_true", help="keep the map that there is")
    asked.add_argument("--map", type=Path, default=ROOT / "configs/schedules/guard.yaml")
    asked.add_argument("--json", type=Path, default=ROOT / "configs/results/guard.json")
    asked.add_argument("--memory", type=Path, default=Path("runs/guard.jsonl"))
    given = asked.parse_args()
    bench = Bench(given)
    with kept_trials():
        known = shipped_map() if given.no_fit else bench.fit()
        for row in bench.rows(known):
            print(told(row), flush=True)


class Bench:
    """Runs what is not in memory yet."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given, self.results = given, ResultsFile(given.memory)

    def fit(self) -> QualityMap:
        """The map, fitted to runs at a few tolerances, and written."""
        runs = []
        tolerances = [float(t) for t in self.given.fit_tolerances.split(",")]
        words = {f"guard:tolerance={t}": t for t in tolerances}
        for setting in self.given.fit_settings.split(","):
            for clip in range(self.given.fit_clips):
                rows = self.measured(setting, FIT_FIRST, clip, list(words))
                runs += [
                    (words[row["method"]], row["psnr_db"])
                    for row in rows
                    if row["psnr_db"] < 99  # something was reused
                ]
        made = fitted_map(runs, KNOTS)
        told = {
            "psnr_db": list(made.psnr_db), "tolerance": list(made.tolerance),
            "model": self.given.model, "model_hash": model_hash(self.given.model),
            "runs": [[tolerance, round(psnr, 1)] for tolerance, psnr in runs],
        }  # fmt: skip
        write_text(self.given.map, yaml.safe_dump(told, sort_keys=False, default_flow_style=None))
        return made

    def rows(self, known: QualityMap) -> Iterator[dict[str, Any]]:
        """The rows of every setting, which are written as JSON too."""
        if self.given.tolerances:
            chosen = {t: psnr_of(known, float(t)) for t in self.given.tolerances.split(",")}
        else:
            asked = map(float, self.given.asked.split(","))
            chosen = {str(known.tolerance_of(db)): db for db in asked}
        words = {f"guard:tolerance={tolerance}": db for tolerance, db in chosen.items()}
        methods = [*words, *filter(None, self.given.fixed.split(","))]
        found: list[dict[str, Any]] = []
        for setting in self.given.settings.split(","):
            for clip in range(self.given.clips):
                for row in self.measured(setting, self.given.first, clip, methods):
                    found.append({"setting": setting, "asked_db": words.get(row["method"]), **row})
                    yield found[-1]
                self.write(found)

    def measured(
        self, setting: str, first: int, clip: int, words: list[str]
    ) -> list[dict[str, Any]]:
        """The figures of methods on one clip of a setting."""
        name, _, steps = setting.rpartition("-")
        model = self.given.model
        source = SampleSet(
            model, None, first, clip + 1, self.given.num_frames, SCHEDULERS[name], device="cpu"
        )
        task = json.dumps([model, model_hash(model), setting, first, clip, self.given.num_frames])
        known = {row["method"]: row for row in self.results.read(task)}
        missing = [word for word in words if word not in known]
        if missing:
            began = time.perf_counter()
            made = measure(CompareConfig(source, int(steps), 0), missing, clip, 0)
            self.results.add(task, made)
            known |= {row["method"]: row for row in made}
            print(f"{setting} clip {first + clip}: {time.perf_counter() - began:.0f} s", flush=True)
        return [known[word] for word in words]

    def write(self, rows: list[dict[str, Any]]) -> None:
        """The rows so far, and what they were measured on."""
        given = self.given
        header = results_header(given.model, clips=given.clips, seeds=1)
        write_results(given.json, header, num_frames=given.num_frames, figures=rows)


def told(row: dict[str, Any]) -> str:
    """A row as a line."""
    asked = "" if row["asked_db"] is None else f"asked {row['asked_db']:g} dB, "
    return (
        f"{row['setting']} {row['method']}: {asked}{row['psnr_db']:.1f} dB, "
        f"{100 * row['macs_saved']:.1f} % saved, flicker {row['flicker']:.2f}"
    )


if __name__ == "__main__":
    main()
