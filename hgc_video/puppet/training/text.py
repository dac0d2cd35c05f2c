"""The tokenizer of the prompts' words and a small CLIP text encoder.

The encoder is first taught, apart from any picture, to say what a prompt names (the role that
caption pretraining has for CLIP), so that the denoiser finds colours bound to garments.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from ..prompts import mentioned_at_random, vocabulary, write_prompt
from ..spec import ATTRIBUTES, Spec, random_spec
from .progress import Stage

MAX_TOKENS = 40
WIDTH = 128
_START, _END, _UNKNOWN = "<|startoftext|>", "<|endoftext|>", "<|unknown|>"


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer; a word it does not know becomes one unknown token."""
    words = [_END, _START, _UNKNOWN, *vocabulary()]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token=_UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{_START} $A {_END}", special_tokens=[(_START, 1), (_END, 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=MAX_TOKENS, bos_token=_START, eos_token=_END,
        pad_token=_END, unk_token=_UNKNOWN,
    )  # fmt: skip


def make_text_encoder(num_words: int) -> CLIPTextModel:
    """A CLIP text model of three layers, width 128."""
    config = CLIPTextConfig(
        vocab_size=num_words, hidden_size=WIDTH, intermediate_size=256, num_hidden_layers=3,
        num_attention_heads=4, max_position_embeddings=MAX_TOKENS, projection_dim=WIDTH,
        bos_token_id=1, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    return CLIPTextModel(config)


def tokenize(tokenizer: PreTrainedTokenizerFast, prompts: list[str]) -> Tensor:
    """Prompts to token ids (b n), padded and cut like the pipeline does."""
    batch = tokenizer(
        prompts, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
    )
    return torch.as_tensor(batch.input_ids)


class _Reader(nn.Module):
    """Reads the attributes off the encoder's tokens: one head per attribute, "not said" is last.

    The padding after the prompt sees all of it; its positions take turns at the attributes, which
    gives the cross-attention one place to look for each.
    """

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({k: nn.Linear(WIDTH, len(v) + 1) for k, v in ATTRIBUTES.items()})

    def forward(self, states: Tensor, ids: Tensor, labels: dict[str, Tensor]) -> Tensor:
        ended = (ids == 0).cumsum(1) > 0
        turn = torch.arange(ids.shape[1]) % len(self.heads)
        losses = []
        for k, (name, head) in enumerate(self.heads.items()):
            place = ended & (turn == k)
            logits = head(states[place])
            losses.append(functional.cross_entropy(logits, labels[name][place.nonzero()[:, 0]]))
        return torch.stack(losses).mean()


def _labels(specs: list[Spec], mentioned: list[set[str]]) -> dict[str, Tensor]:
    return {
        name: torch.tensor(
            [
                s.labels()[name] if name in m else len(values)
                for s, m in zip(specs, mentioned, strict=True)
            ]
        )
        for name, values in ATTRIBUTES.items()
    }


def train_text(
    folder: Path, *, steps: int, seed: int, until: float
) -> tuple[PreTrainedTokenizerFast, CLIPTextModel]:
    """Teaches the text encoder what prompts name; returns tokenizer and encoder."""
    torch.manual_seed(seed)
    tokenizer = make_tokenizer()
    encoder, reader = make_text_encoder(len(tokenizer)), _Reader()
    stage = Stage(
        "text", folder, {"encoder": encoder, "reader": reader}, steps=steps, rate=1e-3, ema=0.99
    )

    def loss_of(step: int) -> Tensor:
        rng = np.random.default_rng([seed, step])
        specs = [random_spec(rng) for _ in range(64)]
        mentioned = [mentioned_at_random(rng) for _ in specs]
        prompts = [write_prompt(s, rng, m) for s, m in zip(specs, mentioned, strict=True)]
        ids = tokenize(tokenizer, prompts)
        states = encoder(ids).last_hidden_state
        loss: Tensor = reader(states, ids, _labels(specs, mentioned))
        return loss

    stage.run(loss_of, until=until)
    stage.use_ema()
    return tokenizer, encoder.eval()
