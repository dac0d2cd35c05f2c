#!/usr/bin/env python
"""Rewrites what the pages say of measurements, from the files in configs/results: README.md and the pages of
results, of the embedded model and of the policies. Only what stands between marks is written."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from hgc_video.evaluate.table import Row, rows
from hgc_video.files import write_text
from hgc_video.plan.presets import SEARCHED
from hgc_video.puppet.evaluation_table import table as puppet_table

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "configs" / "results"
PAGES = (
    ROOT / "README.md", RESULTS / "README.md", ROOT / "hgc_video" / "puppet" / "README.md",
    ROOT / "hgc_video" / "plan" / "policies" / "README.md",
)  # fmt: skip
_FEWER, _SOLVER = "fewer-steps:", "dpm++:"
_NEAR = 0.1  # how much the savings of a row and of the baseline beside it may differ
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
_SCHEDULERS = {
    "DPMSolverMultistepScheduler": "DPM++ 2M", "EulerAncestralDiscreteScheduler": "Euler ancestral",
    "LCMScheduler": "LCM",
}  # fmt: skip
_MODELS = {"sd15": "SD1.5", "sd21": "SD2.1 at 768x768"}
Told = dict[str, Any]  # a file of results


def table(found: Iterable[Row]) -> str:
    """The rows in few columns, ours in bold."""
    lines = [
        "| method | MACs saved | PSNR to `off`, dB | to converged, dB | colours | IoU | flicker | time |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in found:
        means = [row.means[key] for key in ("converged_db", "colours", "iou", "flicker")]
        cells = [
            "" if m is None else f"{m:.{d}f}" for m, d in zip(means, (1, 3, 3, 3), strict=True)
        ]
        lines.append(
            f"| {_name(row.method)} | {100 * row.saved:.1f} % | {_likeness(row)} | {' | '.join(cells)} "
            f"| {row.time_ratio:.2f} |"
        )
    return "\n".join(lines)


def _likeness(row: Row) -> str:
    if row.psnr_db > 99:
        return "identical"
    return f"{row.psnr_db:.1f} ± {row.psnr_spread_db:.1f}"


def _name(method: str) -> str:
    if method in SEARCHED:
        return f"**`{method}`**"
    kind = Path(method.rpartition("=")[2]).stem.partition("-")[0]
    if _is_whole_step(method):
        told = {"ddim": "predictions held", "multistep": "predictions extrapolated"}
        return f"{told[kind]} at searched timesteps"
    if method.startswith("dpm++:order="):
        told = {"ddim": "DDIM", "multistep": "DPM++ 2M"}
        return f"{told[kind]} at searched timesteps"
    name, _, fields = method.partition(":")
    # Calibrations are puppet's own.
    shown = [f for f in fields.split(",") if f and not f.startswith("calibration=")]
    return f"`{':'.join([name, *([','.join(shown)] if shown else [])])}`"


def _is_whole_step(method: str) -> bool:
    """Our own search with whole steps alone, no reuse inside the network."""
    return method.startswith("searched:file=")


def _is_solver(method: str) -> bool:
    return method.startswith((_FEWER, _SOLVER))


def _is_published(method: str) -> bool:
    ours = method == "off" or method in SEARCHED
    ours = ours or method.startswith(("hgc", "lossless", "fitted"))
    return not (ours or _is_solver(method) or _is_whole_step(method))


def margins(found: Sequence[Row]) -> str:
    """By how much the presets lie above the best of each kind at the same saving, interpolated between that
    kind's settings."""
    kinds: tuple[tuple[str, Callable[[str], bool]], ...] = (
        ("the best published cache", _is_published), ("the best solver", _is_solver),
        ("our own search with whole steps alone", _is_whole_step),
    )  # fmt: skip
    lines = []
    for preset in (row for row in found if row.method in ("balanced", "fast", "turbo")):
        told = []
        for name, belongs in kinds:
            told.append(f"{name}: {_gap(preset, [row for row in found if belongs(row.method)])}")
        lines.append(
            f"- `{preset.method}` ({100 * preset.saved:.1f} % saved) against {'; '.join(told)}"
        )
    return "\n".join(lines)


def _gap(preset: Row, rivals: Sequence[Row]) -> str:
    best = _at(rivals, preset.saved)
    if best is not None:
        return f"{preset.psnr_db - best:+.1f} dB"
    more = [row for row in rivals if row.saved >= preset.saved]
    if not more:
        return "none saves as much"
    least = min(more, key=lambda row: (round(row.saved, 3), -row.psnr_db))
    return f"{preset.psnr_db - least.psnr_db:+.1f} dB (at {100 * least.saved:.1f} %, its least)"


def _at(found: Sequence[Row], saved: float) -> float | None:
    """The best PSNR at a saving: of every pair of settings around it, on the line between them."""
    best: float | None = None
    for low in (row for row in found if row.saved <= saved):
        for high in (row for row in found if row.saved >= saved):
            span = high.saved - low.saved
            share = (saved - low.saved) / span if span else 0.0
            value = (1 - share) * low.psnr_db + share * high.psnr_db
            best = value if best is None else max(best, value)
    return best


_SAVINGS, _SLACK = (0.45, 0.60, 0.75, 0.85), 0.03
_OURS = "presets"


def best_settings(found: Sequence[Row]) -> str:
    """Of every method the setting with the highest PSNR at each saving, give or take three points."""
    lines = [
        f"| method, at its best setting | {' | '.join(f'{100 * s:.0f} %' for s in _SAVINGS)} |",
        "|---" * (1 + len(_SAVINGS)) + "|",
    ]
    kinds = {_kind(row.method): None for row in found if row.saved > 0}
    for kind in sorted(kinds, key=lambda kind: (kind != _OURS, kind)):
        own = [row for row in found if row.saved > 0 and _kind(row.method) == kind]
        cells = [_best_cell(own, saving) for saving in _SAVINGS]
        if any(cells):
            name = f"**{kind}**" if kind == _OURS else kind
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _kind(method: str) -> str:
    """The method without its settings; solvers are one with their searched timesteps."""
    if method in SEARCHED:
        return _OURS
    if _is_whole_step(method) or method.startswith("dpm++:order=1"):
        return _name(method)
    if method.startswith(_SOLVER):
        return "DPM++ 2M"
    return f"`{method.partition(':')[0]}`"


def _best_cell(own: Sequence[Row], saving: float) -> str:
    enough = [row for row in own if row.saved >= saving - _SLACK]
    if not enough:
        return ""
    best = max(enough, key=lambda row: row.psnr_db)
    flicker = best.means["flicker"]
    told = f"{best.psnr_db:.1f} dB"
    if best.saved > saving + _SLACK:
        told += f" ({100 * best.saved:.0f} %)"
    return told + (
        f", flicker {flicker:.2f}" if flicker is not None and round(flicker, 2) > 1.05 else ""
    )


def settings_table(several: Iterable[Told]) -> str:
    """The rows of several comparisons, each with the better of its equal-cost baselines beside it."""
    lines = [
        "| steps, scheduler | method | MACs saved | PSNR to `off`, dB | fewer steps: saved, dB | flicker |",
        "|---|---|---|---|---|---|",
    ]
    for told in several:
        found = rows(told["figures"])
        plain = [row for row in found if _is_solver(row.method)]
        for row in found:
            if row.method != "off" and row not in plain:
                lines.append(
                    f"| {_setting(told)} | {_name(row.method)} | {100 * row.saved:.1f} % "
                    f"| {_likeness(row)} | {_nearest(plain, row)} | {row.means['flicker']:.2f} |"
                )
    return "\n".join(lines)


def _setting(told: Told) -> str:
    scheduler = told["scheduler"]
    return ", ".join(
        [str(told["num_inference_steps"]), *([_SCHEDULERS[scheduler]] if scheduler else [])]
    )


def _nearest(plain: Iterable[Row], row: Row) -> str:
    """The baseline that saves most nearly as much, the better of two that do."""
    near = min(plain, key=lambda p: (round(abs(p.saved - row.saved), 3), -p.psnr_db), default=None)
    if near is None or abs(near.saved - row.saved) > _NEAR:
        return ""
    return f"{100 * near.saved:.0f} %, {near.psnr_db:.1f}"


def asked_table(told: Told) -> str:
    """What was asked of `guard` and what came out, and the fixed presets, by setting: means over clips."""
    lines = [
        "| scheduler, steps | method | asked, dB | PSNR to `off`, dB | MACs saved | flicker |",
        "|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in told["figures"]:
        groups.setdefault((row["setting"], row["method"]), []).append(row)
    for (setting, method), group in groups.items():
        saved, psnr, change = (
            sum(row[name] for row in group) / len(group)
            for name in ("macs_saved", "psnr_db", "flicker")
        )
        asked = group[0]["asked_db"]
        name, _, steps = setting.rpartition("-")
        lines.append(
            f"| {name}, {steps} | {_name(method)} | {'' if asked is None else f'{asked:g}'} | "
            f"{'identical' if psnr > 99 else f'{psnr:.1f}'} | {100 * saved:.1f} % | {change:.2f} |"
        )
    return "\n".join(lines) + f"\n\n{means_over(told)}"


def caption(several: Sequence[Told], found: Iterable[Row], steps: str = "") -> str:
    """What was run, how often, when and on what."""
    runs = sorted({row.runs for row in found})
    many = f"{runs[0]} to {runs[-1]}" if len(runs) > 1 else f"{runs[0]}"
    first = several[0]
    clips, seeds = first["header"]["clips"], first["header"]["seeds"]
    return (
        f"{clips} clips of {first['num_frames']} frames, {seeds} noise{'s' * (seeds > 1)}{steps}, "
        f"{first['header']['model']}; means over {many} runs a row, with the spread of the PSNR; "
        f"{measured_on(*several)}."
    )


def means_over(told: Told) -> str:
    """What a table's means are of."""
    clips = told["header"]["clips"]
    return f"Means over {clips} clips of {told['num_frames']} frames; {measured_on(told)}."


def measured_on(*several: Told) -> str:
    """Dates, machine and model of files of results."""
    headers = [told["header"] for told in several]
    dates = " and ".join(sorted({header["date"] for header in headers}))
    machine, threads = headers[0]["machine"], headers[0]["threads"]
    cpu = f"{machine['cores']} cores of an {machine['cpu']}" if machine else "a CPU"
    told = f"{dates}, {cpu}, {threads} thread{'s' * (threads > 1)} a process"
    names = {header["model_hash"] for header in headers} - {None}
    return told + "".join(f", weights `{name}`" for name in sorted(names))


def reconstruction(told: Told) -> str:
    """The VAE's figures in a sentence."""
    return (
        f"The VAE alone, on {told['frames']} held-out frames: {told['psnr_db']:.1f} dB "
        f"({told['psnr_min_db']:.1f} to {told['psnr_max_db']:.1f}), gradient energy "
        f"{told['gradient_energy']:.3f} of the truth's, 16 frames decoded in "
        f"{told['decode_16_frames_s']:.2f} s of processor time."
    )


def depth(told: Told) -> str:
    """The depth estimator's figures in a sentence."""
    return (
        f"The depth estimator, on {told['header']['clips']} held-out clips: off by {told['error']:.3f} of "
        f"the range, by {told['error_of_the_dancer']:.3f} on the dancer, whose arms and legs it blurs; the "
        f"mean depth is off by {told['error_of_the_mean']:.3f}."
    )


def fidelity(told: Told) -> str:
    """The embedded model's figures against their aims."""
    figures = told["evaluations"][told["header"]["model"]]
    options, true = figures["options"], figures["pose"]["of_true_clips"]
    return (
        f"{puppet_table({'puppet': figures})}\n\n"
        f"{options['clips']} held-out clips of {options['num_frames']} frames, half pose, half depth, "
        f"{options['num_inference_steps']} steps; the last three rows on {options['extras']} clips. Of true "
        f"clips the judge finds an IoU of {true['silhouette_iou']:.2f} and a flicker of "
        f"{true['background_flicker']:.1f}; {measured_on(told)}."
    )


def published(told: Told) -> str:
    """Published MACs beside those of the plan."""
    lines = ["| model, steps, counting | policy | published | `plan` |", "|---|---|---|---|"]
    before = ""
    for row in told["rows"]:
        nets = " + ControlNet" * bool(row["num_controlnets"])
        setting = f"{_MODELS[row['model']]}{nets}, {row['num_inference_steps']}, without attention products"
        shown = "" if setting == before else setting
        before = setting
        lines.append(
            f"| {shown} | `{row['policy']}` | {row['published_tmacs']:.2f} T | {row['macs'] / 1e12:.2f} T |"
        )
    return "\n".join(lines)


def published_video(told: Told) -> str:
    """MACs of a step with a ControlNet, and what DeepCache saves of it."""
    full, *others = told["video"]
    step = full["macs"] / told["video_num_inference_steps"] / 1e12
    saved = ", ".join(f"`{row['policy']}` saves {100 * row['macs_saved']:.1f} %" for row in others)
    return (
        "For AnimateDiff with a ControlNet, 16 frames of 512x512, "
        f"{told['video_num_inference_steps']} steps, every product counted, a step costs "
        f"{step:.2f} T; {saved}."
    )


def partial_steps(told: Told) -> str:
    """What the calibration predicts that partial steps add."""
    kinds = ("whole steps", "partial steps", "both")
    lines = [
        "| MACs | between key steps: reused whole | last up layer computed | either | gain |",
        "|---|---|---|---|---|",
    ]
    for row in told["predicted_db"]:
        shown = ["" if row[kind] is None else f"{row[kind]:.1f} dB" for kind in kinds]
        gain = row["both"] - row["whole steps"]
        lines.append(f"| {100 * row['budget']:.0f} % | {' | '.join(shown)} | {gain:+.1f} dB |")
    price = 100 * told["prices"]["1"] / told["prices"]["F"]
    return (
        "\n".join(lines)
        + f"\n\nA step that computes the last up layer costs {price:.0f} % of a key step; "
        + f"{measured_on(told)}."
    )


def low_resolution(told: Told) -> str:
    """What early steps at half the size save and cost."""
    lines = [
        "| early steps at half the size | MACs saved, about | PSNR to `off`, dB |",
        "|---|---|---|",
    ]
    for row in told["rows"]:
        lines.append(
            f"| {row['low_steps']} of {told['num_inference_steps']} | {100 * row['macs_saved']:.0f} % "
            f"| {row['psnr_db']:.1f} |"
        )
    return "\n".join(lines) + f"\n\n{means_over(told)}"


def engine(told: Told) -> str:
    """What the clock shows of what the MACs promise."""
    lines = [
        "| method | MACs, uncached over cached | time, uncached over cached | range | share |",
        "|---|---|---|---|---|",
    ]
    for row in told["rows"]:
        macs, seconds = row["macs_ratio"], row["time_ratio"]
        low, high = row["time_ratio_range"]
        lines.append(
            f"| `{row['method']}` | {macs:.2f} | {seconds:.2f} | {low:.2f} to {high:.2f} "
            f"| {seconds / macs:.2f} |"
        )
    pairs = told["header"]["seeds"]
    return (
        "\n".join(lines)
        + f"\n\n{told['num_frames']} frames, {told['num_inference_steps']} steps, medians of {pairs} pairs; "
        + f"{measured_on(told)}."
    )


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
    settings = [read(name) for name in _SETTINGS]
    others = [row for told in settings for row in rows(told["figures"])]
    measured, steps = (main, *others_of), f", {main['num_inference_steps']} steps"
    made = {
        "presets": f"{table(few)}\n\n{caption(measured, few, steps)}",
        "margins": margins(found),
        "best settings": best_settings(found),
        "all methods": f"{table(found)}\n\n{caption(measured, found, steps)}",
        "other settings": f"{settings_table(settings)}\n\n{caption(settings, others)}",
    }
    made["published figures"], made["published video"] = if_measured(
        "published", published, published_video
    )
    for name, file, write in (
        ("engine", "engine", engine), ("partial steps", "partial-steps", partial_steps),
        ("low resolution", "low-resolution", low_resolution), ("asked quality", "guard", asked_table),
        ("fidelity", "puppet", fidelity), ("reconstruction", "puppet-vae", reconstruction),
        ("depth estimator", "puppet-depth", depth),
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
