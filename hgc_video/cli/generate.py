"""`hgc-video generate`: a control clip and a prompt in, a clip and its report out.

The options are those of `GenerateOptions`; here is only what the command line says in another form.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import InputError
from ..files import check_distinct, numbered, user_path
from ..options import CONTROL_KINDS, GenerateOptions
from ..options.panels import panel_of
from ..plain_data import is_whole
from .model_parts import parts_of
from .option_list import PATH, TEXT, option, options_of, with_parameters
from .shell import app, errors_in_one_line, quiet_libraries, say

if TYPE_CHECKING:
    from ..clip import Clip

_CLIPS = {
    "pose": "short for --control pose=FILE: a clip of OpenPose skeletons",
    "depth": "short for --control depth=FILE: a depth clip, near is bright",
    "canny": "short for --control canny=FILE", "softedge": "short for --control softedge=FILE",
    "lineart": "short for --control lineart=FILE",
}  # fmt: skip
# What the command line gives as text, and generate() as numbers, mappings or paths.
_TEXTS = {
    "prompt": (str, ""), "image": PATH, "video": PATH, "conditioning_scale": (str, "1"), "motion": TEXT,
    "seed": (str, "0"), "extract": (bool, False), "fidelity": (bool, False), "memory": TEXT,
    "out": (Path, ...), "dtype": TEXT, "calibration_dir": PATH, "audio": PATH, "work": PATH,
    "scenes_of": PATH, "base": TEXT, "base_config": TEXT, "motion_adapter": TEXT, "vae": TEXT,
    "ip_adapter_model": TEXT, "controlnet": (list[str] | None, None), "lora": (list[str] | None, None),
    "ip_adapter": TEXT,
}  # fmt: skip


def _parameters() -> list[Any]:
    made = options_of(
        GenerateOptions, _TEXTS, without=("control_video", "control"), panel_of=panel_of
    )
    made += [option(kind, Path | None, None, _CLIPS[kind], "Control") for kind in CONTROL_KINDS]
    made += [
        option(
            "control", list[str] | None, None, "a control clip as KIND=FILE; repeat it for several",
            "Control",
        ),
        option(
            "prompt_at", list[str] | None, None, "another prompt from a frame on, as '48=a dancer in the "
            "snow'; prompts between these frames are interpolated; repeat it", "What is made",
        ),
        option("no_audio", bool, False, "make a clip without sound", "Sound and file"),
        option(
            "extract_with", list[str] | None, None, "extract a control with a preprocessor and its "
            "parameters, as pose:hands=true (hgc-video extract --list); repeat it", "Control",
        ),
        option(
            "fidelity_with", list[str] | None, None, "as --fidelity, with a preprocessor and its parameters; "
            "repeat it", "Control",
        ),
        option(
            "report", Path | None, None, "JSON file for options, schedule and cost of the run",
            "What is made",
        ),
        option("quiet", bool, False, "print warnings and errors only"),
    ]  # fmt: skip
    needed = [p.replace(default=p.empty) if p.default is ... else p for p in made]
    return sorted(needed, key=lambda p: p.default is not p.empty)


def generate(context: typer.Context, **given: Any) -> None:
    """Makes a clip from a control clip and a prompt.

    Example:  hgc-video generate --pose examples/dance_pose.mp4
    --prompt "a dancer in a red shirt and blue trousers on a beach" --out clip.mp4

    From a raw video:  hgc-video generate --pose dancer.mp4 --extract --prompt ... --out clip.mp4

    From a first frame:  hgc-video generate --model svd --image first.png --depth depth.mp4 --out clip.mp4
    """
    quiet, report, out = given.pop("quiet"), given.pop("report"), given["out"]
    with errors_in_one_line(context):
        clips = {kind: clip for kind in CONTROL_KINDS if (clip := given.pop(kind)) is not None}
        given["control"] = _control_clips(clips, given["control"] or [], given["video"])
        given["prompt"] = _prompts(given["prompt"], given.pop("prompt_at") or [])
        given["conditioning_scale"] = _scales(given["conditioning_scale"])
        given["seed"] = _seed(given["seed"])
        for name in ("extract", "fidelity"):
            given[name] = _named(name, given[name], given.pop(f"{name}_with") or [])
        given |= parts_of(given)
        if given["motion"] is not None:
            given["motion"] = _numbers("--motion", given["motion"], "motion_bucket_id=60")
        given["audio"] = _audio(given["audio"], given.pop("no_audio"))
        inputs = {name: given[name] for name in ("image", "video")}
        _check_report(report, out, given["control"], inputs)
        quiet_libraries()
        from ..pipeline import generate as make

        made: Any = make(progress=not quiet, **given)
        several = made if isinstance(made, list) else [made]
        for number, clip in enumerate(several, 1):
            which = number if len(several) > 1 else None
            reported = None if report is None else numbered(report, which)
            tell(clip, numbered(user_path(out), which), reported, quiet=quiet)


def tell(clip: Clip, out: Path | None, report: Path | None, *, quiet: bool) -> None:
    """Saves the report of a clip, and prints it and where the clip lies, unless `quiet`."""
    written = [] if out is None else [f"clip      {user_path(out)}"]
    if report is not None:
        written.append(f"report    {clip.report.save(report)}")
    if not quiet:
        say("\n".join([clip.report.summary(), *written]))


app.command(rich_help_panel="Clips")(with_parameters(generate, _parameters()))


def _control_clips(clips: dict[str, Path], given: list[str], video: Path | None) -> dict[str, Path]:
    """The control clips by kind, of --control and its short forms."""
    for text in given:
        kind, equals, file = text.partition("=")
        if not equals or not file:
            raise InputError(f'--control "{text}" is not possible; write KIND=FILE, as pose=a.mp4')
        if kind.strip() in clips:
            raise InputError(f"a {kind.strip()} clip is given twice; leave one out")
        clips[kind.strip()] = Path(file)
    if not clips and video is None:
        raise InputError(
            "give a control clip with --pose FILE, --depth FILE or --control KIND=FILE, or a clip to "
            "restyle with --video FILE; none was given"
        )
    return clips


def _prompts(prompt: str, later: list[str]) -> str | dict[int, str]:
    """The prompt, or the prompts by the frames from which they hold."""
    told = {0: prompt}
    for text in later:
        frame, equals, words = text.partition("=")
        if not equals or not is_whole(frame.strip()) or not words.strip():
            raise InputError(
                f'--prompt-at "{text}" is not possible; write FRAME=PROMPT, as "48=a dancer"'
            )
        if int(frame) == 0:
            raise InputError(
                f'--prompt-at "{text}" is for a later frame; give the first with --prompt'
            )
        if int(frame) in told:
            raise InputError(f"--prompt-at is given twice for frame {int(frame)}; leave one out")
        told[int(frame)] = words.strip()
    return told if len(told) > 1 else prompt


def _audio(file: Path | None, no_audio: bool) -> Path | bool:
    """Where the sound comes from: a file, the control clip (True) or nowhere."""
    if file is not None and no_audio:
        raise InputError("--audio names a file and --no-audio wants none; leave one out")
    return file if file is not None else not no_audio


def _named(option: str, every: bool, named: list[str]) -> bool | str:
    """All controls by their defaults, or those that are named."""
    if every and named:
        raise InputError(f"--{option} and --{option}-with are both given; leave one out")
    return "+".join(named) or every


def _seed(told: str) -> int | list[int] | None:
    """The seed, None for one to be drawn; or several, a clip for each."""
    if told.strip().lower() == "random":
        return None
    try:
        seeds = [int(one) for one in told.split(",")]
    except ValueError:
        raise InputError(
            f'--seed "{told}" is not possible; give a whole number, several as 1,2,3, or random'
        ) from None
    return seeds if len(seeds) > 1 else seeds[0]


def _scales(told: str) -> float | dict[str, float]:
    """One scale, or scales by kind of control."""
    how = "a number, or pose=1,depth=0.5"
    if "=" in told:
        return _numbers("--conditioning-scale", told, how)
    return _numbers("--conditioning-scale", f"={told}", how)[""]


def _numbers(option: str, told: str, how: str) -> dict[str, float]:
    """Numbers by name, of a text such as "pose=1,depth=0.5"."""
    try:
        pairs = (part.partition("=") for part in told.split(","))
        return {name.strip(): _number(number) for name, _, number in pairs}
    except ValueError:
        shown = told.removeprefix("=")
        raise InputError(f'{option} "{shown}" is not possible; write {how}') from None


def _number(text: str) -> float:
    """A number as it is written, whole or not; ValueError where it is none."""
    return int(text) if is_whole(text.strip().lstrip("+-")) else float(text)


def _check_report(
    report: Path | None, out: Path, clips: dict[str, Path], others: dict[str, Path | None]
) -> None:
    """Refuses a report that could not be written or would overwrite; of `out` generate() sees to that."""
    if report is None:
        return
    from ..files import check_writable

    inputs = [("control clip", clip) for clip in clips.values()]
    check_distinct({"--report": report}, [*inputs, *others.items(), ("clip of --out", out)])
    check_writable(report)
