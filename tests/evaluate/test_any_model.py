"""Models on pair sets, end to end with models that are a table: what is written, shared and refused."""

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from music_ray.errors import ConfigError, InputError
from music_ray.evaluate.any_model import evaluate_models
from music_ray.evaluate.rewardbench import SECTIONS
from music_ray.evaluate.sides import Tools
from music_ray.public import public_place
from tests.evaluate.conftest import messages, write_jsonl

WORDS = ("evaluate.bootstrap_samples=100",)
# Last replies name who gives them what: A knows all but p4, which it finds too long; B is right on p1 alone.
A = {"good": 3.0, "bad": 1.0, "fine": 2.5, "poor": 0.5, "same": 1.0, "huge": None}
B = {"good": 1.0, "bad": 0.0, "fine": 0.0, "poor": 0.5, "same": 1.0}
ROWS = [
    {"id": "p1", "source": "s", "chosen": messages("q", "good"), "rejected": messages("q", "bad")},
    {
        "id": "p2",
        "source": "t",
        "chosen": messages("q", "good", "more", "fine"),
        "rejected": messages("q", "bad", "well", "poor"),
    },
    {"id": "p3", "source": "t", "chosen": messages("r", "same"), "rejected": messages("r", "same")},
    {"id": "p4", "source": "t", "chosen": messages("u", "huge"), "rejected": messages("u", "bad")},
]


@pytest.fixture
def world(tmp_path: Path, make_model, tools):
    """evaluate(models=…, pairs=…, …) with two models and one file of pairs; in an empty folder."""
    model_a, model_b = make_model("a", A), make_model("b", B)
    path = write_jsonl(tmp_path / "dev.jsonl", *ROWS)

    def evaluate(*, models=(model_a, model_b), pairs=(path,), out=None, verdicts=None, words=WORDS):
        target = out or str(tmp_path / "out")
        return evaluate_models(models, pairs, target, verdicts, words, tools)

    evaluate.models = (model_a, model_b)
    return evaluate


def test_two_models_on_the_same_pairs(world, tmp_path: Path, scorer) -> None:
    result = world()
    written = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert {**written, "file": result["file"]} == json.loads(json.dumps(result))
    assert result["file"] == str(tmp_path / "out" / "evaluation.json")
    assert [one["name"] for one in result["models"]] == list(world.models)
    assert result["models"][0]["digest"] == "digest of a"

    (suite,) = result["pair_sets"]
    assert (suite["name"], suite["num_pairs"], suite["num_contexts"]) == ("dev", 4, 3)
    a, b = (suite["models"][name] for name in world.models)
    assert a["overall"]["accuracy"] == 0.5 and b["overall"]["accuracy"] == 0.25
    assert (a["overall"]["ties"], a["overall"]["unscored"], a["unscored_reasons"]) == (
        1,
        1,
        {"over_length": 1},
    )
    assert {name: one["accuracy"] for name, one in a["by_num_turns"].items()} == {"1": 1 / 3, "2": 1.0}
    assert set(a["by_source"]) == {"s", "t"} and set(a["by_branch_turn"]) == {"0", "1"}
    assert a["agreement"] is None and result["rewardbench"] == dict.fromkeys(world.models)

    (comparison,) = suite["comparisons"]
    assert (comparison["first"], comparison["second"]) == world.models
    assert comparison["overall"]["difference"] == 0.25 and comparison["overall"]["only_first_right"] == 1
    # Transformers unless the command says otherwise.
    words = ["score.engine=huggingface", *WORDS]
    assert scorer.words == [words] * 2
    # Of several models each is asked before the first is scored; one alone the scorer asks itself.
    assert scorer.checked == [("digest of a", words), ("digest of b", words)]
    world(models=world.models[:1])
    assert len(scorer.checked) == 2


def test_scores_lie_beside_their_pairs(world, tmp_path: Path) -> None:
    world(models=world.models[:1])
    (path,) = (tmp_path / "out" / "dev").glob("scores-*.parquet")
    rows = pq.read_table(path).to_pylist()
    assert [(one["id"], one["chosen_score"], one["rejected_score"]) for one in rows] == [
        ("p1", 3.0, 1.0), ("p2", 2.5, 0.5), ("p3", 1.0, 1.0), ("p4", None, 1.0),
    ]  # fmt: skip
    assert rows[1] | {"context": 0} == {
        "id": "p2", "source": "t", "subset": "", "context": 0, "num_turns": 2, "branch_turn": 1, "reason": "",
        "chosen_score": 2.5, "chosen_tokens": 4, "chosen_characters": 13,
        "rejected_score": 0.5, "rejected_tokens": 4, "rejected_characters": 12,
    }  # fmt: skip
    assert rows[3]["reason"] == "over_length"


def test_another_model_is_added_and_other_pairs_have_scores_of_their_own(world, tmp_path: Path) -> None:
    world(models=world.models[:1])
    world()
    first = {path.name for path in (tmp_path / "out" / "dev").iterdir()}
    assert len([name for name in first if name.startswith("scored-")]) == 2
    write_jsonl(tmp_path / "dev.jsonl", *ROWS[:2])
    world(models=world.models[:1])
    folders = [path.name for path in (tmp_path / "out" / "dev").glob("scored-*")]
    assert len(folders) == 3 and first <= {path.name for path in (tmp_path / "out" / "dev").iterdir()}


def test_one_model_under_two_names_is_refused(world, make_model, monkeypatch, scorer) -> None:
    """Both would write the same file of scores where folders have one name, as a/model and b/model have."""
    other = make_model("c", A)
    monkeypatch.setattr(scorer, "check_model", lambda folder: SimpleNamespace(digest=_content(folder)))
    tools = Tools(scorer.check_model, scorer.check_scoring, scorer.score, hub_rows=lambda *_: iter(()))
    first, second = world.models
    pairs = [str(Path(first).parent / "dev.jsonl")]
    with pytest.raises(
        ConfigError, match=f"--model {other} and --model {first} hold the same model: name different ones"
    ):
        evaluate_models([first, second, other], pairs, str(Path(first).parent / "out"), None, WORDS, tools)
    assert scorer.calls == []


def test_the_engine_and_the_number_of_pairs_can_be_chosen(world, scorer) -> None:
    words = ("score.engine=vllm", "evaluate.max_pairs=2", "seed=5", "evaluate.confidence=0.8")
    result = world(words=words)
    assert scorer.words[0] == words and result["pair_sets"][0]["num_pairs"] == 2
    assert (result["seed"], result["confidence"]) == (5, 0.8)


def test_a_judge_s_verdicts_on_conversations_and_turns(world, tmp_path: Path, scorer) -> None:
    verdicts = write_jsonl(
        tmp_path / "v.jsonl",
        {"id": "p1", "outcome": "chosen"},
        {"id": "p2", "outcome": "rejected"},
        {"id": "p2", "turn": 1, "outcome": "chosen"},
        {"id": "p2", "turn": 2, "outcome": "tie"},
        {"id": "elsewhere", "outcome": "chosen"},
    )
    result = world(models=world.models[:1], verdicts=verdicts)
    found = result["pair_sets"][0]["models"][world.models[0]]["agreement"]
    assert found["whole"]["accuracy"] == 0.5 and found["whole"]["num_decided"] == 2
    assert {turn: one["accuracy"] for turn, one in found["by_turn"].items()} == {"1": 1.0, "2": None}
    # The conversations up to each turn were scored beside the whole ones.
    data = [Path(call[1]) for call in scorer.calls]
    assert [path.parent.name for path in data] == ["dev", "dev-turns"]
    cuts = pq.read_table(data[1]).to_pylist()
    assert [len(row["chosen"]) for row in cuts] == [2, 4] and cuts[0]["rejected"] == messages("q", "bad")


def test_what_is_recorded_of_verdicts(world, tmp_path: Path) -> None:
    rows = [{"id": "p1", "outcome": "chosen"}, {"id": "p1", "outcome": "tie"}, {"id": "p9", "outcome": "tie"}]
    rows += [{"id": "p2", "outcome": "", "status": "error"}]
    result = world(models=world.models[:1], verdicts=write_jsonl(tmp_path / "v.jsonl", *rows))
    assert result["verdicts"] == {
        "place": "…/v.jsonl", "num_verdicts": 2, "on_pairs": 1, "unanswered": 1, "conflicting": 1,
    }  # fmt: skip
    assert world(models=world.models[:1])["verdicts"] is None


def test_neither_credentials_nor_folders_of_the_machine_are_recorded(
    world, tmp_path: Path, monkeypatch
) -> None:
    folder = tmp_path / "home of ada"
    folder.mkdir()
    result = world(models=world.models[:1], pairs=[write_jsonl(folder / "my pairs.jsonl", *ROWS)])
    assert [one["place"] for one in result["pair_sets"]] == ["…/my pairs.jsonl"]
    assert result["models"][0]["folder"] == "…/a"
    assert "home of ada" not in json.dumps(result | {"file": ""})
    for place, shown in (
        ("s3://KEY:SECRET@bucket/pairs.parquet?region=x", "s3://bucket/pairs.parquet"),
        ("~/pairs.jsonl", "…/pairs.jsonl"),
        ("file:///srv/a/pairs/", "…/pairs"),
        ("data/pairs.jsonl", "data/pairs.jsonl"),
        ("owner/name@v1:test", "owner/name@v1:test"),
    ):
        assert public_place(place) == shown


def test_scores_are_found_by_the_model_and_not_by_its_place(
    world, tmp_path: Path, scorer, make_model, monkeypatch
) -> None:
    monkeypatch.setattr(scorer, "check_model", lambda folder: SimpleNamespace(digest=_content(folder)))
    tools = Tools(scorer.check_model, scorer.check_scoring, scorer.score, hub_rows=lambda *_: iter(()))

    def scored_below() -> set[str]:
        evaluate_models([model], ["dev.jsonl"], "out", None, WORDS, tools)
        return {path.name for path in (tmp_path / "out" / "dev").glob("scored-*")}

    monkeypatch.chdir(tmp_path)
    model = "a"
    (first,) = scored_below()
    (tmp_path / "moved").mkdir()
    (tmp_path / "a").rename(tmp_path / "moved" / "a")
    model = str(tmp_path / "moved" / "a")
    assert scored_below() == {first}, "it was moved, and is named otherwise"
    (tmp_path / "moved" / "a" / "scores.json").write_text(json.dumps(B))
    assert len(scored_below()) == 2, "it was trained anew in the same place"


def _content(folder: str) -> str:
    return hashlib.sha256((Path(folder) / "scores.json").read_bytes()).hexdigest()[:16]


def test_verdicts_on_other_pairs_are_refused(world, tmp_path: Path, scorer) -> None:
    verdicts = write_jsonl(tmp_path / "v.jsonl", {"id": "p9", "outcome": "chosen"})
    with pytest.raises(InputError, match=r"none of the 1 verdicts of .*v\.jsonl is on a pair of the sets"):
        world(verdicts=verdicts)
    assert scorer.calls == []


def test_rewardbench_is_put_together_from_all_sets(world, tmp_path: Path) -> None:
    def rows(section):
        return [
            {
                "id": f"{name}-{at}",
                "subset": name,
                "prompt": f"{name} {at}",
                "chosen": "good",
                "rejected": "bad",
            }
            for name, number in SECTIONS[section].items()
            for at in range(number)
        ]

    chat = write_jsonl(tmp_path / "chat.jsonl", *rows("Chat"))
    part = write_jsonl(tmp_path / "part.jsonl", *rows("Chat Hard")[37:])
    plain = write_jsonl(tmp_path / "plain.jsonl", *ROWS)
    result = world(models=world.models[:1], pairs=(chat, plain, part))
    found = result["rewardbench"][world.models[0]]
    assert found["sections"]["Chat"]["score"] == 1.0
    assert found["sections"]["Chat Hard"]["missing"] == ["mt-bench-hard"] and found["average"] is None
    assert found["num_pairs"] == 358 + 456 - 37 and found["unknown"] == {}
    assert [one["name"] for one in result["pair_sets"]] == ["chat", "plain", "part"]
    assert set(result["pair_sets"][0]["models"][world.models[0]]["by_source"]) == set(SECTIONS["Chat"])


def test_all_models_are_looked_at_before_any_scores(world, tmp_path: Path, scorer) -> None:
    (tmp_path / "c").mkdir()
    with pytest.raises(InputError, match="c is no reward model"):
        world(models=(world.models[0], str(tmp_path / "c")))
    assert scorer.calls == []


@pytest.mark.parametrize(
    ("out", "folder"), [("here/there/", "here/there"), (None, "evaluations/dev"), ("x/../y", "y")]
)
def test_where_results_lie(out, folder, world, tmp_path: Path, monkeypatch, make_model, tools) -> None:
    monkeypatch.chdir(tmp_path)
    evaluate_models(world.models[:1], ["dev.jsonl"], out, None, WORDS, tools)
    assert (tmp_path / folder / "evaluation.json").exists()


def test_wrong_settings_of_the_intervals_are_refused(world) -> None:
    with pytest.raises(ConfigError, match=r"evaluate\.confidence"):
        world(words=("evaluate.confidence=2",))
    with pytest.raises(ConfigError, match=r"did you mean evaluate\.confidence\?"):
        world(words=("evaluate.confidense=0.9",))
