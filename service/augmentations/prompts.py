"""Prompts from templates with the placeholders ``{classes}``, ``{article}`` and ``{caption}``, and no others."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass

from model_store.card import ModelCard, join_words
from service.kit.validation import UNPRINTABLE, Faults, join_list, unprintable

PLACEHOLDERS = ("article", "caption", "classes")
_SPACES = str.maketrans("\n\r\t", "   ")


@dataclass(frozen=True)
class Template:
    """A prompt template: pairs of text and placeholder or None. Prompts are cut at ``max_chars`` and ``max_words``."""

    parts: tuple[tuple[str, str | None], ...]
    max_chars: int
    max_words: int

    @property
    def uses(self) -> frozenset[str]:
        """The placeholders that the template uses."""
        return frozenset(name for _, name in self.parts if name is not None)

    def fill(self, classes: Sequence[str], caption: str | None) -> str:
        """The prompt for classes, given by their words in reading order, and the source item's caption (None: "").

        If it is too long, first the caption and then the whole prompt lose their last words.
        """
        words = join_words(classes)
        values = {"classes": words, "article": _article(words), "caption": ""}
        without = self._joined(values)
        if caption and "caption" in self.uses:
            times = sum(name == "caption" for _, name in self.parts)
            words_left = (self.max_words - len(without.split())) // times
            chars_left = (self.max_chars - len(without)) // times
            values["caption"] = shorten(caption.translate(_SPACES), max_words=words_left, max_chars=chars_left)
        return shorten(self._joined(values), max_words=self.max_words, max_chars=self.max_chars)

    def _joined(self, values: dict[str, str]) -> str:
        return "".join(text + (values[name] if name is not None else "") for text, name in self.parts)


def read_template(text: str, card: ModelCard, *, max_chars: int, member: str, faults: Faults) -> Template | None:
    """Parses ``text`` as a template for the model of ``card``; None if it is invalid, with a fault for ``member``.

    A word is at least one token, so a prompt has no more words than the card's limit of tokens.
    """
    max_words = card.limits.max_prompt_tokens
    if not text.strip():
        faults.add(member, text, "it is empty; describe the images, or leave it out")
        return None
    if len(text) > max_chars:
        faults.add(member, text, f"it has {len(text)} characters; the limit is {max_chars}, shorten it")
        return None
    if unprintable(text.translate(_SPACES)):
        faults.add(member, text, UNPRINTABLE)
        return None
    try:
        parsed = list(string.Formatter().parse(text.strip()))
    except ValueError as error:
        faults.add(
            member, text, f"its braces do not pair ({error}); write {{{{ and }}}} for braces that are meant as such"
        )
        return None
    known = join_list([f"{{{name}}}" for name in PLACEHOLDERS])
    for _, name, form, conversion in parsed:
        if name is not None and (name not in PLACEHOLDERS or form or conversion):
            written = "{" + name + (f"!{conversion}" if conversion else "") + (f":{form}" if form else "") + "}"
            faults.add(member, text, f"{written} is not a placeholder; the placeholders are {known}")
            return None
    template = Template(tuple((literal, name) for literal, name, _, _ in parsed), max_chars, max_words)
    words = len("".join(literal for literal, _ in template.parts).split())
    if words > max_words:
        faults.add(
            member, text, f"it has {words} words besides placeholders; {card.id} reads {max_words} tokens, shorten it"
        )
        return None
    return template


def class_phrases(card: ModelCard, indices: Sequence[int]) -> list[str]:
    """The words for classes in a prompt, in the order of their indices; only those of classes that a request may name.

    If there are none, the other classes are named: a mask may contain nothing but background.
    """
    entries = [card.classes[index] for index in sorted(indices)]
    return [entry.phrase for entry in entries if entry.queryable] or [entry.phrase for entry in entries]


def shorten(text: str, *, max_words: int, max_chars: int) -> str:
    """The text with single spaces, cut after the last word that fits both limits.

    A first word that is too long by itself is cut within.
    """
    words = text.split()[: max(0, max_words)]
    joined = " ".join(words)
    while len(joined) > max_chars:
        cut, _, last = joined.rpartition(" ")
        joined = cut if cut else last[: max(0, max_chars)]
    return joined


def _article(words: str) -> str:
    return "an" if words[:1].casefold() in tuple("aeiou") else "a"
