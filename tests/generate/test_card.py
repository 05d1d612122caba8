"""The dataset card: what it counts, what it may not tell, and what the hub reads of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from music_ray.config import RunConfig
from music_ray.config.load import resolve_config
from music_ray.generate.card import CardFacts, dataset_card
from music_ray.generate.card_sections import find_section, with_licences
from music_ray.generate.licences import licence_records, licences_of, row_licence
from music_ray.generate.pairs import music_pair
from music_ray.markdown import code, fenced
from music_ray.public import public_configuration, without_places
from music_ray.schema import Call, Rollout, Writer

MakeRollout = Callable[..., Rollout]
MakeCall = Callable[..., Call]


def config_of(**sections: Any) -> RunConfig:
    return resolve_config({"name": "run", **sections})


def front_of(card: str) -> dict[str, Any]:
    return yaml.safe_load(card.split("---\n", 2)[1])


def card_of(config: RunConfig, *rollouts: Rollout, records: list[dict[str, Any]] | None = None) -> str:
    facts = CardFacts(licence_records=records)
    for rollout in rollouts:
        facts.count_rollout(rollout)
        facts.count_pair(asdict(music_pair(rollout)))
    return dataset_card(config, facts, len(rollouts), {})


# -- who wrote it, and what it took ----------------------------------------------------------------


def test_who_wrote_what_stands_by_role_with_sampling(make_rollout: MakeRollout) -> None:
    assistant = Writer("assistant", "vllm 0.32.0", "big", "abc123", '{"temperature":0.7}')
    user = Writer("user", "vllm 0.32.0", "small", "", '{"temperature":0.8}')
    other = replace(user, model="other")
    card = card_of(
        config_of(),
        make_rollout(1, writers=[assistant, user]),
        make_rollout(2, writers=[assistant, user]),
        make_rollout(3, writers=[assistant, other]),
    )
    assert (
        "| Role | Model | Revision | Engine | Sampling | Rollouts |\n|---|---|---|---|---|---|\n"
        '| assistant | `big` | `abc123` | `vllm 0.32.0` | `{"temperature":0.7}` | 3 |\n'
        '| user | `other` | – | `vllm 0.32.0` | `{"temperature":0.8}` | 1 |\n'
        '| user | `small` | – | `vllm 0.32.0` | `{"temperature":0.8}` | 2 |\n'
    ) in card


def test_rollouts_of_version_1_say_what_they_know(make_rollout: MakeRollout) -> None:
    card = card_of(config_of(), make_rollout(1, model_revision="r1"))
    assert "- `a-model`, revision `r1` on the engine `scripted`: 1 rollouts" in card
    assert "| Role | Model |" not in card and "## What it took" not in card


def test_tokens_and_seconds_are_summed_over_all_rollouts(
    make_rollout: MakeRollout, make_call: MakeCall
) -> None:
    facts = CardFacts()
    reply = replace(make_call(1), prompt_tokens=100, cached_tokens=60, completion_tokens=20, seconds=1.5)
    question = replace(make_call(1, role="user"), prompt_tokens=7, cached_tokens=0, completion_tokens=3)
    facts.count_rollout(make_rollout(1, calls=[reply, question, reply]))
    facts.count_rollout(make_rollout(2, status="error", reason="empty_reply", calls=[reply]))
    card = dataset_card(config_of(), facts, 2, {"empty_reply": 1})
    assert "| assistant | 3 | 300 | 180 | 60 | 4 |" in card
    assert "| user | 1 | 7 | 0 | 3 | – |" in card  # files of version 1 hold no seconds
    assert "| `empty_reply` | 1 |" in card
    assert "Of 2 rollouts 0 passed the quality gates. That is 0.0%." in card


def test_the_card_says_which_version_how_to_load_and_what_it_is_not_for(make_rollout: MakeRollout) -> None:
    card = card_of(config_of(), make_rollout(1))
    assert "schema version 3." in card
    assert 'datasets.load_dataset("parquet", data_dir="THIS FOLDER")' in card
    heads = [line for line in card.splitlines() if line.startswith("## ")]
    assert heads == [
        "## How it was made", "## Sources and licence", "## Fields", "## An example", "## How to load it",
        "## Intended use", "## Limits", "## Configuration",
    ]  # fmt: skip


# -- the configuration that made it ----------------------------------------------------------------


def test_the_configuration_is_there_without_credentials_machines_and_names_of_people(
    make_rollout: MakeRollout,
) -> None:
    config = config_of(
        runs_dir="s3://KEY:SECRET@bucket/runs?endpoint_override=inside.example",
        ray={"address": "ray://head.inside.example:10001"},
        data={
            "sources": [
                {"path": "/home/alice/private/pairs.jsonl"},
                {"path": "s3://KEY:SECRET@bucket/pairs.parquet?region=x"},
                {"hub": "Skywork/Skywork-Reward-Preference-80K-v0.2"},
            ]
        },
        engine={"model": "/mnt/models/gemma"},
        generate={"turns": 3},
    )
    writer = Writer("assistant", "vllm", "/mnt/models/gemma", "", "{}")
    card = card_of(config, make_rollout(1, writers=[writer]))
    for secret in ("KEY", "SECRET", "alice", "inside.example", "/mnt", "region="):
        assert secret not in card
    values = yaml.safe_load(find_section(card, "## Configuration").split("```")[1].removeprefix("yaml"))
    assert values == public_configuration(config)
    assert [source["path"] for source in values["data"]["sources"]] == [
        "…/pairs.jsonl", "s3://bucket/pairs.parquet", None,
    ]  # fmt: skip
    assert values["data"]["sources"][2]["hub"] == "Skywork/Skywork-Reward-Preference-80K-v0.2"
    assert (values["engine"]["model"], values["generate"]["turns"]) == ("…/gemma", 3)
    assert not {"ray", "plan", "train", "runs_dir"} & set(values)
    assert "| assistant | `…/gemma` |" in card


@pytest.mark.parametrize(
    "text, shown",
    [
        ("google/gemma-2-9b-it", "google/gemma-2-9b-it"),
        ("data/pairs.jsonl", "data/pairs.jsonl"),
        ("/no_think", "/no_think"),
        ("Yes or no? See https://example.org/a?b=c now.", "Yes or no? See https://example.org/a now."),
        ("~/data/x.parquet", "…/x.parquet"),
        ("file:///home/alice/x.parquet", "…/x.parquet"),
        ("gs://user:pass@bucket/x/", "gs://bucket/x/"),
        ("", ""),
    ],
)  # fmt: skip
def test_places_are_taken_out_and_other_text_is_left(text: str, shown: str) -> None:
    assert without_places(text) == shown


# -- licences --------------------------------------------------------------------------------------


def test_one_licence_of_all_sources_is_the_cards(make_rollout: MakeRollout) -> None:
    data = {"sources": [{"path": "a.jsonl", "licence": "ODC-By"}, {"path": "b.jsonl", "licence": "odc-by"}]}
    card = card_of(config_of(data=data), make_rollout(1, source="a"), make_rollout(2, source="b"))
    assert front_of(card)["license"] == "odc-by" and "license_name" not in front_of(card)
    assert "| `a` | 1 | `ODC-By` |" in card
    assert "marked `unknown`" not in card


def test_licences_that_differ_or_that_the_hub_does_not_know_are_other(make_rollout: MakeRollout) -> None:
    data = {
        "sources": [{"path": "a.jsonl", "licence": "mit"}, {"path": "b.jsonl", "licence": "House rules 1"}]
    }
    one, two = make_rollout(1, source="a"), make_rollout(2, source="b")
    front = front_of(card_of(config_of(data=data), one, two))
    assert (front["license"], front["license_name"]) == ("other", "several")
    front = front_of(card_of(config_of(data=data), two))
    assert (front["license"], front["license_name"]) == ("other", "house-rules-1")
    assert front_of(card_of(config_of(data=data), one))["license"] == "mit"


def test_a_source_without_a_licence_makes_the_card_unknown(make_rollout: MakeRollout) -> None:
    data = {"sources": [{"path": "a.jsonl", "licence": "mit"}, {"path": "b.jsonl"}]}
    card = card_of(config_of(data=data), make_rollout(1, source="a"), make_rollout(2, source="b"))
    assert front_of(card)["license"] == "unknown"
    assert "| `b` | 1 | unknown |" in card and "the licence is marked `unknown`" in card


def test_a_rows_own_licence_goes_before_the_configurations() -> None:
    config = config_of(data={"sources": [{"path": "a.jsonl", "licence": "mit"}, {"path": "b.jsonl"}]})
    counts = Counter(
        {("ultra", 0, ""): 3, ("ultra", 0, "cc-by-4.0"): 2, ("ultra", 1, ""): 1, ("x", 1, "isc"): 1}
    )
    licences = licences_of(config, licence_records(counts))
    assert licences.of("ultra") == ["cc-by-4.0", "mit", "unknown"]
    assert licences.of("x") == ["isc"]
    assert licences.of("never seen") == ["unknown"]
    assert licences.unknown(["x", "ultra", "never seen"]) == ["never seen", "ultra"]


def test_a_folder_of_an_older_music_ray_goes_by_the_configuration_alone() -> None:
    config = config_of(data={"sources": [{"path": "a.jsonl", "licence": "mit"}, {"path": "sample"}]})
    licences = licences_of(config, None)
    assert licences.of("a") == ["mit"] and licences.of("sample") == ["apache-2.0"]
    assert licences.of("a row's own word") == ["apache-2.0", "mit"]
    assert licences_of(config_of(), None).of("tests") == ["unknown"]


def test_what_counts_as_a_rows_licence() -> None:
    assert row_licence({"license": " CC  BY 4.0 "}) == "CC BY 4.0"
    assert row_licence({"licence": "", "license": "mit"}) == "mit"
    assert row_licence({"license": ["mit"]}) == row_licence({}) == ""
    assert row_licence({"license": "\ud800"}) == "?" and len(row_licence({"license": "x" * 999})) == 100


def test_the_seeds_stage_counts_what_rows_say(make_run, write_jsonl, tmp_path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from music_ray.generate.seeds import run_seeds

    rows = [
        {
            "prompt": f"{n}?",
            "chosen": "a",
            "rejected": "b",
            "source": "s",
            **({"license": "isc"} if n else {}),
        }
        for n in range(3)
    ]
    pq.write_table(pa.Table.from_pylist(rows[::-1]), tmp_path / "b.parquet")
    other = {"prompt": "x?", "chosen": "a", "rejected": "b", "licence": "mit"}
    run = make_run(
        data={
            "sources": [
                {"path": write_jsonl(other, other, name="a.jsonl")},
                {"path": str(tmp_path / "b.parquet")},
            ],
            "held_out_fraction": 0.0,
        }
    )
    assert sorted(run_seeds(run)["licences"], key=str) == [
        {"source": "a", "read_from": 0, "licence": "mit", "pairs": 1},
        {"source": "s", "read_from": 1, "licence": "", "pairs": 1},
        {"source": "s", "read_from": 1, "licence": "isc", "pairs": 2},
    ]


def test_licences_named_later_come_into_a_card_that_is_there(make_rollout: MakeRollout) -> None:
    rollouts = [
        make_rollout(1, source="a"),
        make_rollout(2, source="a", chosen=["## Sources and licence\n", "b", "c"]),
    ]
    before = config_of(data={"sources": [{"path": "a.jsonl"}]})
    later = config_of(data={"sources": [{"path": "a.jsonl", "licence": "mit"}]})
    card = with_licences(card_of(before, *rollouts), Counter({"a": 2}), licences_of(later, None))
    assert card == card_of(later, *rollouts)
    assert with_licences("# no card of ours\n", Counter(), licences_of(later, None)) == "# no card of ours\n"


# -- text of others --------------------------------------------------------------------------------


@given(st.text(alphabet=st.sampled_from("`|\n# -ab"), max_size=40))
def test_text_of_others_stays_in_its_fence_and_its_cell(text: str) -> None:
    opening, *inside, closing = fenced(text).split("\n")
    assert "\n".join(inside) == text
    assert opening == closing + "text" and not any(closing in line for line in inside)
    cell = code(text)
    assert "\n" not in cell and cell.count("`") in (0, 2) and "|" not in cell.replace("\\|", "")


def test_hundreds_of_sources_do_not_flood_the_card(make_rollout: MakeRollout) -> None:
    facts = CardFacts(sources=Counter({f"s{number:03d}": 1 for number in range(120)} | {"big": 9}))
    card = dataset_card(config_of(), facts, 1, {})
    assert "71 smaller sources are not listed." in card and "| `big` | 9 | unknown |" in card
