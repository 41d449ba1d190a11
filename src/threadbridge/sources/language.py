"""The language of a text, when it is certain.

Rule: a wrong language is worse than none (people filter their timelines by it), so short or doubtful texts get None.
The model (5 MB, about 100 MB in memory) is loaded at the first text, not at import.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from threadbridge.domain.source import SourcePost

_MIN_LETTERS = 20
_MIN_PROBABILITY = 0.9
_LONGEST = 2000
_NOT_WORDS = re.compile(r"https?://\S+|www\.\S+|[@#＃]\w[\w.]*")


def of(post: SourcePost) -> str | None:
    """The language of a source post: what the source says, else what its text certainly is."""
    return post.language or detect(post.text)


def detect(text: str) -> str | None:
    """ISO 639-1 code of a text's language, or None. Addresses, mentions and hashtags do not count."""
    words = " ".join(_NOT_WORDS.sub(" ", text[:_LONGEST]).split())
    if sum(map(str.isalpha, words)) < _MIN_LETTERS:
        return None
    language, probability = _identifier().classify(words)
    return str(language) if probability >= _MIN_PROBABILITY and len(language) == 2 else None


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
