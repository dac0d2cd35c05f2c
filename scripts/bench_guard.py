#!/usr/bin/env python
"""Asked against achieved quality of `guard`, over samplers and numbers of steps, beside fixed presets.

    python scripts/bench_guard.py

First the path of the predictions is taken from --calibration, and a map from PSNR to tolerance is fitted to
runs of other clips for each kind of sampler, with and without added noise; both are written to --map
(--no-fit keeps what there is). Then every setting runs at the asked qualities. What was measured is kept in
--memory, so that a stopped run goes on; another model, path, map or setting is measured anew. Writes --json.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from hgc_video.evaluate.measure import CompareConfig, measure
from hgc_video.evaluate.results_file import ResultsFile
from hgc_video.evaluate.results_header import results_header, write_results
from hgc_video.evaluate.samples import SampleSet
from hgc_video.evaluate.trials import kept_trials
from hgc_video.files import write_text
from hgc_video.models.identity import model_hash
from hgc_video.plan.calibration import load_calibration
from hgc_video.plan.prediction_path import path_data
from hgc_video.plan.quality_map import QualityMap, fitted_map, map_name, shipped_map

ROOT = Path(__file__).resolve().parent.parent
SCHEDULERS = {
    "ddim": "", "dpm++": "DPMSolverMultistepScheduler", "unipc": "UniPCMultistepScheduler",
    "euler": "EulerDiscreteScheduler", "euler-a": "EulerAncestralDiscreteScheduler", "lcm": "LCMScheduler",
    "dpm++sde": "DPMSolverMultistepScheduler:algorithm_type=sde-dpmsolver++",
}  # fmt: skip
NOISY = ("euler-a", "lcm", "dpm++sde")
# euler-4 and euler-8 are as Lightning models run: few steps with trailing spacing, which puppet has.
SETTINGS = (
    "ddim-25,lcm-8,euler-a-25,lcm-4,ddim-12,dpm++-25,ddim-50,unipc-25,dpm++sde-25,euler-8,euler-4,"
    "ddim-100"
)
FIT_SETTINGS = "ddim-12,ddim-25,ddim-50,dpm++-25,unipc-25,euler-8,euler-a-25,dpm++sde-25,lcm-8"
FIT_TOLERANCES = "0.004,0.007,0.012,0.02,0.035,0.05,0.07,0.1,0.14,0.2"
FIT_NOISY_TOLERANCES = (
    "0.012,0.02,0.03,0.045,0.06,0.08,0.11,0.15,0.2"  # with less, little is reused
)
FIT_FIRST = 3500  # the number of the first clip of the fit; --first is that of the others
KNOTS = (30, 35, 40, 45, 50, 55, 60)  # dB
FIXED = "balanced,fast"
Maps = dict[bool, QualityMap]  # by whether the sampler adds noise


def main() -> None:
    """Fits, measures and writes."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--model", default="puppet")
    asked.add_argument("--settings", default=SETTINGS, help="SCHEDULER-STEPS, divided by commas")
    asked.add_argument("--fit-settings", default=FIT_SETTINGS)
    asked.add_argument("--fit-tolerances", default=FIT_TOLERANCES)
    asked.add_argument("--fit-noisy-tolerances", default=FIT_NOISY_TOLERANCES)
    asked.add_argument("--asked", default="50,42,35", help="dB, divided by commas")
    asked.add_argument("--tolerances", default="", help="in place of --asked")
    asked.add_argument("--fixed", default=FIXED, help="presets beside it, divided by commas")
    asked.add_argument("--clips", type=int, default=2)
    asked.add_argument("--fit-clips", type=int, default=3)
    asked.add_argument("--first", type=int, default=3000)
    asked.add_argument("--num-frames", type=int, default=4)
    asked.add_argument("--calibration", type=Path, default=ROOT / "configs/puppet-calibration.yaml")
    asked.add_argument("--no-fit", action="store_true", help="keep the map that there is")
    asked.add_argument("--map", type=Path, default=ROOT / "configs/schedules/guard.yaml")
    asked.add_argument("--json", type=Path, default=ROOT / "configs/results/guard.json")
    asked.add_argument("--memory", type=Path, default=Path("runs/guard.jsonl"))
    given = asked.parse_args()
    bench = Bench(given)
    with kept_trials():
        for row in bench.rows(shipped_maps() if given.no_fit else bench.fit()):
            print(told(row), flush=True)


class Bench:
    """Runs what is not in memory yet."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given, self.results = given, ResultsFile(given.memory)

    def fit(self) -> Maps:
        """The path, and the maps fitted to runs at a few tolerances; written."""
        told = (
            yaml.safe_load(self.given.map.read_text()) if self.given.map.is_file() else {"maps": {}}
        )
        told |= {"model": self.given.model, "model_hash": model_hash(self.given.model)}
        told["path"] = path_data(load_calibration(self.given.calibration))
        self.write_map(told)  # by which the runs below are planned
        for noisy in (False, True):
            # Of a kind that no setting is of, those of the other.
            runs = list(self.fit_runs(noisy)) or list(self.fit_runs(not noisy))
            made = fitted_map([(tolerance, psnr) for _, tolerance, psnr in runs], KNOTS)
            told["maps"][map_name(noisy)] = {
                "psnr_db": list(made.psnr_db), "tolerance": list(made.tolerance),
                "runs": [list(run) for run in runs],
            }  # fmt: skip
        self.write_map(told)
        return {
            noisy: QualityMap(tuple(one["psnr_db"]), tuple(one["tolerance"]))
            for noisy in (False, True) for one in [told["maps"][map_name(noisy)]]
        }  # fmt: skip

    def fit_runs(self, noisy: bool) -> Iterator[tuple[str, float, float]]:
        """Setting, tolerance and PSNR of the runs of a kind of sampler, where something was reused."""
        given = self.given
        listed = given.fit_noisy_tolerances if noisy else given.fit_tolerances
        words = {f"guard:tolerance={t}": float(t) for t in listed.split(",")}
        for setting in given.fit_settings.split(","):
            if is_noisy(setting) != noisy:
                continue
            for clip in range(given.fit_clips):
                for row in self.measured(setting, FIT_FIRST, clip, list(words)):
                    if row["psnr_db"] < 99:
                        yield setting, words[row["method"]], round(row["psnr_db"], 1)

    def write_map(self, told: dict[str, Any]) -> None:
        """What is shipped, anew."""
        text = yaml.safe_dump(told, sort_keys=False, default_flow_style=None, width=120)
        write_text(self.given.map, text)

    def rows(self, known: Maps) -> Iterator[dict[str, Any]]:
        """The rows of every setting, which are written as JSON too."""
        fixed = list(filter(None, self.given.fixed.split(",")))
        found: list[dict[str, Any]] = []
        for setting in self.given.settings.split(","):
            words = self.words(known[is_noisy(setting)])
            for clip in range(self.given.clips):
                for row in self.measured(setting, self.given.first, clip, [*words, *fixed]):
                    found.append({"setting": setting, "asked_db": words.get(row["method"]), **row})
                    yield found[-1]
                self.write(found)

    def words(self, known: QualityMap) -> dict[str, float]:
        """The methods, with what is asked of each."""
        if self.given.tolerances:
            chosen = {t: known.psnr_of(float(t)) for t in self.given.tolerances.split(",")}
        else:
            asked = map(float, self.given.asked.split(","))
            chosen = {str(known.tolerance_of(db)): db for db in asked}
        return {f"guard:tolerance={tolerance}": db for tolerance, db in chosen.items()}

    def measured(
        self, setting: str, first: int, clip: int, words: list[str]
    ) -> list[dict[str, Any]]:
        """The figures of methods on one clip of a setting."""
        name, _, steps = setting.rpartition("-")
        model = self.given.model
        source = SampleSet(
            model, None, first, clip + 1, self.given.num_frames, SCHEDULERS[name], device="cpu"
        )
        path = sha256(json.dumps(yaml.safe_load(self.given.map.read_text())["path"]).encode())
        task = json.dumps(
            [
                model,
                model_hash(model),
                path.hexdigest(),
                setting,
                first,
                clip,
                self.given.num_frames,
            ]
        )
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


def shipped_maps() -> Maps:
    """The maps that the package ships, by whether the sampler adds noise."""
    return {noisy: shipped_map(noisy) for noisy in (False, True)}


def is_noisy(setting: str) -> bool:
    """Whether the sampler of a setting adds noise at its steps."""
    return setting.rpartition("-")[0] in NOISY


def told(row: dict[str, Any]) -> str:
    """A row as a line."""
    asked = "" if row["asked_db"] is None else f"asked {row['asked_db']:g} dB, "
    return (
        f"{row['setting']} {row['method']}: {asked}{row['psnr_db']:.1f} dB, "
        f"{100 * row['macs_saved']:.1f} % saved, flicker {row['flicker']:.2f}"
    )


if __name__ == "__main__":
    main()
