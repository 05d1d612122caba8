"""The pure parts of bench-score: how rounds become a table."""

from pathlib import Path

import pytest

from music_ray.bench import score as bench
from tests.reward.conftest import make_tokenizer


def took(seconds: float, scores: list[float], cached: int = 0) -> dict[str, object]:
    return {"seconds": seconds, "scores": scores, "cached": cached}


def test_the_ratio_is_of_the_same_rounds_and_the_difference_the_largest(
    capsys: pytest.CaptureFixture,
) -> None:
    vllm = [took(2.0, [1.0, 2.0], 3), took(4.0, [1.0, 2.0], 3), took(2.0, [1.0, 2.0], 3)]
    peer = [took(4.0, [1.0, 2.5]), took(6.0, [1.0, 2.5]), took(5.0, [1.0, 2.5])]
    measured = {
        "found": {bench.BOTH: {bench.VLLM: vllm, bench.HUGGINGFACE: peer}},
        "sets": {bench.BOTH: [[1, 2, 3, 4], [1, 2]]},
        "starts": {bench.VLLM: 30.0, bench.HUGGINGFACE: 8.0},
        "batch_size": 8,
        "batch_sizes": {8: 4.0},
    }
    (row,) = bench.table(measured)
    assert row["vllm_over_huggingface"] == {"median": 2.0, "low": 1.5, "high": 2.5}
    assert row["tokens_per_second"] == {bench.VLLM: 3.0, bench.HUGGINGFACE: 1.2}
    assert (row["largest_difference"], row["cached_share"], row["tokens"]) == (0.5, 0.5, 6)
    bench.tell([row], measured)
    said = capsys.readouterr().out
    assert "2.00 [1.50, 2.50]" in said and "target 1.5 for both sides: met" in said
    assert "ready after: vllm 30 s, huggingface 8.0 s; scores differ by up to 5.0e-01" in said


def test_the_sample_gives_both_sides_of_a_pair_side_by_side(tmp_path: Path) -> None:
    make_tokenizer().save_pretrained(tmp_path)
    # The sample has a few system-free conversations of alternating roles: any chat template takes them.
    sets = bench.sample_conversations(str(tmp_path), 5)
    assert (len(sets[bench.BOTH]), len(sets[bench.CHOSEN])) == (10, 5)
    assert sets[bench.BOTH][::2] == sets[bench.CHOSEN]


def test_options() -> None:
    options = bench.parse_options(["--batch-sizes", "2,4", "--rounds", "5"])
    assert (options.batch_sizes, options.rounds, options.eager) == ([2, 4], 5, False)
    assert bench.parse_options([]).batch_sizes == [4, 8, 16, 32]
