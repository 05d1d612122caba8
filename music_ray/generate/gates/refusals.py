"""The gate refusal_in_chosen: a chosen reply that declines what was asked, by English markers.

Made to be right when it speaks, not to find every refusal: it reads the opening of a reply only, wants
the speaker to decline an act of its own, and lets a reply pass that goes on to answer.
"""

from __future__ import annotations

import re

from music_ray.config import GatesConfig
from music_ray.generate.gates.base import generated, shorten
from music_ray.schema import Rollout

_OPENING = 200
"""Characters of a reply in which a refusal begins; later ones are part of an answer."""
_AFTERWARDS = 200
"""Characters after the marker in which an answer after all is looked for."""

_CANNOT = r"""
    (?: (?:can't|cannot|can\ not|won't|will\ not)
      | (?:am|'m)\ (?:(?:just|really|simply|truly)\ )?
        (?: unable\ to
          | not\ (?:able|allowed|permitted|willing|programmed|designed|prepared|at\ liberty|going)\ to )
      | (?:(?:must|have\ to|need\ to)\ )?(?:respectfully\ )?(?:decline|refuse)\ to )
"""
_HOW = r"(?:\ (?:really|simply|just|actually|possibly|ethically|personally|ever|in\ good\ conscience))*"
_ACT = r"""
    (?: (?:help|assist)(?=\ (?:you|with|people|anyone|someone|in|on)\b|[.,!;]|$)
      | do(?=\ (?:that|this|it|so)\b)
      | (?:answer|comply|fulfil|fulfill|condone|encourage|facilitate|participate|engage)\b
      | (?:respond|reply)\ to\b
      | tell\ you(?!\ (?:exactly|for\ (?:sure|certain)|much|a\ whole))
      | (?:provide|give|offer|write|create|generate|produce|share|discuss|suggest|promote
          |support|recommend(?!\ it\b|[^.!?]{0,40}\ (?:enough|highly))|advise|teach|describe|explain
          |disclose|reveal)\b
        (?!\ (?:you\ )?(?:an?\ |the\ )?
          (?:exact|precise|concise|concrete|complete|full|definitive|specific|content\ in\ total|enough|much\b
            |(?:any\ )?more\b)) )
"""
_MARKERS = re.compile(
    rf"""
      # I can't help with that; I'm not able to provide …; I won't answer this
      \bi(?:\ (?:really|simply|just|also|still|definitely|certainly|absolutely|honestly|personally))*
      \ ?{_CANNOT}{_HOW}\ {_ACT}
      # I'm sorry, but I can't.
    | \b(?:sorry|apologi[sz]e|apologies|afraid|no)[,.]?(?:\ but)?\ i\ (?:can't|cannot|won't|will\ not)[.!]
      # As an AI language model, I cannot …; as an AI, it is not ethical …
    | \bas\ an?\ (?:\w+\ ){{0,2}}(?:ai|language\ model|chatbot|assistant)\b[^.!?]{{0,80}}?
      (?: (?<!things\ )\bi\ ?{_CANNOT}{_HOW}\ (?!say\b|be\b|see\b|feel\b)\w+
        | \bit(?:'s|\ is|\ would\ be)
          \ (?:unethical|inappropriate|not\ (?:ethical|appropriate|acceptable|right)) )
      # I'm not comfortable with that; I don't feel comfortable giving …
    | \bi(?:(?:\ am|'m)\ (?:really\ )?(?:not\ |un)|\ (?:do\ not|don't)\ feel\ )(?:really\ )?comfortable
      \ (?:with\ (?:that|this|it)\b|\w+ing\b)
      # It would be against my guidelines
    | \bagainst\ (?:my|our)
      \ (?:guidelines|polic(?:y|ies)|programming|principles|rules|terms\ of\ (?:service|use))\b
      # That I cannot provide.
    | \bthat\ i\ (?:cannot|can't|will\ not|won't)\ (?:provide|tell|answer|give|share|do)\b
    """,
    re.VERBOSE,
)
_NOT_ITS_OWN = re.compile(
    r"(?:\bpromise(?:\ you)?(?:\ that)?|\bif|\bwhether|\bwhy|\bwhen|\bthings|\bsays?|\bsaid)\ ?$", re.VERBOSE
)
"""Before a marker: a promise, a condition, words of somebody else."""
_ANSWERS_YET = re.compile(
    r"""
    \b(?:but|however|though|although)\b,?\ (?:(?:perhaps|maybe)\ (?:you\b)?)?
    (?: i\ (?:can|could|will|would|might|may|do\ know|think|am\ able|am\ happy)\b | i'(?:ll|d)\b | here\b
      | there\ (?:is|are)\b | there's\b | let\ me\b | in\ some\ cases\b | (?<=you)\ can\b )
  | \bi\ can\ (?:tell|recommend|offer|share|suggest|explain|describe|provide|give)\b
  | \bthe\ best\ i\ can\b
    """,
    re.VERBOSE,
)


def refusal_in_chosen(rollout: Rollout, gates: GatesConfig) -> str:
    """A generated chosen reply that refuses in its opening."""
    for message in generated(rollout):
        if (
            message.branch == "chosen"
            and message.role == "assistant"
            and (said := find_refusal(message.text))
        ):
            return f"{message.where} refuses: {shorten(said)!r}"
    return ""


def find_refusal(text: str) -> str:
    """The words in a reply's opening by which it declines what was asked; empty when it does not."""
    plain = " ".join(text[: 2 * (_OPENING + _AFTERWARDS)].replace("\u2019", "'").split())
    lower = plain.lower()
    if len(lower) != len(plain):  # rare letters grow in lower case: their reply is quoted as compared
        plain = lower
    for found in _MARKERS.finditer(lower[: _OPENING + _AFTERWARDS]):
        if found.start() >= _OPENING:
            break
        before, after = lower[: found.start()], lower[found.end() : found.end() + _AFTERWARDS]
        if not (_NOT_ITS_OWN.search(before) or _is_quoted(before) or _ANSWERS_YET.search(after)):
            return plain[found.start() : found.end()]
    return ""


def _is_quoted(before: str) -> bool:
    """Whether a quotation is open: the words are a character's or an example's, not the speaker's."""
    return before.count('"') % 2 == 1 or before.count("\u201c") > before.count("\u201d")
