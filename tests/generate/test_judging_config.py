"""The judge's section: what its job is configured with, what is refused, and what another judge reruns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from music_ray import preflight
from music_ray.config.load import resolve_config
from music_ray.errors import ConfigError, InputError
from music_ray.generate.judging import job_config
from music_ray.rundir import RunDir

MakeRun = Callable[..., RunDir]
SCRIPTED = {"engine": {"kind": "scripted"}}


def test_the_judges_engine_is_the_jobs_and_no_role_must_fit_it() -> None:
    engine = {"kind": "scripted", "max_model_len": 200, "model": "small", "gpus_per_engine": 2}
    config = resolve_config(
        {
            "name": "x",
            "seed": 5,
            "assistant": {"sampling": {"max_tokens": 3000}},
            "pairs": {"judge": {"engine": engine, "sampling": {"max_tokens": 100}}},
            "generate": {"turns": 2, "flush_rows": 3},
            "limits": {"max_cost": 3},
            "costs": {"cpu_hour": 1, "gpu_hour": 2},
        }
    )
    job = type(config).model_validate_json(job_config(config).model_dump_json())
    assert job.engine == config.pairs.judge.engine
    assert (job.name, job.seed, job.runs_dir, job.generate, job.pairs) == (
        "x", 5, config.runs_dir, config.generate, config.pairs,
    )  # fmt: skip


def test_one_sampling_key_keeps_the_judges_other_defaults() -> None:
    sampling = resolve_config(
        {"name": "x", "pairs": {"judge": {"sampling": {"max_tokens": 9}}}}
    ).pairs.judge.sampling
    assert (sampling.temperature, sampling.top_p, sampling.max_tokens) == (0.0, 1.0, 9)


def test_a_cap_on_money_needs_the_judges_prices_too() -> None:
    values: dict[str, Any] = {
        "name": "x",
        "limits": {"max_cost": 3},
        "costs": {"cpu_hour": 1},
        "pairs": {"judge": {"engine": {"kind": "scripted", "gpus_per_engine": 1}}},
    }
    with pytest.raises(
        ConfigError, match=r"limits\.max_cost \(3\) can't be watched without the price of a GPU"
    ):
        resolve_config(values)
    values["pairs"]["gates"] = {"judge_disagrees": False}
    resolve_config(values)


def test_what_an_engine_cannot_be_is_refused_under_its_own_name() -> None:
    engine = {"kind": "scripted", "min_engines": 2}
    with pytest.raises(ConfigError, match=r"pairs\.judge\.engine\.min_engines \(2\) exceeds pairs\.judge"):
        resolve_config({"name": "x", "pairs": {"judge": {"engine": engine}}})
    small = {"kind": "scripted", "max_model_len": 512}
    with pytest.raises(ConfigError, match=r"reply of 512 tokens does not fit pairs\.judge\.engine\."):
        resolve_config({"name": "x", "pairs": {"judge": {"engine": small}}})


@pytest.mark.parametrize(
    "pairs",
    [
        {"judge": SCRIPTED},
        {"judge": {"require": "wins"}},
        {"judge": {"sampling": {"max_tokens": 9}}},
        {"gates": {"judge_disagrees": False}},
    ],
)
def test_another_judge_makes_the_pairs_stage_alone_out_of_date(make_run: MakeRun, pairs: Any) -> None:
    before, after = make_run(), make_run(pairs=pairs)
    stages = ("seeds", "generate", "pairs", "mix", "train", "evaluate")
    assert [one for one in stages if before.fingerprint(one) != after.fingerprint(one)] == ["pairs"]
    urls = (
        make_run(
            pairs={"judge": {"engine": {"kind": "endpoint", "endpoint": {"base_url": f"http://{host}/v1"}}}}
        )
        for host in ("a", "b")
    )
    assert len({run.fingerprint("pairs") for run in urls}) == 1, "where a model is served decides nothing"


def test_a_judge_that_does_not_answer_is_found_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    where = {"base_url": "https://judge.invalid/v1", "api_key_env": "JUDGE_KEY"}
    engine = {"kind": "endpoint", "model": "m", "endpoint": where}

    def check(*stages: str, **gates: bool) -> None:
        config = {"name": "x", "runs_dir": "/tmp", "pairs": {"judge": {"engine": engine}, "gates": gates}}
        preflight.check(resolve_config(config), stages)

    with pytest.raises(InputError, match="JUDGE_KEY"):
        check("pairs")
    check("mix")
    check("pairs", judge_disagrees=False)
    engine = {"kind": "vllm", "model": "./no-such-model"}
    with pytest.raises(InputError, match="no-such-model"):
        check("pairs")
