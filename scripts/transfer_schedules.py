#!/usr/bin/env python
"""Carries the presets' schedules over to the models known by name, by rule: configs/schedules/MODEL."""

from __future__ import annotations

import argparse
from pathlib import Path

from hgc_video.models.catalog import model_preset, model_presets
from hgc_video.plan.policies.searched import load_coded_schedule
from hgc_video.plan.presets import SEARCHED
from hgc_video.plan.search.transfer import transferred

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Writes a file for every model and preset."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--schedules", type=Path, default=ROOT / "configs" / "schedules")
    folder = parser.parse_args().schedules
    for model in model_presets():
        (folder / model).mkdir(exist_ok=True)
        for name in SEARCHED:
            plan = load_coded_schedule(folder / f"{name}.yaml")
            steps = model_preset(model).num_inference_steps
            made = transferred(plan, model=model, source="puppet", num_inference_steps=steps)
            made.save(folder / model / f"{name}.yaml")
            print(f"{model:24} {name:9} {made.actions}")


if __name__ == "__main__":
    main()
