#!/usr/bin/env python
"""Runs the notebooks and writes them with their outputs: NAME.ipynb beside each NAME.py (jupytext's percent
format). Needs the extra `notebooks`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import jupytext
from nbclient import NotebookClient

from hgc_video.evaluate.results_header import results_header
from hgc_video.files import write_text

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "examples" / "notebooks"


def run(path: Path, folder: Path, minutes: float) -> Path:
    """Runs the notebook of a .py file in the current folder; the .ipynb says in its metadata what was run."""
    notebook = jupytext.read(path, fmt="py:percent")
    client = NotebookClient(
        notebook, timeout=60 * minutes, resources={"metadata": {"path": Path.cwd()}}
    )
    client.execute()
    for number, cell in enumerate(notebook.cells, 1):
        cell["id"] = f"{path.stem}-{number}"  # the same in every run
        cell["metadata"].pop("execution", None)  # times of day
    notebook.metadata["hgc_video"] = results_header("puppet")
    return write_text(folder / f"{path.stem}.ipynb", jupytext.writes(notebook, fmt="ipynb"))


def main() -> None:
    """Runs those that are asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="default: all", metavar="NAME")
    parser.add_argument("--out", type=Path, default=NOTEBOOKS, help="folder for the .ipynb files")
    parser.add_argument("--minutes", type=float, default=60, help="that a cell may take")
    parser.add_argument("--small", action="store_true", help="few steps and frames, to try it")
    args = parser.parse_args()
    if args.small:
        os.environ["HGC_SMALL"] = "1"
    for name in args.names or sorted(path.stem for path in NOTEBOOKS.glob("*.py")):
        print(run(NOTEBOOKS / f"{name}.py", args.out, args.minutes), flush=True)


if __name__ == "__main__":
    main()
