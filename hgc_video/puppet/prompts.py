"""Prompts for a spec, in free word order and with synonyms, and the words that they are made of."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from .spec import NO_HAT, Spec

SYNONYMS: dict[str, tuple[str, ...]] = {
    "red": ("red", "crimson", "scarlet"),
    "orange": ("orange", "tangerine"),
    "yellow": ("yellow", "golden"),
    "green": ("green", "emerald"),
    "blue": ("blue", "azure"),
    "purple": ("purple", "violet"),
    "white": ("white", "ivory"),
    "black": ("black", "ebony"),
    "shirt": ("shirt", "top", "sweater", "blouse", "jersey", "jacket", "tshirt"),
    "trousers": ("trousers", "pants", "jeans", "leggings"),
    "hat": ("hat", "cap", "beanie"),
    "beach": ("beach", "seaside", "shore", "coast", "sea"),
    "forest": ("forest", "woods", "woodland", "trees", "park"),
    "city": ("city", "street", "town", "downtown", "skyline"),
    "desert": ("desert", "dunes", "sahara"),
    "snow": ("snow", "mountains", "winter", "snowy mountain", "alps"),
    "stage": ("stage", "theatre", "studio", "club", "concert"),
    "person": ("dancer", "person", "woman", "man", "performer", "girl", "boy", "figure"),
    "doing": ("dancing", "walking", "moving", "performing", "standing", "running", "jumping"),
}
_GLUE = (
    "a",
    "an",
    "the",
    "in",
    "on",
    "at",
    "with",
    "wearing",
    "wears",
    "is",
    "of",
    "and",
    "his",
    "her",
    "their",
    "behind",
    "background",
    "before",
    "scene",
    "coloured",
    "colored",
    "that",
    "who",
    "dressed",
    ",",
    ".",
    "no",
    "without",
    "bareheaded",
)
_NOISE = (
    "photo",
    "video",
    "beautiful",
    "best",
    "quality",
    "4k",
    "cinematic",
    "detailed",
    "nice",
    "very",
)
_PREPOSITION = {"beach": "on", "stage": "on", "snow": "in"}


def vocabulary() -> list[str]:
    """Every word the tokenizer knows, sorted; others become the unknown token."""
    words = {w for group in SYNONYMS.values() for phrase in group for w in phrase.split()}
    return sorted(words | set(_GLUE))


def mentioned_at_random(rng: np.random.Generator) -> set[str]:
    """Which attributes a training prompt names: mostly all of them, sometimes none."""
    if rng.random() < 0.1:
        return set()
    return {name for name in ("shirt", "trousers", "hat", "scene") if rng.random() < 0.9}


def write_prompt(
    spec: Spec,
    rng: np.random.Generator,
    mentioned: Collection[str] = ("shirt", "trousers", "hat", "scene"),
) -> str:
    """A prompt that names the `mentioned` attributes of `spec`, in words and order of chance."""
    clothes = [
        _garment(spec, name, rng) for name in ("shirt", "trousers", "hat") if name in mentioned
    ]
    clothes = [str(c) for c in rng.permutation(clothes)] if clothes else []
    person = f"a {_pick('person', rng)}"
    if rng.random() < 0.4:
        person += f" {_pick('doing', rng)}"
    body = person
    if clothes:
        joint = rng.choice(["in", "wearing", "with", "dressed in"])
        body = f"{person} {joint} {_enumerate(clothes, rng)}"
    text = _with_scene(body, spec, rng) if "scene" in mentioned else body
    return _add_noise(text, rng) if rng.random() < 0.3 else text


def plain_prompt(spec: Spec) -> str:
    """The prompt a user would write; used wherever evaluation must be the same each time."""
    hat = "no hat" if spec.hat == NO_HAT else f"a {spec.hat} hat"
    where = f"{_PREPOSITION.get(spec.scene, 'in')} {_article(spec.scene)}"
    return f"a dancer in a {spec.shirt} shirt and {spec.trousers} trousers with {hat} {where}"


def _article(scene: str) -> str:
    return scene if scene == "snow" else f"a {scene}"


def _pick(key: str, rng: np.random.Generator) -> str:
    return str(rng.choice(SYNONYMS[key]))


def _garment(spec: Spec, name: str, rng: np.random.Generator) -> str:
    colour = getattr(spec, name)
    noun = _pick(name, rng)
    if colour == NO_HAT:
        return str(rng.choice([f"no {noun}", f"without a {noun}", "bareheaded"]))
    word = _pick(colour, rng)
    forms = [f"{word} {noun}", f"a {word} {noun}", f"{noun} in {word}", f"a {word} coloured {noun}"]
    forms += [f"a {noun} that is {word}", f"{word} {noun}"]
    return str(rng.choice(forms))


def _enumerate(parts: list[str], rng: np.random.Generator) -> str:
    if len(parts) == 1:
        return parts[0]
    comma = ", " if rng.random() < 0.6 else " and "
    return comma.join(parts[:-1]) + " and " + parts[-1]


def _with_scene(body: str, spec: Spec, rng: np.random.Generator) -> str:
    place = _pick(spec.scene, rng)
    word = str(rng.choice([_PREPOSITION.get(spec.scene, "in"), "at", "in", "on"]))
    forms = [f"{body} {word} a {place}", f"{body} {word} the {place}", f"{body} , {place}"]
    forms += [f"{word} the {place} , {body}", f"{place} , {body}", f"{body} , {place} background"]
    return str(rng.choice(forms))


def _add_noise(text: str, rng: np.random.Generator) -> str:
    words = text.split()
    for _ in range(int(rng.integers(1, 4))):
        words.insert(int(rng.integers(0, len(words) + 1)), str(rng.choice(_NOISE)))
    return " ".join(words)
