"""RewardBench v1: scores worked out by hand from raw scores, and what partial sets do not get."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from music_ray.evaluate.rewardbench import (
    PRIOR_SETS,
    REFERENCE_WEIGHTS,
    SECTIONS,
    is_known,
    rewardbench,
    subset_weight,
)
from music_ray.evaluate.stats import Resampling

QUICK = Resampling(samples=100, confidence=0.9, seed=3)
NAN = float("nan")
PARTIAL = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "rewardbench" / "partial.parquet"

# Subset, score of chosen, score of rejected, and how many pairs have these scores.
CHAT = [
    ("alpacaeval-easy", 2.0, 1.0, 90), ("alpacaeval-easy", 1.5, 1.5, 10),  # ties: 90 of 100
    ("alpacaeval-length", 0.1, -0.1, 76), ("alpacaeval-length", -0.1, 0.1, 19),  # 76 of 95
    ("alpacaeval-hard", 5.0, 4.0, 38), ("alpacaeval-hard", 4.0, 5.0, 57),  # 38 of 95
    ("mt-bench-easy", 1.0, 0.0, 28),  # 28 of 28
    ("mt-bench-med", 1.0, 0.0, 30), ("mt-bench-med", NAN, 0.0, 10),  # no score: 30 of 40
]  # fmt: skip
CHAT_HARD = [
    ("mt-bench-hard", 1.0, 0.0, 37),
    ("llmbar-natural", 1.0, 0.0, 50), ("llmbar-natural", 0.0, 1.0, 50),
    ("llmbar-adver-neighbor", 1.0, 0.0, 67), ("llmbar-adver-neighbor", 0.0, 1.0, 67),
    ("llmbar-adver-GPTInst", 1.0, 0.0, 23), ("llmbar-adver-GPTInst", 0.0, 1.0, 69),
    ("llmbar-adver-GPTOut", 0.0, 0.0, 47),
    ("llmbar-adver-manual", 1.0, 0.0, 46),
]  # fmt: skip
SAFETY = [
    ("refusals-dangerous", 1.0, 0.0, 100),
    ("refusals-offensive", 1.0, 0.0, 90), ("refusals-offensive", 0.0, 1.0, 10),
    ("xstest-should-refuse", 1.0, 0.0, 77), ("xstest-should-refuse", 0.0, 1.0, 77),
    ("xstest-should-respond", 1.0, 0.0, 200), ("xstest-should-respond", 0.0, 1.0, 50),
    ("donotanswer", 1.0, 0.0, 68), ("donotanswer", 0.0, 1.0, 68),
]  # fmt: skip
REASONING = [
    ("math-prm", 1.0, 0.0, 149), ("math-prm", 0.0, 1.0, 298),
    ("hep-cpp", 1.0, 0.0, 164),
    *((f"hep-{name}", *scores, 82) for name in ("go", "java", "js", "python", "rust")
      for scores in ((1.0, 0.0), (0.0, 1.0))),
]  # fmt: skip
PRIOR = [
    ("anthropic_helpful", 1.0, 0.0, 3096), ("anthropic_helpful", 0.0, 1.0, 3096),
    ("anthropic_hhh", 1.0, 0.0, 221),
    ("shp", 0.0, 0.0, 1741),
    ("summarize", 1.0, 0.0, 2250), ("summarize", 0.0, 1.0, 6750),
]  # fmt: skip
CORE = [*CHAT, *CHAT_HARD, *SAFETY, *REASONING]

# (90 + 76 + 38 + 28 + 30) right of 100 + 95 + 95 + 28 + 40.
CHAT_SCORE = 262 / 358
# (37 + 50 + 67 + 23 + 0 + 46) of 37 + 100 + 134 + 92 + 47 + 46.
CHAT_HARD_SCORE = 223 / 456
# XSTest weighs 250 where half of 154 are right, and 154 where 200 of 250 are: 125 and 123.2.
# (100 + 90 + 125 + 123.2 + 68) of 100 + 100 + 250 + 154 + 136.
SAFETY_SCORE = 506.2 / 740
# math-prm: 149 of 447 is a third, of 984: 328. Code: 164 + 5 · 82 = 574 of 984. (328 + 574) of 1,968.
REASONING_SCORE = 902 / 1968
# (3096 / 6192 + 221 / 221 + 0 / 1741 + 2250 / 9000) / 4 = (0.5 + 1 + 0 + 0.25) / 4.
PRIOR_SCORE = 0.4375


def run(table):
    subsets = np.array([row[0] for row in table for _ in range(row[3])])
    scores = np.array([row[1:3] for row in table for _ in range(row[3])])
    return rewardbench(subsets, scores, np.arange(len(subsets)), np.ones((len(subsets), 2)), QUICK)


def test_the_sections_and_both_averages_are_those_worked_out_by_hand() -> None:
    found = run([*CORE, *PRIOR])
    expected = {
        "Chat": CHAT_SCORE,
        "Chat Hard": CHAT_HARD_SCORE,
        "Safety": SAFETY_SCORE,
        "Reasoning": REASONING_SCORE,
    }
    assert {name: one["score"] for name, one in found["sections"].items()} == pytest.approx(expected)
    assert found["sections"]["Chat"]["score"] == pytest.approx(0.7318, abs=5e-5)
    assert found["prior_sets"]["score"] == pytest.approx(PRIOR_SCORE)
    # The sum of the sections is 2.363266: a quarter of it, and (2.363266 + 0.21875) / 4.5.
    assert found["average"] == pytest.approx(0.590817, abs=5e-7)
    assert found["average_with_prior_sets"] == pytest.approx(0.573781, abs=5e-7)
    for one in found["sections"].values():
        assert one["score_low"] <= one["score"] <= one["score_high"]
    assert found["is_complete"] and found["num_pairs"] == 2985 and found["missing"] == []
    easy, medium = found["subsets"]["alpacaeval-easy"], found["subsets"]["mt-bench-med"]
    assert (easy["ties"], easy["num_right"], medium["unscored"], medium["num_right"]) == (10, 90, 10, 30)


def test_without_the_prior_sets_there_is_the_plain_mean_alone() -> None:
    found = run(CORE)
    assert found["average"] == pytest.approx(0.590817, abs=5e-7)
    assert found["average_with_prior_sets"] is None and found["prior_sets"]["score"] is None
    assert found["prior_sets"]["missing"] == list(PRIOR_SETS)


def test_math_is_half_of_reasoning() -> None:
    reasoning = SECTIONS["Reasoning"]
    code = sum(number for name, number in reasoning.items() if name != "math-prm")
    assert code == REFERENCE_WEIGHTS["math-prm"]
    assert subset_weight("math-prm") == 984 and subset_weight("hep-go") == 164
    only_math = [("math-prm", 1.0, 0.0, 447), *((f"hep-{name}", 0.0, 1.0, 164) for name in
                 ("cpp", "go", "java", "js", "python", "rust"))]  # fmt: skip
    section = run(only_math)["sections"]["Reasoning"]
    # Subsets are resampled each by itself, and each of these has but one kind of pair.
    assert section["score"] == section["score_low"] == section["score_high"] == 0.5


def test_a_missing_subset_is_named_and_takes_its_section_s_score_and_the_averages() -> None:
    found = run([row for row in [*CORE, *PRIOR] if row[0] != "math-prm"])
    assert found["missing"] == ["math-prm"] and not found["is_complete"]
    reasoning = found["sections"]["Reasoning"]
    assert reasoning["score"] is None and reasoning["missing"] == ["math-prm"]
    assert reasoning["has"] == [f"hep-{name}" for name in ("cpp", "go", "java", "js", "python", "rust")]
    assert found["average"] is None and found["average_with_prior_sets"] is None
    assert found["sections"]["Chat"]["score"] == pytest.approx(CHAT_SCORE)
    assert found["subsets"]["hep-go"]["accuracy"] == 0.5


def test_a_subset_of_another_size_is_not_the_published_one() -> None:
    found = run([*CHAT[:-1], ("mt-bench-med", 1.0, 0.0, 11), ("donotanswer", 1.0, 0.0, 5)])
    assert found["incomplete"] == {"mt-bench-med": [41, 40], "donotanswer": [5, 136]}
    assert found["sections"]["Chat"]["score"] is None
    assert found["sections"]["Chat"]["incomplete"] == {"mt-bench-med": [41, 40]}


def test_unknown_names_are_named_and_enter_no_score() -> None:
    found = run([*CHAT, ("hep-cobol", 1.0, 0.0, 7), ("mtbench_human", 1.0, 0.0, 3)])
    assert found["unknown"] == {"hep-cobol": 7}  # mtbench_human is published, and in no average
    assert found["sections"]["Chat"]["score"] == pytest.approx(CHAT_SCORE) and found["num_pairs"] == 358
    assert not is_known(np.array(["hep-cobol", ""])) and is_known(np.array(["", "shp"]))


def test_the_published_counts() -> None:
    sizes = {name: sum(section.values()) for name, section in SECTIONS.items()}
    assert sizes == {"Chat": 358, "Chat Hard": 456, "Safety": 740, "Reasoning": 1431}
    assert sum(sizes.values()) == 2985
    assert {name: len(section) for name, section in SECTIONS.items()} == {
        "Chat": 5, "Chat Hard": 6, "Safety": 5, "Reasoning": 7,
    }  # fmt: skip
    # Of 200 unsafe prompts and 250 safe ones.
    assert SECTIONS["Safety"]["xstest-should-refuse"] == 154
    assert SECTIONS["Safety"]["xstest-should-respond"] == 250
    llmbar = {name: number for name, number in SECTIONS["Chat Hard"].items() if name.startswith("llmbar")}
    assert list(llmbar.values()) == [100, 134, 92, 47, 46] and sum(PRIOR_SETS.values()) == 17_154


@given(st.lists(st.integers(0, 164), min_size=6, max_size=6), st.integers(0, 447))
def test_a_section_is_the_mean_of_its_subsets_by_weight(right, math) -> None:
    names = [name for name in SECTIONS["Reasoning"] if name != "math-prm"]
    table = [("math-prm", 1.0, 0.0, math), ("math-prm", 0.0, 0.0, 447 - math)]
    for name, number in zip(names, right, strict=True):
        table += [(name, 1.0, 0.0, number), (name, 0.0, 1.0, 164 - number)]
    found = run([row for row in table if row[3]])["sections"]["Reasoning"]
    assert found["score"] == pytest.approx((math / 447 + sum(right) / 984) / 2)


@pytest.mark.skipif(not PARTIAL.exists(), reason=f"needs {PARTIAL}")
def test_the_partial_set_is_counted_as_what_it_is() -> None:
    subsets = np.array(pq.read_table(PARTIAL, columns=["subset"])["subset"].to_pylist())
    found = rewardbench(
        subsets,
        np.tile([1.0, 0.0], (len(subsets), 1)),
        np.arange(len(subsets)),
        np.ones((len(subsets), 2)),
        QUICK,
    )
    assert found["num_pairs"] == 1647 and found["unknown"] == {}
    assert found["incomplete"] == {"xstest-should-refuse": [131, 154], "xstest-should-respond": [113, 250]}
    assert found["missing"] == [
        *SECTIONS["Chat"], "mt-bench-hard", "refusals-dangerous", "refusals-offensive", "donotanswer",
        "math-prm",
    ]  # fmt: skip
    assert [one["score"] for one in found["sections"].values()] == [None] * 4
    assert found["average"] is None
