"""Follows which branches of this package the inputs of one parser reach, in a process of its own:
follow.py PARSER FOLDER SECONDS SEED. Nothing of the package is loaded before it is instrumented."""

from __future__ import annotations

import json
import random
import re
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SECONDS, MEMORY_MIB, LETTERS = (
    20,
    4096,
    16384,
)  # for one input; of the process; of one input at most
MOST_DEFECTS = 20  # that are told of one parser
_QUOTED = re.compile(r"""".*"|'.*'|\d+""", re.DOTALL)  # what two messages of one kind differ in


def follow(name: str, folder: Path, seconds: float, seed: int) -> None:
    """In a process of its own: tries inputs for some seconds, and writes what came of them to the folder."""
    import atheris

    with atheris.instrument_imports(include=["hgc_video"]):
        from scripts.bad_input.forks import ended
        from scripts.bad_input.parsers import HOSTILE, PARSERS
    parser, verdicts = PARSERS[name], Counter[str]()
    kinds: dict[str, dict[str, str]] = {}

    def one(text: bytes) -> None:
        with tempfile.TemporaryDirectory(prefix="fuzz-", dir=place) as own:
            verdict, why = ended(lambda: parser.read(text, Path(own)))
        verdicts[verdict] += 1
        named, place_of = why.partition(":")[0], why.rpartition(" at ")[2]
        kind = named + place_of if verdict == "traceback" else _QUOTED.sub("", why)
        if verdict not in ("right", "refused") and kind not in kinds and len(kinds) < MOST_DEFECTS:
            file = folder / f"defect-{len(kinds)}"
            file.write_bytes(text)
            kinds[kind] = {"verdict": verdict, "why": why, "input": file.name}
            print(json.dumps(kinds[kind]), flush=True)
        (folder / "verdicts.json").write_text(json.dumps([verdicts, list(kinds.values())]))

    def mutate(text: bytes, most: int, number: int) -> bytes:
        random_ = random.Random(number)
        changed = parser.mutated(text, random_) if random_.random() < 0.5 else text
        return changed[:most] if changed != text else bytes(atheris.Mutate(text, most))

    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="fuzz-good-") as place:
        _keep([*parser.good(Path(place)), *HOSTILE], folder / "inputs")
        options = [
            "fuzz", str(folder / "inputs"), f"-max_total_time={seconds:.0f}", f"-seed={seed}",
            f"-timeout={SECONDS}", f"-rss_limit_mb={MEMORY_MIB}", f"-max_len={LETTERS}", "-len_control=0",
            f"-artifact_prefix={folder}/stopped-",
        ]  # fmt: skip
        atheris.Setup(options, one, custom_mutator=mutate)
        atheris.Fuzz()


def _keep(texts: list[bytes], inputs: Path) -> None:
    inputs.mkdir(parents=True, exist_ok=True)
    for number, text in enumerate(texts):
        (inputs / f"first-{number}").write_bytes(text)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    follow(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
