"""Reading a configuration: YAML, overrides, and what is said about mistakes."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from music_ray.config import RunConfig
from music_ray.config.load import (
    all_keys,
    apply_overrides,
    config_for_file,
    dump_config,
    load_config,
    parse_yaml,
    resolve_config,
)
from music_ray.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


def refusal(*overrides: str, **values: Any) -> str:
    """The message with which a configuration is refused."""
    with pytest.raises(ConfigError) as caught:
        resolve_config(apply_overrides({"name": "x", **values}, overrides))
    return str(caught.value)


def read(tmp_path: Path, text: str | bytes) -> RunConfig:
    path = tmp_path / "run.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_config(path)


# -- the shipped files -----------------------------------------------------------------------------


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_shipped_config_loads_and_reads_back_as_it_was(path: Path, tmp_path: Path) -> None:
    config = load_config(path)
    assert config.name == path.stem
    assert read(tmp_path, dump_config(config)) == config


def test_the_shipped_configs_are_there() -> None:
    assert {"demo.yaml", "gemma2-9b.yaml", "single-gpu.yaml"} <= {path.name for path in CONFIGS}


def test_gemma2_9b_holds_the_papers_values() -> None:
    config = load_config(ROOT / "configs" / "gemma2-9b.yaml")
    assert [source.hub for source in config.data.sources] == ["Skywork/Skywork-Reward-Preference-80K-v0.2"]
    assert config.engine.model == config.train.base_model == "google/gemma-2-9b-it"
    assert config.generate.turns == 5
    assert config.seeds.max_tokens == 512
    assert config.seeds.num_seeds == 36_000
    assert (config.user.sampling.max_tokens, config.assistant.sampling.max_tokens) == (64, 224)
    train = config.train
    assert (train.steps, train.pairs_per_step, train.learning_rate) == (2500, 64, 2e-6)
    assert (train.max_tokens, train.precision, train.use_gpu, train.lora) == (2048, "bfloat16", True, None)
    assert config.mix.include_preferences and config.mix.include_music
    # A rollout that fills every budget must fit the reward model without being cut.
    longest = 512 + 5 * 224 + 4 * 64
    assert longest == 1888 < train.max_tokens


def test_single_gpu_trains_adapters_on_one_card() -> None:
    config = load_config(ROOT / "configs" / "single-gpu.yaml")
    assert config.engine.model == config.train.base_model == "google/gemma-2-2b-it"
    assert config.engine.gpus_per_engine == config.train.num_workers == config.engine.max_engines == 1
    assert config.train.lora is not None and config.train.lora.rank == 16


def test_the_demo_stays_within_the_issues_bounds() -> None:
    config = load_config(ROOT / "configs" / "demo.yaml")
    assert config.seeds.num_seeds == 40
    assert config.generate.turns >= 2
    assert config.train.steps <= 8 and config.train.max_tokens <= 384
    assert config.user.mode == "template"
    assert config.contrast.mode in ("neighbour", "resample")


# -- files that cannot be used ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "{path} holds no sections: it must be a mapping such as 'name: demo'"),
        (b"- name: x\n", "{path} holds no sections: it must be a mapping such as 'name: demo'"),
        (b"plain words\n", "{path} holds no sections: it must be a mapping such as 'name: demo'"),
        (b"name: caf\xe9\n", "{path} is not UTF-8 (byte 9): save it as UTF-8"),
        (
            b"name: x\ntrain: {steps: 1}\ntrain: {steps: 2}\n",
            '{path} is not valid YAML: train stands twice in "<unicode string>", line 3, column 1: '
            "train: {steps: 2} ^",
        ),
    ],
    ids=["empty", "list", "scalar", "not UTF-8", "twice the same section"],
)
def test_a_file_that_is_no_config_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, content)
    assert str(caught.value) == message.replace("{path}", str(tmp_path / "run.yaml"))


def test_broken_yaml_names_file_and_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"run\.yaml is not valid YAML: .* line 2, column 1"):
        read(tmp_path, "name: [x\n")


def test_yaml_tags_build_no_objects(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="could not determine a constructor for the tag"):
        read(tmp_path, "name: !!python/object/apply:os.getcwd []\n")


def test_a_missing_file_a_folder_and_a_path_through_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "none.yaml")
    assert str(caught.value) == (
        f"no configuration file at {tmp_path}/none.yaml: name a YAML file, e.g. configs/demo.yaml"
    )
    with pytest.raises(ConfigError, match=r"cannot read .*: Is a directory"):
        load_config(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot read .*: Not a directory"):
        load_config(tmp_path / "file" / "x.yaml")


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    assert read(tmp_path, b"\xef\xbb\xbfname: x\n").name == "x"


def test_a_date_is_a_name(tmp_path: Path) -> None:
    assert read(tmp_path, "name: 2026-11-05\n").name == "2026-11-05"
    assert resolve_config(apply_overrides({}, ["name=2026-13-45"])).name == "2026-13-45"


# -- unknown keys ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "key", "nearest"),
    [
        ("generate.trns=3", "generate.trns", "generate.turns"),
        ("turns=3", "turns", "generate.turns"),
        ("train.turns=3", "train.turns", "generate.turns"),
        ("nmae=y", "nmae", "name"),
        ("train.lr=1", "train.lr", "train.lora"),
        ("train.learningrate=1", "train.learningrate", "train.learning_rate"),
        ("train.lora.rnk=1", "train.lora.rnk", "train.lora.rank"),
        ("user.sampling.temprature=1", "user.sampling.temprature", "user.sampling.temperature"),
        ("data.sources=[{pth: x}]", "data.sources.0.pth", "data.sources.path"),
        ("pairs.gates.loopng=true", "pairs.gates.loopng", "pairs.gates.looping"),
    ],
)
def test_an_unknown_key_names_the_nearest(override: str, key: str, nearest: str) -> None:
    assert refusal(override) == f"unknown key {key}: did you mean {nearest}?"


IN_LIST = re.compile(r"\b(sources|eval_sets)\.")
"""Keys of entries of lists, which can't be given alone."""


def test_a_key_like_no_other_gets_no_advice() -> None:
    assert refusal("xqzw=1") == "unknown key xqzw"


@pytest.mark.parametrize("key", [key for key in all_keys() if "." in key and not IN_LIST.search(key)])
def test_a_letter_left_out_is_found_again(key: str) -> None:
    section, _, last = key.rpartition(".")
    typo = f"{section}.{last[:-2]}{last[-1]}"
    if typo in set(all_keys()):
        pytest.skip(f"{typo} is a key itself")
    # A section with keys that must be set says what is missing, too.
    assert f"unknown key {typo}: did you mean {section}." in refusal(f"{typo}=1")


def test_all_mistakes_are_told_at_once() -> None:
    assert refusal("generate.turns=0", "train.steps=x", "seeds.ct=prompt").splitlines() == [
        "unknown key seeds.ct: did you mean seeds.cut?",
        "generate.turns is 0: input should be greater than or equal to 1",
        "train.steps is 'x': input should be a valid integer, unable to parse string as an integer",
    ]


# -- wrong values ----------------------------------------------------------------------------------

NUMBER = "it must be a number, not true or false"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("generate.turns=true", f"generate.turns is true: {NUMBER}"),
        ("seeds.num_seeds=true", f"seeds.num_seeds is true: {NUMBER}"),
        ("train.learning_rate=false", f"train.learning_rate is false: {NUMBER}"),
        ("plan.train=yes", f"plan.train is true: {NUMBER}"),
        ("train.adam_betas=[true, 0.9]", f"train.adam_betas is [True, 0.9]: {NUMBER}"),
        ("generate.turns=", "generate.turns is empty: input should be a valid integer"),
        ("generate.turns=65", "generate.turns is 65: input should be less than or equal to 64"),
        (
            "generate.turns=2.5",
            "generate.turns is 2.5: input should be a valid integer, got a number with a fractional part",
        ),
        ("train.learning_rate=.inf", "train.learning_rate is inf: input should be a finite number"),
        ("train.gradient_clipping=.nan", "train.gradient_clipping is nan: input should be a finite number"),
        ("train.adam_betas=[0.9, 1.0]", "train.adam_betas.1 is 1.0: input should be less than 1"),
        ("data.held_out_fraction=1", "data.held_out_fraction is 1: input should be less than 1"),
        ("data.system=keep", "data.system is 'keep': input should be 'fold' or 'set_aside'"),
        ("train=null", "train is empty: it must be a section with keys of its own"),
        ("train=3", "train is 3: it must be a section with keys of its own"),
        ("train.lora={rank: 0}", "train.lora.rank is 0: input should be greater than or equal to 1"),
        (
            "train.lora={target_modules: []}",
            "train.lora.target_modules is []: list should have at least 1 item after validation, not 0",
        ),
        ("runs_dir=''", "runs_dir is '': string should have at least 1 character"),
        (
            "data.sources=[{}]",
            "data.sources.0: a source needs exactly one of `path` (files) and `hub` (a dataset id)",
        ),
        (
            "data.sources=[{path: a, hub: b}]",
            "data.sources.0: a source needs exactly one of `path` (files) and `hub` (a dataset id)",
        ),
    ],
)
def test_a_wrong_value_is_named_with_its_bound(override: str, message: str) -> None:
    assert refusal(override) == message


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "a b", "é", "x" * 101, "x\n"])
def test_a_name_must_be_a_plain_folder_name(name: str) -> None:
    assert refusal(name=name) == (
        f"name: name {name!r} must be 1 to 100 letters, digits, '.', '_' or '-': it names a folder"
    )


def test_the_name_is_required() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_config({})
    assert str(caught.value) == "name is missing: the configuration must set it"


def test_a_long_value_is_shortened_in_the_message() -> None:
    message = refusal(f"train.precision={'z' * 500}")
    assert message == f"train.precision is '{'z' * 79}…: input should be 'float32' or 'bfloat16'"


# -- overrides -------------------------------------------------------------------------------------


def test_overrides_are_yaml_and_the_last_one_counts() -> None:
    words = [
        "generate.turns=3",
        "generate.turns=4",
        "train.learning_rate=3e-6",
        "train.adam_betas=[0.8, 0.9]",
        "train.lora.rank=8",
        "seeds.num_seeds=null",
        "assistant.hint='a = b'",
        "data.sources=[{path: a.parquet}, {hub: b/c}]",
        "mix.include_music=off",
    ]
    config = resolve_config(apply_overrides({"name": "x", "seeds": {"num_seeds": 5}}, words))
    assert config.generate.turns == 4
    assert config.train.learning_rate == 3e-6
    assert config.train.adam_betas == (0.8, 0.9)
    assert config.train.lora is not None and (config.train.lora.rank, config.train.lora.alpha) == (8, 32.0)
    assert config.seeds.num_seeds is None
    assert config.assistant.hint == "a = b"
    assert [source.path or source.hub for source in config.data.sources] == ["a.parquet", "b/c"]
    assert not config.mix.include_music


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("foo", "override 'foo' is not of the form key.path=value"),
        ("=3", "override '=3' is not of the form key.path=value"),
        ("generate.turns=[1", "the value of override 'generate.turns=[1' is not valid YAML: quote it"),
        ("name.first=y", "name.first is no configuration key: name holds a plain value, not a section"),
        (
            "data.sources.0.path=y",
            "data.sources.0.path is no configuration key: sources holds a list: give it whole, in brackets",
        ),
    ],
)
def test_a_word_that_is_no_override_is_refused(word: str, message: str) -> None:
    assert refusal(word, data={"sources": [{"path": "x"}]}) == message


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
VALUES = st.fixed_dictionaries(
    {"name": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)},
    optional={
        "runs_dir": TEXT.filter(bool),
        "seed": st.integers(0, 2**63),
        "assistant": st.fixed_dictionaries({"hint": st.none() | TEXT}),
        "generate": st.fixed_dictionaries({"turns": st.integers(1, 64)}),
        "data": st.fixed_dictionaries(
            {
                "sources": st.lists(
                    st.fixed_dictionaries({"path": TEXT, "name": st.none() | TEXT}), max_size=3
                ),
                "held_out_fraction": st.floats(0, 1, exclude_max=True),
            }
        ),
        "train": st.fixed_dictionaries(
            {
                "learning_rate": st.floats(0, 1, exclude_min=True),
                "adam_betas": st.lists(st.floats(0, 1, exclude_max=True), min_size=2, max_size=2),
                "lora": st.none() | st.fixed_dictionaries({"rank": st.integers(1, 512)}),
            }
        ),
    },
)


@given(VALUES)
@settings(max_examples=80, deadline=None)
def test_dump_and_load_are_inverse(values: dict[str, Any]) -> None:
    config = resolve_config(values)
    assert resolve_config(parse_yaml(dump_config(config), "dump")) == config
    # And word by word on the command line, where every value is YAML as well.
    words = [
        f"{key}={yaml.safe_dump(value, default_flow_style=True)}"
        for key, value in config.model_dump(mode="json").items()
    ]
    assert resolve_config(apply_overrides({}, words)) == config


def test_importing_the_configuration_loads_nothing_heavy() -> None:
    code = (
        "import sys, music_ray.config.load\n"
        "heavy = {'torch', 'ray', 'vllm', 'deepspeed', 'transformers', 'pyarrow', 'datasets', 'rich'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# -- what a configuration may not hold -------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("runs_dir=s3://KEY:SECRET@bucket/runs", "runs_dir"),
        ("ray.address=ray://me:SECRET@host:10001", "ray.address"),
        ("engine.model=s3://KEY:SECRET@bucket/model", "engine.model"),
        ("train.base_model=s3://KEY:SECRET@bucket/model", "train.base_model"),
        ("data.sources=[{path: 'gs://SECRET@bucket/pairs.parquet'}]", "data.sources.0.path"),
        (
            "pairs.gates.eval_sets=[{columns: [text], path: 's3://KEY:SECRET@bucket/x.jsonl'}]",
            "pairs.gates.eval_sets.0.path",
        ),
        ("best_of_n.prompts=s3://KEY:SECRET@bucket/prompts.jsonl", "best_of_n.prompts"),
        (
            "best_of_n.judge.engine={kind: vllm, model: 's3://KEY:SECRET@bucket/judge'}",
            "best_of_n.judge.engine.model",
        ),
        (
            "pairs.judge.engine={kind: vllm, model: 's3://KEY:SECRET@bucket/judge'}",
            "pairs.judge.engine.model",
        ),
        (
            "user.engine={kind: endpoint, model: m, endpoint: "
            "{base_url: 'http://127.0.0.1:1/v1', tokenizer: 's3://KEY:SECRET@bucket/tokenizer'}}",
            "user.engine.endpoint.tokenizer",
        ),
        ("contrast.template=s3://KEY:SECRET@bucket/contrast.j2", "contrast.template"),
    ],
)
def test_credentials_in_a_uri_are_refused_and_not_repeated(tmp_path: Path, word: str, key: str) -> None:
    (tmp_path / "a.yaml").write_text("name: a\n")
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "a.yaml", [word])
    assert str(caught.value) == (
        f"{key} holds credentials, which would be recorded with the run: take them out of the URI and put "
        "them into the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for s3), or give the machine "
        "a role that may use the store"
    )
    load_config(tmp_path / "a.yaml", ["runs_dir=s3://bucket/runs?region=eu-west-1&scheme=http"])


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("s3://KEY:SECRET@bucket", "override 's3://***@bucket' is not of the form key.path=value"),
        (
            "runs_dir=[s3://KEY:SECRET@bucket",
            "the value of override 'runs_dir=[s3://***@bucket' is not valid YAML: quote it",
        ),
        (
            "seeds.num_seeds=s3://KEY:SECRET@bucket",
            "seeds.num_seeds is 's3://***@bucket': input should be a valid integer, unable to parse string "
            "as an integer",
        ),
        (
            f"seeds.num_seeds=s3://KEY:SECRET{'x' * 90}@bucket",
            "seeds.num_seeds is 's3://***@bucket': input should be a valid integer, unable to parse string "
            "as an integer",
        ),
    ],
)
def test_a_message_about_another_mistake_repeats_no_credentials(
    tmp_path: Path, word: str, message: str
) -> None:
    (tmp_path / "a.yaml").write_text("name: a\n")
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "a.yaml", [word])
    assert str(caught.value) == message


def test_a_data_file_and_a_run_folder_with_credentials_are_refused(tmp_path: Path) -> None:
    from music_ray.run import config_of_run

    for call, argument in (
        (lambda place: config_for_file(place, []), "s3://KEY:planted@bucket/pairs.jsonl"),
        (config_of_run, "s3://KEY:planted@bucket/runs/demo"),
    ):
        with pytest.raises(ConfigError, match=r"holds credentials") as caught:
            call(argument)
        assert "planted" not in str(caught.value)
