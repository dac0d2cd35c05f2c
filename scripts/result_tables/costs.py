"""What things cost: MACs that papers give, partial steps, lower resolution, seconds against MACs."""

from __future__ import annotations

from .measured import Told, means_over, measured_on

_MODELS = {"sd15": "SD1.5", "sd21": "SD2.1 at 768x768"}


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
