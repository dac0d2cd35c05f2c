"""Prompts, the words they are made of, and the tokenizer."""

from __future__ import annotations

import numpy as np

from hgc_video.puppet.prompts import SYNONYMS, plain_prompt, vocabulary, write_prompt
from hgc_video.puppet.spec import NO_HAT, Spec, random_spec
from hgc_video.puppet.training.text import MAX_TOKENS, make_tokenizer, tokenize


def words_of(text: str) -> list[str]:
    return text.replace(",", " , ").split()


def test_prompts_name_what_they_mention_in_known_words():
    rng = np.random.default_rng(0)
    known, unknown = set(vocabulary()), set()
    for _ in range(300):
        spec = random_spec(rng)
        text = write_prompt(spec, rng)
        unknown |= set(words_of(text)) - known
        for name in ("shirt", "trousers", "scene"):
            value = getattr(spec, name)
            assert any(word in text for word in SYNONYMS[value]), (value, text)
        hats = SYNONYMS.get(spec.hat, ("bareheaded", "no ", "without "))
        assert any(word in text for word in hats), (spec.hat, text)
        assert len(words_of(text)) + 2 <= MAX_TOKENS
    assert unknown <= {
        "photo", "video", "beautiful", "best", "quality", "4k", "cinematic", "detailed", "nice", "very",
    }  # fmt: skip


def test_every_name_and_synonym_is_one_known_token():
    """But for phrases of several words, each of which is."""
    tokenizer = make_tokenizer()
    for group in SYNONYMS.values():
        for phrase in group:
            ids = tokenizer(phrase, add_special_tokens=False).input_ids
            assert len(ids) == len(phrase.split())
            assert tokenizer.unk_token_id not in ids


def test_word_order_is_free():
    rng = np.random.default_rng(1)
    spec = Spec("red", "blue", NO_HAT, "snow")
    assert len({write_prompt(spec, rng) for _ in range(50)}) > 45


def test_an_unmentioned_attribute_is_not_named():
    rng = np.random.default_rng(2)
    spec = Spec("red", "blue", "green", "snow")
    for _ in range(50):
        text = f" {write_prompt(spec, rng, {'shirt'})} "
        assert not any(f" {w} " in text for k in ("blue", "green", "snow") for w in SYNONYMS[k])


def test_unknown_words_become_one_token_each_and_case_does_not_matter():
    tokenizer = make_tokenizer()
    ids = tokenizer("A zorky DANCER").input_ids
    assert len(ids) == 5
    assert ids[2] == tokenizer.unk_token_id
    assert ids[3] == tokenizer("dancer").input_ids[1]


def test_tokens_are_padded_and_cut_like_the_pipeline_does():
    tokenizer = make_tokenizer()
    batch = tokenize(tokenizer, ["a dancer", "red " * 100])
    assert batch.shape == (2, MAX_TOKENS)
    assert (batch[0, 4:] == tokenizer.pad_token_id).all()


def test_the_plain_prompt_reads_like_a_users():
    text = plain_prompt(Spec("red", "blue", NO_HAT, "beach"))
    assert text == "a dancer in a red shirt and blue trousers with no hat on a beach"
