"""What a job could not do on another machine is refused here."""

from pathlib import Path

import pytest

from music_ray.errors import ConfigError, InputError
from music_ray.submit.checks import check_files, check_place, path_inside
from music_ray.submit.package import find_package
from tests.submit.conftest import config_of


@pytest.mark.parametrize("runs_dir", ["s3://bucket/runs", "/shared/runs", "file:///shared/runs"])
def test_lasting_places_pass(runs_dir) -> None:
    check_place(config_of(runs_dir=runs_dir), [f"runs_dir={runs_dir}"])


@pytest.mark.parametrize(
    ("values", "words", "message"),
    [
        ({"runs_dir": "runs"}, [], "runs_dir (runs) is relative: a job works in a temporary copy of the"),
        ({"runs_dir": "./x"}, [], "runs_dir (./x) is relative: a job works"),
        ({"runs_dir": "~/runs"}, [], "runs_dir (~/runs) is another folder for every user and machine: "),
        ({"ray": {"address": "10.0.0.1:6379"}}, [], "ray.address (10.0.0.1:6379) would lead the job away"),
        ({"runs_dir": "s3://KEY:SECRET@bucket/runs"}, [], "runs_dir holds credentials: Ray shows a job's"),
        ({}, ["data.sources=[{path: 's3://KEY:SECRET@b/x'}]"], "data.sources holds credentials: Ray"),
        (
            {"best_of_n": {"prompts": "s3://KEY:SECRET@b/x"}}, [],
            "best_of_n.prompts holds credentials: Ray shows a job's",
        ),
    ],
)  # fmt: skip
def test_a_run_that_would_be_lost_or_tell_secrets(values, words, message) -> None:
    with pytest.raises(ConfigError) as caught:
        check_place(config_of(**values), words)
    assert str(caught.value).startswith(message)
    assert "SECRET" not in str(caught.value)


def test_the_clusters_own_address_is_none_that_leads_away() -> None:
    check_place(config_of(ray={"address": "auto"}), [])


def test_the_configuration_must_lie_in_the_working_directory(checkout: Path, tmp_path: Path) -> None:
    assert path_inside(checkout, "configs/a.yaml") == "configs/a.yaml"
    assert path_inside(checkout, f"{checkout}/configs/../configs/a.yaml") == "configs/a.yaml"
    (tmp_path / "link").symlink_to(checkout)
    assert path_inside(checkout, f"{tmp_path}/link/configs/a.yaml") == "configs/a.yaml"
    for outside in ("../a.yaml", str(tmp_path / "a.yaml"), "/etc/a.yaml"):
        with pytest.raises(
            ConfigError, match=rf"^{outside} lies outside of the working directory {checkout}, of"
        ):
            path_inside(checkout, outside)


def check(checkout: Path, config_file="configs/a.yaml", **values) -> None:
    check_files(config_of(**values), config_file, find_package(checkout))


def sources(*paths):
    return {"data": {"sources": [{"path": path} for path in paths]}}


def test_files_that_are_sent_or_lie_elsewhere_pass(checkout: Path) -> None:
    check(checkout, **sources("data/pairs.jsonl", "data", "./data/pairs.jsonl", "sample"))
    check(checkout, **sources("s3://bucket/x.parquet", "/shared/x.parquet", "~/x.parquet"))
    check(checkout, data={"sources": [{"hub": "a/b"}]})
    check(checkout, engine={"model": "google/gemma-2-9b-it"}, train={"base_model": "/shared/model"})


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("data/none.jsonl", InputError, "no file or folder at data/none.jsonl: correct data.sources"),
        ("data/big.parquet", ConfigError, "data.sources names data/big.parquet, which is not sent with "),
        ("runs/a", ConfigError, "data.sources names runs/a, which is not sent with the job: "),
        ("../other.jsonl", ConfigError, "data.sources names ../other.jsonl, outside of the working "),
    ],
)  # fmt: skip
def test_a_source_that_would_not_be_there(checkout: Path, path, error, message) -> None:
    (checkout.parent / "other.jsonl").write_text("{}")
    with pytest.raises(error) as caught:
        check(checkout, **sources(path))
    assert str(caught.value).startswith(message)


def test_a_configuration_that_git_ignores(checkout: Path) -> None:
    (checkout / "private/a.yaml").write_text("name: a")
    with pytest.raises(
        ConfigError, match=r"^the configuration names private/a.yaml, which is not sent with the"
    ):
        check(checkout, "private/a.yaml")


def test_templates_functions_evaluation_sets_and_models_too(checkout: Path) -> None:
    (checkout / "src/good.j2").write_text("<modified_instruction> <reply> {{ message }}")
    (checkout / "private/good.j2").write_text("<modified_instruction> <reply> {{ message }}")
    (checkout / "private_gates.py").write_text("def polite(pair): return None")
    (checkout / "private/model").mkdir()
    check(checkout, contrast={"template": "src/good.j2"})
    with pytest.raises(ConfigError, match=r"^contrast.template names private/good.j2, which is not sent"):
        check(checkout, contrast={"template": "private/good.j2"})
    gates = {"eval_overlap": True, "eval_sets": [{"path": "data/big.parquet", "columns": ["x"]}]}
    with pytest.raises(
        ConfigError, match=r"^pairs.gates.eval_sets names data/big.parquet, which is not sent"
    ):
        check(checkout, pairs={"gates": gates})
    check(checkout, pairs={"gates": {**gates, "eval_overlap": False}})
    with pytest.raises(ConfigError, match=r"^engine.model names private/model, which is not sent"):
        check(checkout, engine={"model": "private/model"})
    with pytest.raises(ConfigError, match=r"^train.base_model names \./nothing, which is not sent"):
        check(checkout, train={"base_model": "./nothing"})
    plugin = {"gates": {"plugins": ["private_gates:polite"]}}
    check(checkout, pairs=plugin)
    (checkout / ".rayignore").write_text("private_gates.py\n")
    with pytest.raises(
        ConfigError, match=r"^pairs.gates.plugins \(private_gates:polite\) names private_gates.py,"
    ):
        check(checkout, pairs=plugin)
