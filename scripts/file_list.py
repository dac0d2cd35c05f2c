"""Writes the list of files in hgc_video/README.md, each with the first sentence of its docstring."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WIDTH = 140
HEADING = "## Files\n\n"


def first_sentence(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    paragraph = " ".join(docstring.split("\n\n", 1)[0].split())
    return paragraph.split(". ", 1)[0].rstrip(".")


def cut(line: str) -> str:
    """A line of at most `WIDTH` characters, cut at a space."""
    if len(line) <= WIDTH:
        return line
    return line[: line.rindex(" ", 0, WIDTH - 3)] + " ..."


def room_lines(room: Path) -> list[str]:
    """The heading of one folder and a line for each of its modules."""
    name = f"{room.relative_to(ROOT)}/"
    said = first_sentence(room / "__init__.py") if room.name != "hgc_video" else ""
    lines = [cut(f"{name}  {said}".rstrip())]
    for path in sorted(room.glob("*.py")):
        if not path.name.startswith("__"):
            lines.append(cut(f"  {path.name:<22} {first_sentence(path)}"))
    return lines


def file_list() -> str:
    package = ROOT / "hgc_video"
    rooms = [package, *sorted(p.parent for p in package.rglob("*/__init__.py"))]
    return "\n".join(line for room in rooms for line in room_lines(room))


def main() -> None:
    page = ROOT / "hgc_video" / "README.md"
    text = page.read_text()
    head, found, _ = text.partition(HEADING)
    if not found:
        sys.exit(f"{page} has no heading '## Files'.")
    new = f"{head}{HEADING}```text\n{file_list()}\n```\n"
    if "--check" not in sys.argv[1:]:
        page.write_text(new)
    elif new != text:
        sys.exit(f"{page} is not what the files say: run python scripts/file_list.py")


if __name__ == "__main__":
    main()
