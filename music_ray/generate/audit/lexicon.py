"""Words and phrases that give a message's mood away: hedges, refusals, apologies, complaints and the like.

English only: in another language these counts are 0 and the audit's other features have to do. The lists
are for counting, not for deciding: a phrase that means something else once in a while changes no verdict.
"""

from __future__ import annotations

import re

_APOSTROPHES = str.maketrans({"\u2019": "'", "\u02bc": "'", "\u2018": "'"})

_WORDS = {
    "hedges": """
        about allegedly apparently appears approximately arguably around could generally likely may maybe
        might mostly often perhaps possibly potentially presumably probably roughly seem seems sometimes
        somewhat typically unclear unlikely unsure usually
    """,
    "common English words": """
        a all an and are as at be been but by can do for from had has have he her his how i if in is it its
        me my no not of on or our she so that the their them there they this to was we were what when which
        who will with would you your
    """,
}
WORDS: dict[str, frozenset[str]] = {name: frozenset(words.split()) for name, words in _WORDS.items()}
"""Single words by what they are a sign of; `common English words` is the sign of the language."""

_I_AM = r"\bi(?:'m|\ am)"
_SORRY = r"(?:sorry|apologi[sz]e|my\ apologies|apologies)"
PHRASES: dict[str, re.Pattern[str]] = {
    "apologies": re.compile(r"\b(?:sorry|apologi[sz]e[ds]?|apologi[sz]ing|apolog(?:y|ies)|pardon me)\b"),
    "refusals": re.compile(
        rf"""
          \bi\ (?:can't|cannot|can\ not|couldn't|won't|will\ not|would\ rather\ not)\ (?:really\ )?
            (?:help|assist|provide|do\ that|answer|comply|give|offer|support|discuss|engage|fulfil|create
              |write|generate|share|continue|advise|recommend)
        | {_I_AM}\ (?:not\ able|unable|not\ allowed|not\ comfortable|not\ willing|not\ going)\b
        | \bas\ an?\ (?:ai|artificial|language\ model|assistant)\b
        | {_I_AM}\ (?:just\ |only\ )?an?\ (?:ai|artificial|language\ model)\b
        | \b(?:must|have\ to|need\ to)\ (?:decline|refuse)\b
        | \bagainst\ (?:my|the)\ (?:guidelines|polic(?:y|ies)|programming|rules|principles)\b
        | \b{_SORRY},?\ but\ i\ (?:can|could|do|am|won|will)
        | \bi\ (?:don't|do\ not)\ (?:feel\ comfortable|want\ to\ (?:help|answer|talk))\b
        """,
        re.VERBOSE,
    ),
    "self-corrections": re.compile(
        rf"""
          \b{_SORRY}(?:\ for)?(?:\ (?:any|the|my|that|this))?(?:\ \w+)?\ (?:confusion|mistake|error
            |misunderstanding|oversight|mix-?up)s?\b
        | \bi\ (?:must\ have\ |may\ have\ |seem\ to\ have\ |have\ |had\ )?(?:misunderst(?:ood|and)|misread
            |misinterpreted|misspoke|got\ (?:that|it)\ wrong|made\ (?:a|an|some)\ (?:mistake|error)
            |was\ (?:wrong|mistaken))\b
        | \bi\ stand\ corrected\b
        | \bmy\ (?:mistake|bad|error)\b
        | \byou(?:'re|\ are)\ (?:absolutely\ |quite\ |completely\ )?(?:right|correct)\b
        | \bthank(?:s|\ you)\ for\ (?:the\ correction|correcting|pointing\ (?:that|it|this)\ out|clarifying)\b
        | \blet\ me\ (?:try\ again|correct|rephrase|start\ over|address\ your\ (?:actual|original))
        | \bto\ (?:properly\ |actually\ )?answer\ your\ (?:actual|original|real)\b
        """,
        re.VERBOSE,
    ),
    "complaints": re.compile(
        r"""
          \bnot\ (?:really\ |quite\ |exactly\ |at\ all\ )?what\ i\b
        | \b(?:isn't|wasn't|is\ not|was\ not)\ (?:really\ |quite\ |exactly\ )?(?:what\ i|my\ question)\b
        | \bi\ (?:didn't|did\ not|never)\ (?:ask|say|want|mean)\b
        | \bi\ (?:just\ |already\ |specifically\ |actually\ |clearly\ |only\ )?asked\b
        | \bi\ was\ asking\b
        | \bmy\ (?:original\ |actual\ |first\ |real\ )?question\ was\b
        | \byou\ (?:still\ )?(?:didn't|did\ not|haven't|have\ not|never|don't|do\ not|aren't|are\ not)
            \ (?:even\ |really\ |actually\ )?(?:answer|address|respond|read|listen|understand|help|follow
              |get\ (?:it|my|what))
        | \byou(?:\ have|'ve)?\ (?:completely\ |totally\ |just\ )?(?:misunderst(?:ood|and)|misread|ignored
            |missed\ (?:the|my)|forgot|skipped)\b
        | \b(?:that|this|which|it)\ (?:doesn't|does\ not|didn't|did\ not)\ (?:really\ |actually\ )?
            (?:answer|address|help|make\ (?:any\ )?sense|work)\b
        | \b(?:that|this|you|it)(?:'s|'re|\ is|\ are|\ was)\ (?:all\ |completely\ |just\ |simply\ )?
            (?:wrong|incorrect|irrelevant|unrelated|useless|nonsense|off[\ -]topic
              |not\ (?:right|correct|true|helpful|relevant|related|an\ answer))\b
        | \bmakes\ no\ sense\b
        | \bwrong\ (?:answer|question|topic)\b
        | \b(?:please\ |can\ you\ |could\ you\ )(?:just\ |actually\ |really\ )?(?:answer|stick\ to|focus\ on
            |go\ back\ to|get\ back\ to|re-?read|try\ again)\b
        | \bwhat\ are\ you\ talking\ about\b
        | \bwhat\ does\ (?:that|this)\ have\ to\ do\b
        """,
        re.VERBOSE,
    ),
    "openers": re.compile(
        r"\A\W*(?:sure|certainly|of course|absolutely|definitely|great|good question|yes|okay|ok|no problem"
        r"|happy to|i'd be happy)\b"
    ),
    "thanks": re.compile(r"\bthank(?:s| you)\b"),
}
"""Phrases by what they are a sign of; they are looked for in fold(text)."""


def fold(text: str) -> str:
    """Text as the phrases expect it: lower case, straight apostrophes, single spaces."""
    return " ".join(text.translate(_APOSTROPHES).lower().split())


def count_phrases(folded: str, name: str) -> int:
    """How often a phrase of one kind occurs in a folded text."""
    return sum(1 for _ in PHRASES[name].finditer(folded))
