"""What figures were measured on: a file of results, and what is said of it."""

from __future__ import annotations

from typing import Any

Told = dict[str, Any]  # a file of results


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
