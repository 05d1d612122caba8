"""Questions with one short answer each, and a pattern that finds it: an exact checker without a judge.

A reply that holds the expected answer answers the question; one that does not, misses it. No two
questions of one kind have the same answer, so a good reply to a neighbour of a question misses it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Question:
    """A question and the pattern of its answer."""

    text: str
    answer: str
    """A regular expression over whole words, any case."""

    def is_answered_by(self, reply: str) -> bool:
        """Whether the reply holds the expected answer."""
        return re.search(rf"(?<!\w)(?:{self.answer})(?!\w)", reply, re.IGNORECASE) is not None


_CAPITALS = {
    "France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Germany": "Berlin", "Japan": "Tokyo",
    "Russia": "Moscow", "China": "Beijing", "Egypt": "Cairo", "Greece": "Athens", "Portugal": "Lisbon",
    "Austria": "Vienna", "Ireland": "Dublin", "Canada": "Ottawa", "India": "(?:New )?Delhi",
    "England": "London",
}  # fmt: skip
_OPPOSITES = {
    "hot": "cold|cool", "up": "down", "big": "small|little|tiny", "fast": "slow", "happy": "sad|unhappy",
    "light": "dark|darkness|heavy", "open": "closed?|shut", "day": "night", "wet": "dry", "full": "empty",
}  # fmt: skip
# Totals that are no number in any of the questions, and all of them different.
_SUMS = {
    (5, 5): "10|ten", (5, 6): "11|eleven", (6, 6): "12|twelve", (9, 4): "13|thirteen",
    (7, 7): "14|fourteen", (7, 8): "15|fifteen", (8, 8): "16|sixteen", (9, 8): "17|seventeen",
    (9, 9): "18|eighteen",
}  # fmt: skip
_COLOURS = {
    "the sky on a clear day": "blue", "grass": "green", "fresh snow": "white", "a ripe banana": "yellow",
    "blood": "red", "coal": "black", "chocolate": "brown", "a flamingo": "pink",
}  # fmt: skip
_LEGS = {"a dog": "4|four", "a spider": "8|eight", "a bird": "2|two", "an ant": "6|six"}
_OTHERS = {
    "What is the first letter of the word queen?": "q",
    "What is the first letter of the word zebra?": "z",
    "How many days are there in a week?": "7|seven",
    "What is the last month of the year?": "december",
    "How many minutes are there in an hour?": "60|sixty",
    "How many hours are there in a day?": "24|twenty[- ]four",
    "Which planet do we live on?": "earth",
    "What do bees make?": "honey",
    "What is frozen water called?": "ice",
    "What is a young cat called?": "kittens?",
    "What is a young dog called?": "pup(?:py|pies|s)?",
    "What is the star in the middle of our solar system called?": "sun",
    "How many sides does a triangle have?": "3|three",
    "What do people breathe to stay alive?": "air|oxygen",
}

QUESTIONS = (
    *(Question(f"What is the capital of {land}?", city) for land, city in _CAPITALS.items()),
    *(Question(f"What is the opposite of the word {word}?", other) for word, other in _OPPOSITES.items()),
    *(Question(f"What is {left} plus {right}?", total) for (left, right), total in _SUMS.items()),
    *(Question(f"What colour is {thing}?", colour) for thing, colour in _COLOURS.items()),
    *(Question(f"How many legs does {animal} have?", number) for animal, number in _LEGS.items()),
    *(Question(text, answer) for text, answer in _OTHERS.items()),
)
"""60 of them."""
