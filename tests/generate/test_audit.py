"""The shortcut audit of a list of pairs: planted shortcuts are found, and where there is none, none is."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from statistics import mean

import pytest

from music_ray.generate.audit import audit_pairs
from music_ray.generate.audit.result import Marker, Rate, View
from music_ray.schema import Message, PreferencePair
from tests.generate.audit_samples import CONFIG, make_pairs, nonsense, say, swapped

SURFACE = ("surface/whole", "surface/user", "surface/last_reply", "surface/first_reply")
TFIDF = ("tfidf/whole", "tfidf/user", "tfidf/last_reply", "tfidf/first_reply")


def longer(words: list[str], rng: random.Random) -> list[str]:
    """30% more words than the longest reply that is not edited."""
    return nonsense(rng, 59)


def complain(words: list[str], rng: random.Random) -> list[str]:
    return ["That's", "not", "what", "I", "asked.", *words] if rng.random() < 0.8 else words


# -- planted and absent shortcuts ------------------------------------------------------------------


def test_a_longer_rejected_side_is_found_and_its_length_named_first() -> None:
    audit = audit_pairs(make_pairs(120, 1, rejected_reply=longer), CONFIG, 0)
    for name in ("surface/whole", "surface/last_reply", "surface/first_reply"):
        view = audit.views[name]
        assert view.auc is not None and view.low is not None
        assert view.auc >= 0.95 and view.low > 0.9
        first = view.features[0]
        assert first.name.partition(": ")[2] in {"words", "characters"}, view.features
        assert (first.direction, first.auc) == ("less in chosen", 0.0)
    user = audit.views["surface/user"]
    assert user.low is not None and user.high is not None and user.low <= 0.5 <= user.high
    assert audit.verdict == (
        "A linear model tells chosen from rejected by surface/whole with AUC 1.00 (1.00 to 1.00), above "
        "audit.max_auc (0.7): a reward model can learn that instead of quality."
    )
    assert audit.warnings[0].startswith("surface/whole: AUC 1.00 (1.00 to 1.00), carried by replies: ")
    length, mode = audit.remedies
    assert length.startswith("the sides differ in length: lower pairs.gates.max_length_ratio ")
    assert mode.startswith("try another contrast.mode")


@pytest.mark.parametrize("seed", range(6))
def test_where_both_sides_have_one_generator_there_is_no_shortcut(seed: int) -> None:
    audit = audit_pairs(make_pairs(100, seed), CONFIG, seed)
    views = [audit.views[name] for name in (*SURFACE, *TFIDF)]
    covered = [
        view.low <= 0.5 <= view.high for view in views if view.low is not None and view.high is not None
    ]
    # Each of the eight intervals may miss 0.5 once in twenty; all of them say that nothing is above 0.7.
    assert len(covered) == 8 and sum(covered) >= 7
    assert (audit.warnings, audit.remedies) == ([], [])


def test_swapped_labels_turn_every_single_feature_round_and_leave_the_probe_alone() -> None:
    pairs = make_pairs(80, 3, rejected_reply=longer)
    one, other = audit_pairs(pairs, CONFIG, 0), audit_pairs(swapped(pairs), CONFIG, 0)
    for name in SURFACE:
        left, right = one.views[name], other.views[name]
        # The model is fitted anew: it learns the other direction, and tells the sides as well as before.
        assert (left.auc, left.low, left.high) == (right.auc, right.low, right.high)
        assert [feature.name for feature in left.features] == [feature.name for feature in right.features]
        for feature, turned in zip(left.features, right.features, strict=True):
            assert turned.auc == pytest.approx(1 - feature.auc, abs=2e-4)
            assert turned.coefficient == pytest.approx(-feature.coefficient, abs=1e-3)


def test_labels_that_are_drawn_hide_a_difference_of_the_sides() -> None:
    pairs = make_pairs(120, 4, rejected_reply=longer)
    rng = random.Random(0)
    mixed = [swapped([pair])[0] if rng.random() < 0.5 else pair for pair in pairs]
    view = audit_pairs(mixed, CONFIG, 0).views["surface/whole"]
    assert view.low is not None and view.high is not None and view.low <= 0.5 <= view.high


def test_pairs_of_one_conversation_do_not_leak() -> None:
    """Words of its own in either side of every conversation: to be learnt by heart, and of no use."""
    together, apart = [], []
    for seed in range(4):
        pairs = [
            replace(
                pair,
                chosen=_with_word(pair.chosen, f"zz{pair.conversation}"),
                rejected=_with_word(pair.rejected, f"qq{pair.conversation}"),
            )
            for pair in make_pairs(120, seed, conversations=30)
        ]
        together.append(audit_pairs(pairs, CONFIG, 0).views["tfidf/last_reply"].auc or 0.0)
        lonely = [replace(pair, conversation=index) for index, pair in enumerate(pairs)]
        apart.append(audit_pairs(lonely, CONFIG, 0).views["tfidf/last_reply"].auc or 0.0)
    assert abs(mean(together) - 0.5) < 0.07, together
    assert min(apart) > 0.85, "the planted words can be learnt by heart"


def _with_word(messages: list[Message], word: str) -> list[Message]:
    last = messages[-1]["content"]
    return [*messages[:-1], {"role": "assistant", "content": f"{last} {word} {word}"}]


def test_complaining_users_give_the_label_away() -> None:
    audit = audit_pairs(make_pairs(100, 6, rejected_user=complain), CONFIG, 0)
    for name in ("surface/whole", "surface/user", "tfidf/user"):
        low = audit.views[name].low
        assert low is not None and low > 0.7, name
    assert audit.views["surface/user"].features[0].name == "user: complaints"
    assert any(one.startswith("the user messages give the label away") for one in audit.remedies)
    complaints = next(one for one in audit.markers if one.name == "complaints")
    assert complaints.chosen == Rate(100, 0)
    assert 70 <= complaints.rejected.with_marker <= 90
    assert audit.notes == [
        f"complaints are in {complaints.rejected.with_marker}.0% of the rejected side's user messages and in "
        "0.0% of the chosen side's"
    ]


# -- what is counted -------------------------------------------------------------------------------


def test_markers_are_counted_by_hand() -> None:
    chosen = ("Q?", "Sure, here it is.", "Thanks! And then?", "Then you rest.", "Thank you.", "Any time.")
    rejected = (
        "Q?",
        "Something else.",
        "That\u2019s not what I asked.",
        "I apologize for the confusion. Here it is.",
        "You still didn't answer my question",
        "Sorry, I misunderstood. I cannot help with that.",
    )
    pair = PreferencePair("a", "s", "D_MUSIC", 1, 3, 1, say(*chosen), say(*rejected))
    audit = audit_pairs([pair], CONFIG, 0)
    assert audit.markers == [
        Marker("self-corrections", "assistant", Rate(3, 0), Rate(3, 2)),
        Marker("apologies", "assistant", Rate(3, 0), Rate(3, 2)),
        Marker("refusals", "assistant", Rate(3, 0), Rate(3, 1)),
        Marker("complaints", "user", Rate(2, 0), Rate(2, 2)),
        Marker("thanks", "user", Rate(2, 2), Rate(2, 0)),
    ]


def test_divergence_by_hand() -> None:
    """The split is in turn 2; turn 3 has the same user message and half of the reply's words."""
    start = ("Q?", "A.", "And?")
    chosen = say(*start, "red green", "Go on ", "one two three")
    rejected = say(*start, "blue yellow", "Go on", "one two four")
    pairs = [PreferencePair(str(one), "s", "D_MUSIC", one, 3, 2, chosen, rejected) for one in range(2)]
    first, second = audit_pairs(pairs, CONFIG, 0).turns
    assert (first.turn, first.user) == (1, None)
    assert first.reply is not None and second.user is not None and second.reply is not None
    assert (first.reply.num_pairs, first.reply.equal, first.reply.word_overlap) == (2, 0.0, 0.0)
    assert (second.user.equal, second.user.word_overlap, second.user.cosine) == (1.0, 1.0, 1.0)
    assert (second.reply.equal, second.reply.word_overlap) == (0.0, 0.5)
    assert 0 < second.reply.cosine < 1 and first.reply.cosine == 0


# -- too little, too much --------------------------------------------------------------------------


def test_too_few_pairs_give_no_number() -> None:
    audit = audit_pairs(make_pairs(39, 0), CONFIG, 0)
    nothing = View(None, None, None, "39 pairs are too few (audit.min_pairs is 40)")
    assert list(audit.views.values()) == [nothing] * 8
    assert audit.verdict == "No AUC was measured: 39 pairs are too few (audit.min_pairs is 40)."
    assert audit.highest is None
    assert len(audit.turns) == 2 and audit.markers[0].chosen.messages == 78
    few = audit_pairs(make_pairs(60, 0, conversations=9), CONFIG, 0)
    assert few.verdict == "No AUC was measured: 9 conversations are too few (twice audit.folds is 10)."
    assert audit_pairs([], CONFIG, 0).views["surface/whole"].auc is None


def test_sides_that_are_the_same_are_said() -> None:
    pairs = [replace(pair, rejected=pair.chosen) for pair in make_pairs(50, 0)]
    reasons = {name: view.reason for name, view in audit_pairs(pairs, CONFIG, 0).views.items()}
    assert reasons["surface/whole"] == reasons["tfidf/whole"] == "the two sides are the same"
    replies_only = [
        replace(pair, rejected=[*pair.chosen[:-1], *pair.rejected[-1:]]) for pair in make_pairs(50, 0)
    ]
    views = audit_pairs(replies_only, CONFIG, 0).views
    assert views["surface/user"].reason == views["tfidf/user"].reason
    assert views["tfidf/user"].reason == "the user messages are the same on both sides"
    assert views["tfidf/whole"] is views["tfidf/last_reply"] is views["tfidf/first_reply"]


def test_the_same_pairs_give_the_same_audit_in_any_order() -> None:
    pairs = make_pairs(80, 7, rejected_reply=longer)
    config = CONFIG.model_copy(update={"max_pairs": 60})
    one = audit_pairs(pairs, config, 0)
    other = audit_pairs(pairs[::-1], config, 0)
    assert one == other
    assert (one.num_pairs, one.num_available) == (60, 80)
    assert one.notes[0] == "60 of 80 pairs were looked at (audit.max_pairs)"
    assert audit_pairs(pairs, config, 1) != one
    assert json.loads(json.dumps(one.as_json()))["views"]["surface/whole"]["auc"] == 1.0
