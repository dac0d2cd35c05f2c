"""Prompts with weights, and prompts longer than the text encoder reads at once, by compel.

All texts of a run get one length: as many parts of the text encoder's length as the longest needs.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..errors import InputError, MissingExtraError, PromptError
from ..options import GenerateOptions
from .prompts import Encoder


class WeightedPrompts(Encoder):
    """Encodes all texts of a run together.

    Raises:
        MissingExtraError: compel is not installed.
        PromptError: a prompt cannot be read.
        InputError: clip_skip is given for SDXL, which always leaves the last layer out.
    """

    def __init__(self, pipe: Any, options: GenerateOptions, guided: bool) -> None:
        super().__init__(pipe, options, guided)
        self._negative = options.negative_prompt or ""
        self._texts = list(dict.fromkeys([*options.prompts, self._negative]))
        self._embeds, self._pooled = self._encode()

    def __call__(self, prompt: str) -> tuple[Tensor, Tensor | None]:
        at, none = self._texts.index(prompt), self._texts.index(self._negative)
        if self._pooled is not None:
            self.pooled = (self._pooled[at : at + 1], self._pooled[none : none + 1])
        embeds = self._embeds[at : at + 1]
        return embeds, self._embeds[none : none + 1] if self.guided else None

    def _encode(self) -> tuple[Tensor, Tensor | None]:
        """The embeddings (t n d) of all texts, and SDXL's pooled ones (t d)."""
        try:
            import compel
        except ImportError as error:
            raise MissingExtraError(
                "prompt_syntax=compel needs compel: pip install 'hgc-video[prompts]'"
            ) from error
        dtype = self.pipe.unet.dtype
        try:
            if hasattr(self.pipe, "text_encoder_2"):
                made = self._of_sdxl(compel)
                return made.embeds.to(dtype), made.pooled_embeds.to(dtype)
            kinds = compel.ReturnedEmbeddingsType
            kind = kinds.LAST_HIDDEN_STATES_NORMALIZED
            if self.options.clip_skip:
                kind = kinds.PENULTIMATE_HIDDEN_STATES_NORMALIZED
            encode = compel.Compel(
                tokenizer=self.pipe.tokenizer, text_encoder=self.pipe.text_encoder,
                truncate_long_prompts=False, returned_embeddings_type=kind,
                device=str(self.pipe.device),
            )  # fmt: skip
            return encode(self._texts).to(dtype), None
        except (ValueError, RuntimeError, SyntaxError) as error:
            if isinstance(error, InputError):
                raise
            told = (str(error).splitlines() or [type(error).__name__])[0]
            raise PromptError(
                f"compel cannot read the prompt: {told}; see its syntax, or give prompt_syntax=plain"
            ) from error

    def _of_sdxl(self, compel: Any) -> Any:
        if self.options.clip_skip:
            raise InputError(
                "clip_skip is not possible with compel for SDXL, which leaves one layer out by itself"
            )
        encode = compel.CompelForSDXL(self.pipe, device=str(self.pipe.device))
        return encode(self._texts)
