"""Damaged copies of good files: their bytes, their words, or the values that they hold."""

from __future__ import annotations

import random
from pathlib import Path

import yaml

from .mutate import mutated, mutated_data, mutated_text


def damaged_bytes(good: Path, folder: Path, random_: random.Random) -> tuple[str, Path]:
    """A copy of a file with mutated bytes."""
    how, data = mutated(good.read_bytes(), random_)
    path = folder / good.name
    path.write_bytes(data)
    return how, path


def damaged_yaml(good: Path, folder: Path, random_: random.Random) -> tuple[str, Path]:
    """A copy of a YAML file whose values, words or bytes are mutated."""
    path, kind = folder / good.name, random_.randrange(3)
    text = good.read_text()
    if kind == 0:
        how, data = mutated_data(yaml.safe_load(text), random_)
        path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    elif kind == 1:
        how, text = mutated_text(text, random_)
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
    else:
        return damaged_bytes(good, folder, random_)
    return how, path


def damaged_text(good: Path, folder: Path, random_: random.Random) -> tuple[str, Path]:
    """A text with changed words."""
    how, text = mutated_text(good.read_text(), random_)
    path = folder / good.name
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    return how, path
