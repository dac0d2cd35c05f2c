"""Prompts: texts, or texts by the frame from which they hold, that the text encoder reads whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import PromptError


def check_prompt(prompt: object) -> None:
    texts = list(prompt.values()) if isinstance(prompt, Mapping) else [prompt]
    for text in texts:
        if not isinstance(text, str):
            raise PromptError(
                f"the prompt {text!r:.80} is no text; give one text, or texts by frame as "
                '{0: "...", 48: "..."}'
            )
        check_letters(text, "prompt")
    if not texts or not all(str(text).strip() for text in texts):
        raise PromptError("the prompt is empty; say what the clip shows")
    if isinstance(prompt, Mapping):
        frames = list(prompt)
        if not all(isinstance(f, int) and f >= 0 for f in frames) or 0 not in frames:
            raise PromptError(
                f'prompts by frame begin at frame 0, got {frames}; write {{0: "...", 48: "..."}}'
            )


def check_letters(text: str, name: str) -> None:
    """PromptError where a text holds half a character, which no tokenizer reads: a terminal gives one for
    a byte that is not UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise PromptError(
            f"{name}={text!r:.80} holds half a character, {text[error.start]!r}; write it in UTF-8"
        ) from error


def check_prompt_length(tokenizer: Any, prompt: str, name: str = "prompt") -> None:
    """PromptError where the text encoder would silently cut a plain prompt's end off."""
    limit = int(tokenizer.model_max_length)
    length = len(tokenizer(prompt).input_ids)
    if length > limit:
        raise PromptError(
            f"the {name} has {length - 2} tokens, the model reads {limit - 2}; make it shorter, "
            "or give prompt_syntax='compel' (--prompt-syntax compel), which reads it in parts"
        )
