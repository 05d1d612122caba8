"""Surface features of messages: all that can be counted without understanding a word.

A message becomes one vector of counts, and counts of messages add up; what a view of a conversation is
compared by (logarithms of counts, and shares) is computed from the sum. This module knows text; it does
not know which side a message is on.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from music_ray.generate.audit.lexicon import PHRASES, WORDS, count_phrases, fold

WORD = re.compile(r"\w+(?:['\u2019]\w+)*")
"""A word: don't is one."""
_SENTENCE_END = re.compile(
    r"[.!?\u2026\u3002\uff01\uff1f]+[\"'\u201d\u2019)\]]*(?=\s|\Z)|(?<![.!?\u2026\u3002\uff01\uff1f\n])\n+(?=\s*\S)"
)
_NON_ASCII = re.compile(r"[^\x00-\x7f]")
_NGRAM = 3
_OTHERS = tuple(
    bytes(code for code in range(128) if not belongs(chr(code)))
    for belongs in (str.isalpha, str.isupper, str.isdigit)
)
"""ASCII without its letters, without its upper-case letters, without its digits."""

_PUNCTUATION = {
    "commas": ",",
    "full stops": ".",
    "exclamation marks": "!",
    "question marks": "?",
    "colons": ":",
    "semicolons": ";",
    "opening brackets": "(",
    "double quotes": '"',
}
_PATTERNS = {
    "dashes": re.compile(r"[\u2013\u2014]| - |--"),
    "ellipses": re.compile(r"\u2026|\.{3,}"),
    "bullets": re.compile(r"^[ \t]*[-*+\u2022][ \t]+\S", re.MULTILINE),
    "numbered items": re.compile(r"^[ \t]*\d{1,3}[.)][ \t]+\S", re.MULTILINE),
    "headings": re.compile(r"^#{1,6}[ \t]+\S", re.MULTILINE),
    "bold or italic": re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__|(?<![*\w])\*[^*\s][^*\n]*\*(?![*\w])"),
    "code fences": re.compile(r"^[ \t]*```", re.MULTILINE),
    "inline code": re.compile(r"(?<!`)`[^`\n]+`(?!`)"),
    "table rows": re.compile(r"^[ \t]*\|.*\|[ \t]*$", re.MULTILINE),
    "links": re.compile(r"\]\(|https?://|www\."),
}
_SCRIPTS = (
    "LATIN", "CYRILLIC", "GREEK", "ARABIC", "HEBREW", "DEVANAGARI", "THAI", "CJK", "HIRAGANA", "KATAKANA",
    "HANGUL", "OTHER",
)  # fmt: skip
"""Scripts of letters beyond ASCII; LATIN is letters such as é."""

_LENGTHS = ("messages", "characters", "words", "sentences", "paragraphs")
_BASES = ("letters", "upper-case letters", "distinct words", "3-grams", "repeated 3-grams", "hollow messages")
COUNTS: tuple[str, ...] = (
    *_LENGTHS,
    *_BASES,
    *_PUNCTUATION,
    *_PATTERNS,
    "digits",
    *PHRASES,
    *WORDS,
    *(f"{script} letters" for script in _SCRIPTS),
)
"""What a message's vector holds, in order."""
_INDEX = {name: index for index, name in enumerate(COUNTS)}

_NOT_COMPARED = {*_BASES, "common English words", *(f"{script} letters" for script in _SCRIPTS)}
_AS_COUNTS = tuple(name for name in COUNTS if name not in _NOT_COMPARED)
_SHARES: dict[str, tuple[str, str]] = {
    "words per sentence": ("words", "sentences"),
    "characters per word": ("characters", "words"),
    "share of upper-case letters": ("upper-case letters", "letters"),
    "share of distinct words": ("distinct words", "words"),
    "share of repeated 3-grams": ("repeated 3-grams", "3-grams"),
    "share of common English words": ("common English words", "words"),
    "share of hedges": ("hedges", "words"),
    "share of commas": ("commas", "words"),
    "share of digits": ("digits", "characters"),
    **{f"share of {script} letters": (f"{script} letters", "letters") for script in _SCRIPTS},
}
FEATURES: tuple[str, ...] = (*_AS_COUNTS, *_SHARES, "hollow messages")
"""What a view of one role's messages is compared by, in order."""
LENGTH_FEATURES = frozenset({*_LENGTHS, "commas", "full stops"})
"""Features that say little more than how long a text is."""

_COUNT_COLUMNS = np.array([_INDEX[name] for name in _AS_COUNTS])
_NUMERATORS = np.array([_INDEX[one] for one, _ in _SHARES.values()])
_DENOMINATORS = np.array([_INDEX[one] for _, one in _SHARES.values()])


def count_message(text: str) -> np.ndarray:
    """The counts of one message, in the order of COUNTS."""
    counts = np.zeros(len(COUNTS))
    folded = fold(text)
    words = WORD.findall(folded)
    num_ngrams = max(0, len(words) - _NGRAM + 1)
    found: dict[str, float] = {
        "messages": 1,
        "characters": len(text),
        "words": len(words),
        "sentences": _num_sentences(text),
        "paragraphs": sum(1 for part in text.split("\n\n") if part.strip()),
        "distinct words": len(set(words)),
        "3-grams": num_ngrams,
        "repeated 3-grams": num_ngrams - len(_ngrams(words)),
        "hollow messages": not words,
        **{name: text.count(sign) for name, sign in _PUNCTUATION.items()},
        **{name: len(pattern.findall(text)) for name, pattern in _PATTERNS.items()},
        **{name: count_phrases(folded, name) for name in PHRASES},
        **{name: sum(word in known for word in words) for name, known in WORDS.items()},
        **_letters(text),
    }
    for name, number in found.items():
        counts[_INDEX[name]] = number
    return counts


def compare_by(counts: np.ndarray) -> np.ndarray:
    """The features of summed counts, in the order of FEATURES.

    Counts enter by log(1 + n), so that a difference of two sides is a ratio: one very long reply must not
    outweigh a thousand that are a little longer. Shares of nothing are 0.

    Args:
        counts: [..., len(COUNTS)].
    """
    below = counts[..., _DENOMINATORS]
    shares = np.divide(counts[..., _NUMERATORS], below, out=np.zeros_like(below), where=below > 0)
    hollow = counts[..., _INDEX["hollow messages"], None]
    return np.concatenate([np.log1p(counts[..., _COUNT_COLUMNS]), shares, hollow], axis=-1)


def words_of(text: str) -> list[str]:
    """The words of a text in lower case."""
    return WORD.findall(fold(text))


def ngrams(text: str) -> set[tuple[str, ...]]:
    """The distinct 3-grams of a text's words."""
    return _ngrams(words_of(text))


def num_words(counts: np.ndarray) -> float:
    """The number of words in a vector of counts."""
    return float(counts[_INDEX["words"]])


def has(name: str) -> Callable[[np.ndarray], bool]:
    """Whether a message's counts hold at least one of something."""
    index = _INDEX[name]
    return lambda counts: bool(counts[index] > 0)


def sum_counts(messages: Sequence[np.ndarray]) -> np.ndarray:
    """The counts of several messages together; zeros for none."""
    return np.sum(messages, axis=0) if len(messages) else np.zeros(len(COUNTS))


def _ngrams(words: list[str]) -> set[tuple[str, ...]]:
    return set(zip(*(words[start:] for start in range(_NGRAM)), strict=False))


def _num_sentences(text: str) -> int:
    if not text.strip():
        return 0
    ends = len(_SENTENCE_END.findall(text))
    return ends if re.search(r"[.!?\u2026\u3002\uff01\uff1f][\"'\u201d\u2019)\]]*\s*\Z", text) else ends + 1


def _letters(text: str) -> dict[str, int]:
    """Letters, upper-case letters and digits, and letters beyond ASCII by script."""
    ascii_text = text.encode("ascii", "ignore")
    letters, upper, digits = (len(ascii_text.translate(None, others)) for others in _OTHERS)
    found = Counter({"letters": letters, "upper-case letters": upper, "digits": digits})
    for character in _NON_ASCII.findall(text):
        if character.isalpha():
            found["letters"] += 1
            found["upper-case letters"] += character.isupper()
            found[f"{_script(character)} letters"] += 1
        else:
            found["digits"] += character.isdigit()
    return found


@lru_cache(maxsize=4096)
def _script(letter: str) -> str:
    first = unicodedata.name(letter, "OTHER").partition(" ")[0]
    return first if first in _SCRIPTS else "OTHER"
