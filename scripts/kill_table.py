#!/usr/bin/env python
"""Kills a run (-9) at random moments and goes on with it: is the clip the same, and what did each kill cost?

A clip is made twice by `hgc-video generate`, once unbroken. The other one is killed, gone on with by
`hgc-video resume`, killed again, and so on, and made to its end at last. Lost is what a process made since
its newest checkpoint; what a new process needs until it is where it was is told apart.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import diffusers

from hgc_video.media.video import write_video
from hgc_video.models.load import model_folder
from hgc_video.puppet.evaluation import held_out
from hgc_video.puppet.prompts import plain_prompt

COMMAND = [sys.executable, "-c", "from hgc_video.cli import main; main()"]
SCHEDULERS = {
    "ddim": ("DDIMScheduler", {}),
    "dpm++2m": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
}


@dataclass(frozen=True)
class Kill:
    """One kill: seconds since its process began, the newest checkpoint then (None: none was there), and
    seconds of work since that checkpoint."""

    after_s: float
    checkpoint: str | None
    lost_s: float


def with_scheduler(name: str, folder: Path) -> Path:
    """The embedded model in a folder of its own with another scheduler; all but that is linked."""
    made = folder / name
    made.mkdir()
    for path in model_folder("puppet").iterdir():
        if path.name not in ("model_index.json", "scheduler"):
            (made / path.name).symlink_to(path)
    kind, options = SCHEDULERS[name]
    stock = diffusers.DDIMScheduler.from_pretrained(model_folder("puppet") / "scheduler")
    getattr(diffusers, kind).from_config(stock.config, **options).save_pretrained(
        made / "scheduler"
    )
    index = json.loads((model_folder("puppet") / "model_index.json").read_text())
    (made / "model_index.json").write_text(json.dumps({**index, "scheduler": ["diffusers", kind]}))
    return made


def checksum(path: Path) -> str:
    """Of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def newest(work: Path) -> tuple[str | None, float]:
    """The newest whole checkpoint or decoded frames of a work folder, and when it was complete."""
    found = [(p.stat().st_mtime, p.parent.name) for p in work.glob("[cf]*/COMPLETE")]
    when, name = max(found, default=(0.0, None))
    return name, when


def begins(process: subprocess.Popen[bytes], work: Path) -> float:
    """Waits until a process works in the folder; when it began to."""
    while process.poll() is None and not (work / "plan.json").is_file():
        time.sleep(0.05)
    return time.time()


def killed(arguments: list[str], work: Path, start_s: float, work_s: float) -> Kill | None:
    """Starts a command, kills it when it has worked for so long; None where it was done before."""
    began = time.time()
    process = subprocess.Popen([*COMMAND, *arguments], stderr=subprocess.DEVNULL)
    at_work = max(begins(process, work), began + start_s)
    time.sleep(max(0.0, at_work + work_s - time.time()))
    if process.poll() is not None:
        return None
    process.kill()
    ended = time.time()
    process.wait()
    name, when = newest(work)
    return Kill(ended - began, name, ended - max(when, at_work))


def row(args: argparse.Namespace, scheduler: str, folder: Path) -> dict[str, object]:
    """One scheduler: the unbroken run, the broken one, and what became of both."""
    case = held_out(args.case, args.num_frames)
    control = write_video(folder / "control", case.truth.pose, 8)
    given = [
        "generate", "--pose", str(control), "--prompt", plain_prompt(case.spec), "--model",
        str(with_scheduler(scheduler, folder)), "--preset", args.preset, "--num-frames",
        str(args.num_frames), "--num-inference-steps", str(args.num_inference_steps), "--height",
        str(args.size), "--width", str(args.size), "--quiet",
        *(["--memory", args.memory] if args.memory else []),
    ]  # fmt: skip
    whole, report, began = folder / "whole.mp4", folder / "whole.json", time.time()
    told = ["--out", str(whole), "--report", str(report), "--checkpoint-every-s", "1e9"]
    subprocess.run([*COMMAND, *given, *told], check=True)
    whole_s, seconds = time.time() - began, json.loads(report.read_text())["seconds"]
    work_s = seconds["denoise"] + seconds["decode"]
    start_s = whole_s - work_s - seconds.get("plan", 0)
    broken, work = folder / "broken.mp4", folder / "work"
    moments = sorted(args.random.uniform(0, work_s) for _ in range(args.kills))
    kills, before, command = [], 0.0, [*given, "--out", str(broken), "--work", str(work)]
    command += ["--checkpoint-every-s", str(args.every_s)]
    for moment in moments:
        kill = killed(command, work, start_s, moment - before)
        command, before = ["resume", str(work), "--quiet"], moment
        if kill is None:
            break
        kills.append(kill)
    last = folder / "broken.json"
    subprocess.run([*COMMAND, "resume", str(work), "--quiet", "--report", str(last)], check=True)
    return {
        "scheduler": scheduler, "memory": json.loads(last.read_text())["memory"],
        "same_bytes": checksum(whole) == checksum(broken), "work_s": work_s, "start_s": start_s,
        "kills": [asdict(kill) for kill in kills],
    }  # fmt: skip


def line(made: dict[str, object], every_s: float) -> str:
    """A row of the table."""
    kills = made["kills"]
    lost = ", ".join(f"{k['lost_s']:.1f}" for k in kills)
    names = ", ".join(k["checkpoint"] or "none" for k in kills)
    return (
        f"| {made['scheduler']} | {len(kills)} | {'yes' if made['same_bytes'] else 'NO'} | {every_s:g} | "
        f"{lost} | {names} | {made['start_s']:.1f} | {made['work_s']:.1f} |"
    )


def main() -> None:
    """Reads the options, kills runs and prints the table; exit code 1 where a clip is another one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--schedulers", default="ddim,dpm++2m,unipc", help=", ".join(SCHEDULERS))
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--every-s", type=float, default=5.0, help="seconds between checkpoints")
    parser.add_argument("--preset", default="balanced")
    parser.add_argument("--memory", default="", help="a budget that has idle caches offloaded")
    parser.add_argument("--num-frames", type=int, default=96)
    parser.add_argument("--num-inference-steps", type=int, default=10)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--case", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    args = parser.parse_args()
    args.random = random.Random(args.seed)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    rows = []
    print(
        "| scheduler | kills | same bytes | checkpoints every s | lost s | newest then | start s | work s |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for scheduler in args.schedulers.split(","):
        folder = Path(tempfile.mkdtemp(prefix="kill_table-"))
        try:
            rows.append(row(args, scheduler, folder))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        print(line(rows[-1], args.every_s), flush=True)
    if args.json:
        told = {"every_s": args.every_s, "num_frames": args.num_frames, "preset": args.preset}
        args.json.write_text(json.dumps({**told, "rows": rows}, indent=1))
    if not all(made["same_bytes"] for made in rows):
        sys.exit("a clip that was gone on with is another one")


if __name__ == "__main__":
    main()
