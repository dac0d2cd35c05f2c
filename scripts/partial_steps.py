#!/usr/bin/env python
"""What partial steps are predicted to add, by calibration alone.

It is the difference of exact optima over key steps, where the steps between them reuse the whole prediction
(H), compute the last up layer (1), or may do either.

No model is run. The optimum is that of the dynamic programming of the search, under extrapolation by a fitted
share of the slope, at the best gate of those tried. Writes --json.
"""

from __future__ import annotations

import argparse
from math import log10
from pathlib import Path

from hgc_video.evaluate.results_header import results_header, write_results
from hgc_video.forecast import forecast
from hgc_video.plan.calibration import load_calibration
from hgc_video.plan.search.segments import Prices, least_error

ROOT = Path(__file__).resolve().parent.parent
KINDS = {"whole steps": "FH", "partial steps": "F1", "both": "FH1"}
GATES = (1.0, 0.8, 0.6, 0.4)  # shares of the run


def main() -> None:
    """Writes the table as a file of results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--calibration", type=Path, default=ROOT / "configs/puppet-calibration.yaml"
    )
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.4, 0.25, 0.15])
    parser.add_argument("--json", type=Path, default=ROOT / "configs/results/partial-steps.json")
    args = parser.parse_args()
    measured = load_calibration(args.calibration)
    graph = forecast(model=measured.setting.model, num_frames=measured.num_frames).graph
    steps = measured.setting.num_inference_steps
    rows = []
    for budget in args.budgets:
        row = {"budget": budget}
        for kind, letters in KINDS.items():
            found = [
                least_error(measured, graph, budget, gate=round(gate * steps), letters=letters)
                for gate in GATES
            ]
            errors = [error for error in found if error is not None]
            row[kind] = round(-10 * log10(min(errors)), 2) if errors else None
        print(row, flush=True)
        rows.append(row)
    price = Prices.of(graph, "H1").before
    header = results_header(measured.setting.model, clips=measured.clips, seeds=1)
    write_results(args.json, header, prices=price, predicted_db=rows)


if __name__ == "__main__":
    main()
