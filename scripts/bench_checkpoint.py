#!/usr/bin/env python
"""What checkpoints cost: a run that is kept, and what a state of a size costs the run and beside it.

The run waits only while the state is taken; writing goes on beside it, and its CPU seconds are what it takes
from the run where no core is free. Shares are of the seconds between two checkpoints.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import hgc_video
from hgc_video.cache.store import Lasting
from hgc_video.jobs.checkpoint.work_folder import WorkFolder
from hgc_video.puppet.evaluation import held_out
from hgc_video.puppet.prompts import plain_prompt

_TENSOR = 2**18  # numbers, of a MiB
_LATENTS = 5  # tensors of the state that change in place, and are copied


def of_a_run(args: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Seconds of a run, and those that it waited for its checkpoints."""
    case = held_out(args.case, args.num_frames)
    clip = hgc_video.generate(
        case.truth.pose, plain_prompt(case.spec), preset=args.preset, num_frames=args.num_frames,
        num_inference_steps=args.num_inference_steps, height=args.size, width=args.size, progress=False,
        work=folder / "run", checkpoint_every_s=args.every_s, memory=args.memory or None,
    )  # fmt: skip
    seconds = clip.report.seconds
    run_s, wait_s = seconds["denoise"] + seconds["decode"], seconds.get("checkpoint", 0.0)
    return {"run_s": run_s, "wait_s": wait_s, "share": wait_s / max(run_s - wait_s, 1e-9)}


def of_a_state(
    nbytes: int, changed: float, args: argparse.Namespace, folder: Path
) -> dict[str, Any]:
    """The second checkpoint of a state of so many bytes, of whose cache a share is another one by then."""
    work = WorkFolder(folder / "state")
    work.open()
    count = max(1, nbytes // 2**20)
    latents = [_random(args) for _ in range(min(count, _LATENTS))]
    cache = [_random(args) for _ in range(count - len(latents))]
    work.keep(work.snapshot({"latents": latents, "cache": Lasting(cache)}))
    for at in range(round(changed * len(cache))):
        cache[at] = _random(args)
    for tensor in latents:
        tensor.add_(1)
    began, cpu = time.perf_counter(), time.thread_time()
    snapshot = work.snapshot({"latents": latents, "cache": Lasting(cache)})
    taken, taken_cpu = time.perf_counter(), time.thread_time()
    written = work.keep(snapshot)
    ended, ended_cpu = time.perf_counter(), time.thread_time()
    work.remove()
    every_s = args.every_s or 60.0
    return {
        "nbytes": count * 2**20, "changed": changed, "written_nbytes": written, "wait_s": taken - began,
        "wait_cpu_s": taken_cpu - cpu, "write_s": ended - taken, "write_cpu_s": ended_cpu - taken_cpu,
        "share": (taken - began) / every_s, "cpu_share": (ended_cpu - cpu) / every_s,
    }  # fmt: skip


def row(found: dict[str, Any]) -> str:
    """A state's row of the table."""
    size, written = found["nbytes"] / 2**20, found["written_nbytes"] / 2**20
    cpu_s = found["wait_cpu_s"] + found["write_cpu_s"]
    return (
        f"| {size:.0f} MiB | {100 * found['changed']:.0f} % | {written:.0f} MiB | {found['wait_s']:.3f} s | "
        f"{100 * found['share']:.2f} % | {found['write_s']:.2f} s | {cpu_s:.2f} s, "
        f"{100 * found['cpu_share']:.2f} % |"
    )


def _random(args: argparse.Namespace) -> torch.Tensor:
    return torch.rand(_TENSOR, device=args.device)


def main() -> None:
    """Reads the options, measures and prints both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--every-s", type=float, default=60.0, help="seconds between checkpoints")
    parser.add_argument("--nbytes", default="16,256,1024", help="MiB of the states")
    parser.add_argument("--changed", default="0,0.25,1", help="shares of the caches that change")
    parser.add_argument("--device", default="cpu", help="where the states lie")
    parser.add_argument("--preset", default="balanced")
    parser.add_argument("--memory", default="", help="a budget that has idle caches offloaded")
    parser.add_argument("--num-frames", type=int, default=96)
    parser.add_argument("--num-inference-steps", type=int, default=10)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--case", type=int, default=6)
    parser.add_argument("--no-run", action="store_true", help="states alone")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    told: dict[str, Any] = {"every_s": args.every_s, "device": args.device, "states": []}
    print(
        f"| state | changed | written | the run waits | of {args.every_s:g} s | beside it | CPU of both, of "
        f"{args.every_s:g} s |\n|---|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory(prefix="bench_checkpoint-") as place:
        for size in args.nbytes.split(","):
            for changed in args.changed.split(","):
                found = of_a_state(int(size) * 2**20, float(changed), args, Path(place))
                told["states"].append(found)
                print(row(found), flush=True)
        if not args.no_run:
            told["run"] = run = of_a_run(args, Path(place))
            print(
                f"a run of {run['run_s']:.1f} s waited {run['wait_s']:.2f} s for its checkpoints, "
                f"{100 * run['share']:.2f} %"
            )
    if args.json:
        args.json.write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
