#!/usr/bin/env python
"""Makes hundreds of clips in one process, each under other options, and asks what is left of them.

A clip is made by `generate` (presets and policies, sizes, windows, schedulers, one control or two, LoRA,
written or not, with a work folder or not, one in eight stopped by its callback) or by a stock pipeline under
`enable_cache`, with and without LoRA. After each ten the model is given up, and the resident set, tensors,
handles, threads and temporary files are counted. Every 25th clip is made again in a fresh process: it must be
the same, to the bit.

    python scripts/soak.py                     200 clips, the first 60 of them left out of the slope
    python scripts/soak.py --clip 75           one clip alone: its options and its digest

The same seed gives the same clips. Rows are kept as they come, and a stopped campaign goes on in a new
process, which has to warm up again. Linux only.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402

import hgc_video.files  # noqa: E402
from hgc_video.errors import Cancelled, HGCVideoWarning  # noqa: E402
from hgc_video.evaluate.results_file import ResultsFile  # noqa: E402
from hgc_video.evaluate.results_header import results_header, write_results  # noqa: E402
from hgc_video.models.load import load_pipeline  # noqa: E402
from hgc_video.puppet.evaluation import held_out  # noqa: E402
from tests.original_files import kohya_lora  # noqa: E402

PRESETS = ("off", "lossless", "quality", "balanced", "fast", "turbo")
POLICIES = (
    "deepcache:interval=2", "hgc:interval=2,cut=1,gate=0.6,slope=0.5", "easycache", "taylorseer", "hicache",
    "spectrum", "tgate:gate=1,sp_interval=1", "fastercache", "pab", "faster-diffusion", "clockwork:clock=2",
    "ucache", "sada", "resilphase", "hgc:interval=2,cut=1,online=True", "deepcache:interval=2+lossless",
)  # fmt: skip
SIZES = ((64, 64), (32, 64), (64, 96))  # height, width
# Growth by name that is a fault, and the looks that it takes: a process's first clips load libraries.
MOST_GROWTH = {"rss_nbytes": 0.02, "tensors": 0.005, "modules": 0.005}
LEAST_LOOKS = 10
SCHEDULERS = (None, "dpm++", "euler", "unipc", "lcm")
PROMPTS = (
    "a dancer in a red shirt and blue trousers on a beach",
    "a dancer in a green shirt and white trousers in a forest",
)


def options_of(number: int, seed: int) -> dict[str, Any]:
    """The options of a clip, as plain values."""
    chance = random.Random(f"{seed} {number}")
    policies = PRESETS if chance.random() < 0.4 else POLICIES
    height, width = chance.choice(SIZES)
    given: dict[str, Any] = {
        "stock": chance.random() < 0.3, "prompt": chance.choice(PROMPTS), "preset": chance.choice(policies),
        "seed": chance.randrange(1000), "num_inference_steps": chance.choice((2, 3, 4)), "height": height,
        "width": width, "num_frames": chance.choice((1, 4, 8)), "lora": chance.random() < 0.25,
    }  # fmt: skip
    if given["stock"]:
        return given
    given["control"] = chance.choice(("pose", "pose", "depth", "both"))
    given["scheduler"] = chance.choice(SCHEDULERS)
    if given["num_frames"] == 8 and chance.random() < 0.5:
        given |= {"context_length": 4, "context_overlap": chance.choice((0, 2))}
    if chance.random() < 0.5:
        given["out"] = chance.choice(("clip.mp4", "clip.gif", "frames"))
        given["work"] = chance.random() < 0.5
    given["stop"] = chance.random() < 1 / 8
    return given


class Maker:
    """Makes clips in this process, in a scratch folder."""

    def __init__(self, place: Path) -> None:
        self._place, self._truth = place, held_out(0, 8).truth
        self._generator = hgc_video.Generator(progress=False)
        self._stock: Any = None
        self._lora = kohya_lora(place / "style.safetensors", load_pipeline("puppet", "pose").unet)

    def digest(self, given: dict[str, Any]) -> str:
        """A hash of the clip's frames; `stopped` where its callback stopped it."""
        made = self._by_stock_pipeline(given) if given["stock"] else self._by_generate(given)
        return made if isinstance(made, str) else hashlib.sha256(made.tobytes()).hexdigest()[:16]

    def give_up(self) -> None:
        """Frees the models that are loaded."""
        self._generator.unload()
        self._stock = None

    def _by_generate(self, given: dict[str, Any]) -> Any:
        kinds = ("pose", "depth") if given["control"] == "both" else (given["control"],)
        left = {"stock", "control", "lora", "stop", "out", "work", "prompt"}
        more = {name: value for name, value in given.items() if name not in left}
        clips = {kind: getattr(self._truth, kind) for kind in kinds}
        if given["lora"]:
            more["lora"] = {self._lora: 0.7}
        out = self._place / given["out"] if "out" in given else None
        work = self._place / "work" if given.get("work") else None
        stop = (lambda step, *_: step < 1) if given["stop"] else None
        try:
            clip = self._generator.generate(
                None, given["prompt"], control=clips, out=out, work=work, callback=stop,
                checkpoint_every_s=0, **more,
            )  # fmt: skip
            return np.array(clip.frames)
        except Cancelled:
            return "stopped"
        finally:
            for path in (out, work):
                if path is not None:
                    hgc_video.files.remove(path)

    def _by_stock_pipeline(self, given: dict[str, Any]) -> Any:
        if self._stock is None:
            self._stock = load_pipeline("puppet", "pose")
        pipe, count = self._stock, given["num_frames"]
        size = given["width"], given["height"]
        hints = [Image.fromarray(frame).resize(size) for frame in self._truth.pose[:count]]
        if given["lora"]:
            pipe.load_lora_weights(self._lora.parent, weight_name=self._lora.name)
        try:
            with hgc_video.enable_cache(pipe, given["preset"]):
                made = pipe(
                    prompt=given["prompt"], conditioning_frames=hints, num_frames=count, height=size[1],
                    width=size[0], guidance_scale=2.5, num_inference_steps=given["num_inference_steps"],
                    generator=torch.Generator().manual_seed(given["seed"]), output_type="np",
                ).frames  # fmt: skip
        finally:
            if given["lora"]:
                pipe.unload_lora_weights()
        return made


def left(place: Path) -> dict[str, Any]:
    """What the process holds now."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    objects = gc.get_objects()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "rss_nbytes": pages * os.sysconf("SC_PAGE_SIZE"),
        "tensors": sum(issubclass(type(o), torch.Tensor) for o in objects),
        "modules": sum(issubclass(type(o), torch.nn.Module) for o in objects),
        "objects": len(objects),
        "handles": len(os.listdir("/proc/self/fd")),  # noqa: PTH208
        "threads": len(os.listdir("/proc/self/task")),  # noqa: PTH208
        "named_threads": sorted(thread.name for thread in threading.enumerate()),
        "files": sorted(
            path.name
            for path in place.iterdir()
            if path.name != "style.safetensors" and not path.name.startswith("torchinductor_")
        ),
    }


def campaign(args: argparse.Namespace, place: Path, rows: ResultsFile, task: str) -> None:
    """Makes the clips that have no row yet."""
    known = {row["clip"] for row in rows.read(task)}
    maker = Maker(place)
    for number in range(args.clips):
        if number in known:
            continue
        given, began = options_of(number, args.seed), time.process_time()
        row = {"clip": number, "process": os.getpid(), **given, "digest": maker.digest(given)}
        row["cpu_s"] = round(time.process_time() - began, 2)
        if number % args.every == args.every - 1:
            row["fresh"] = fresh(number, args.seed)
        if number % args.look == args.look - 1:
            maker.give_up()
            row["left"] = left(place)
        rows.add(task, [row])


def fresh(number: int, seed: int) -> str:
    """The digest of a clip that is made in a process of its own."""
    command = [sys.executable, str(Path(__file__).resolve()), "--clip", str(number)]
    done = subprocess.run(
        [*command, "--seed", str(seed)], capture_output=True, text=True, check=True
    )
    return str(json.loads(done.stdout.splitlines()[-1])["digest"])


def summary(rows: list[dict[str, Any]], warm_up: int) -> dict[str, Any]:
    """What holds of all clips: counts, memory over those after the warm-up, and what is left at the end."""
    process = Counter(row["process"] for row in rows).most_common(1)[0][0]
    own = [row for row in rows if row["process"] == process]
    looks = [(row["clip"], row["left"]) for row in own[warm_up:] if "left" in row]
    told: dict[str, Any] = {
        "clips": len(rows), "processes": len({row["process"] for row in rows}),
        "by_generate": sum(not row["stock"] for row in rows),
        "under_enable_cache": sum(row["stock"] for row in rows),
        "with_lora": sum(row["lora"] for row in rows),
        "stopped": sum(row["digest"] == "stopped" for row in rows),
        "presets_and_policies": len({row["preset"] for row in rows}),
        "cpu_minutes": round(sum(row["cpu_s"] for row in rows) / 60, 1),
        "made_again": sum("fresh" in row for row in rows),
        "other_in_a_fresh_process": [
            row["clip"] for row in rows if row.get("fresh", row["digest"]) != row["digest"]
        ],
    }  # fmt: skip
    if len(looks) < 2:
        return told
    numbers = np.array([number for number, _ in looks], float)
    first, last = looks[0][1], looks[-1][1]
    told |= {"warm_up_clips": warm_up, "looks": len(looks)}
    for name in ("rss_nbytes", "tensors", "modules", "objects"):
        values = np.array([look[name] for _, look in looks], float)
        slope = float(np.polyfit(numbers, values, 1)[0])
        told[name] = {
            "median": median(values.tolist()), "least": values.min(), "most": values.max(),
            "slope_per_100_clips": round(100 * slope, 1),
            "growth": round(float(slope * (numbers[-1] - numbers[0]) / np.median(values)), 4),
        }  # fmt: skip
    told |= {
        name: {"first": first[name], "last": last[name]}
        for name in ("handles", "threads", "named_threads", "files")
    }
    return told


def faults(told: dict[str, Any]) -> list[str]:
    """What does not hold."""
    found = [
        f"clip {n} is another one in a fresh process" for n in told["other_in_a_fresh_process"]
    ]
    for name, most in MOST_GROWTH.items():
        if told.get("looks", 0) >= LEAST_LOOKS and told[name]["growth"] > most:
            found.append(f"{name} grows by {100 * told[name]['growth']:.2f} %")
    for name in ("handles", "threads", "named_threads", "files"):
        if name in told and told[name]["last"] > told[name]["first"]:
            found.append(f"{name}: {told[name]['first']} became {told[name]['last']}")
    return found


@contextmanager
def own_folders() -> Iterator[Path]:
    """Has this process and its children keep what they write in folders of their own; gives that of
    temporary files."""
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix="soak-") as scratch:
        own, temporary = Path(scratch) / "own", Path(scratch) / "temporary"
        for folder in (own, temporary):
            folder.mkdir()
        os.environ |= {"HGC_VIDEO_HOME": str(own), "TMPDIR": str(temporary), "HF_HUB_OFFLINE": "1"}
        tempfile.tempdir = str(temporary)
        try:
            yield temporary
        finally:
            tempfile.tempdir = before


def main() -> None:
    """Reads the options, makes the clips, tells what is left; exit code 1 where something does not hold."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--warm-up", type=int, default=60, help="clips left out of the slope")
    parser.add_argument("--every", type=int, default=25, help="clips between those made again")
    parser.add_argument("--look", type=int, default=10, help="clips between looks at what is left")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=Path, default=Path("runs/soak.jsonl"), help="rows so far")
    parser.add_argument("--out", type=Path, help="JSON file of what is left")
    parser.add_argument("--clip", type=int, help="one clip alone")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", HGCVideoWarning)
    with own_folders() as temporary:
        if args.clip is not None:
            given = options_of(args.clip, args.seed)
            print(json.dumps({**given, "digest": Maker(temporary).digest(given)}))
            return
        rows, task = ResultsFile(args.rows), f"soak {args.seed}"
        campaign(args, temporary, rows, task)
        told = summary(rows.read(task), args.warm_up)
    print(json.dumps(told, indent=1))
    if args.out is not None:
        header = results_header("puppet", clips=told["clips"])
        write_results(args.out, header, seed=args.seed, **told)
    if found := faults(told):
        sys.exit("; ".join(found))


if __name__ == "__main__":
    main()
