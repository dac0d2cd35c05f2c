#!/usr/bin/env python
"""Plans what papers and released packages give the MACs of, and writes both beside each other.

No weights take part: a plan needs the configurations alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hgc_video.evaluate.results_header import results_header, write_results
from hgc_video.forecast import forecast

_OLD = "no-attention-products"  # how calflops and the papers count
# Model, steps, ControlNets, policy, published TMACs.
PUBLISHED: tuple[tuple[str, int, int, str, float], ...] = (
    ("sd15", 25, 0, "full", 16.938),
    ("sd15", 25, 0, "tgate:gate=5,sp_interval=1", 9.875),
    ("sd21", 25, 0, "full", 38.041),
    ("sd21", 25, 0, "tgate:gate=10,sp_interval=1", 26.166),
    ("sd15", 20, 1, "full", 18.22),
    ("sd15", 20, 1, "hgc:dense=0.1,interval=3,depth=2,gate=0.3", 6.70),
)
VIDEO = "animatediff-sd15"  # with a ControlNet, 16 frames of 512x512, every product counted
VIDEO_POLICIES = (
    "full", "deepcache:interval=3", "deepcache:interval=3,controlnet_interval=3",
    "deepcache:interval=3,controlnet_interval=3+gate:at=0.4",
)  # fmt: skip
VIDEO_STEPS = 25


def planned(model: str, steps: int, policy: str, **setting: Any) -> dict[str, Any]:
    """MACs of a plan and the share that it saves."""
    told = forecast(model=model, preset=policy, num_inference_steps=steps, **setting)
    spent = sum(told.macs_by_part.values())
    return {"macs": spent, "macs_saved": told.macs_saved}


def main() -> None:
    """Plans every row and writes the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--rows", type=int, help="the first so many of each table; default: all")
    args = parser.parse_args()
    rows = []
    for model, steps, controlnets, policy, published in PUBLISHED[: args.rows]:
        setting = {"num_controlnets": controlnets, "convention": _OLD, "num_frames": 1}
        told = planned(model, steps, policy, **setting)
        rows.append(
            {"model": model, "num_inference_steps": steps, "num_controlnets": controlnets, "policy": policy,
             "published_tmacs": published, **told}
        )  # fmt: skip
        print(
            f"{model} {policy}: published {published}, planned {told['macs'] / 1e12:.2f}",
            flush=True,
        )
    video = []
    for policy in VIDEO_POLICIES[: args.rows]:
        video.append({"policy": policy, **planned(VIDEO, VIDEO_STEPS, policy)})
        print(f"{VIDEO} {policy}: {100 * video[-1]['macs_saved']:.1f} % saved", flush=True)
    write_results(
        args.json,
        results_header(None),
        rows=rows,
        video=video,
        video_num_inference_steps=VIDEO_STEPS,
    )


if __name__ == "__main__":
    main()
