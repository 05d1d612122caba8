"""music-ray export: what the rows hold, that datasets loads them, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
import yaml

from music_ray.errors import InputError, StageError
from music_ray.generate import staging
from music_ray.generate.export.write import run_export
from music_ray.rundir import RunDir
from music_ray.schema import PAIR_SCHEMA, SCHEMA_VERSION, Message, Rollout
from tests.generate.finished_pairs import finish_pairs

MakeRun = Callable[..., RunDir]
MakeRollout = Callable[..., Rollout]


@pytest.fixture
def run(make_run: MakeRun, make_rollout: MakeRollout) -> RunDir:
    """Three pairs: parted at the last reply, at the first one, and after a context of three messages."""
    run = make_run()
    late = make_rollout(1)
    early = make_rollout(2, rejected=["Something else at once.", "Why that?", "So."], source="other")
    context: list[Message] = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello to you"},
        {"role": "user", "content": "A prime?"},
    ]
    long = make_rollout(
        3,
        context=context,
        chosen=[],
        rejected=[],
    )
    long = Rollout(**{
        **{name: getattr(long, name) for name in long.__slots__},
        "chosen": [*context, {"role": "assistant", "content": "7"}],
        "rejected": [*context, {"role": "assistant", "content": "A cube is 8."}],
    })  # fmt: skip
    finish_pairs(run, [late, early, long])
    return run


def rows_of(run: RunDir, *folder: str) -> list[dict[str, Any]]:
    return list(run.read_rows(*folder))


def load(folder: str, tmp_path: Path) -> Any:
    import datasets

    cache = str(tmp_path / "cache")
    return datasets.load_dataset("parquet", data_dir=folder, split="train", cache_dir=cache)


# -- sft -------------------------------------------------------------------------------------------


def test_sft_holds_the_chosen_conversations_and_where_the_source_ends(run: RunDir, capsys) -> None:
    done = run_export(run, "sft")
    assert (done.num_pairs, done.num_rows, done.left_out) == (3, 3, {})
    rows = rows_of(run, "export", "sft")
    assert [row["messages"] for row in rows] == [pair["chosen"] for pair in run.read_rows("pairs")]
    assert [row["num_context_messages"] for row in rows] == [1, 1, 3]
    assert rows[0] == {
        "id": "music-1",
        "source": "tests",
        "conversation": 1001,
        "num_turns": 2,
        "num_context_messages": 1,
        "messages": [
            {"role": "user", "content": "Question 1?"},
            {"role": "assistant", "content": "A first answer."},
            {"role": "user", "content": "And then?"},
            {"role": "assistant", "content": "A good answer to 1."},
        ],
    }
    folder = run.display("export", "sft")
    assert capsys.readouterr().out.splitlines() == [
        f"export: 3 rows of 3 pairs in {folder}",
        f'load it with datasets.load_dataset("parquet", data_dir="{folder}")',
    ]


def test_the_rejected_side_has_a_folder_of_its_own(run: RunDir) -> None:
    run_export(run, "sft")
    run_export(run, "sft", side="rejected")
    rejected = [row["messages"][-1]["content"] for row in rows_of(run, "export", "sft-rejected")]
    assert rejected == ["Something else than 1.", "So.", "A cube is 8."]
    assert rows_of(run, "export", "sft")[0]["messages"][-1]["content"] == "A good answer to 1."
    with pytest.raises(InputError, match="--branch rejected is for --format sft"):
        run_export(run, "dpo", side="rejected")


def test_without_the_seeds_the_length_of_the_context_is_empty_and_that_is_said(run: RunDir, capsys) -> None:
    run.clear("seeds")
    run_export(run, "sft")
    assert {row["num_context_messages"] for row in rows_of(run, "export", "sft")} == {None}
    assert "export: num_context_messages is empty in 3 rows" in capsys.readouterr().out


# -- dpo -------------------------------------------------------------------------------------------


def test_dpo_is_the_turn_where_the_sides_part(run: RunDir) -> None:
    run_export(run, "dpo")
    rows = rows_of(run, "export", "dpo")
    assert [len(row["prompt"]) for row in rows] == [3, 1, 3]
    assert rows[1] == {
        "id": "music-2",
        "source": "other",
        "conversation": 1002,
        "branch_turn": 1,
        "prompt": [{"role": "user", "content": "Question 2?"}],
        "chosen": [{"role": "assistant", "content": "A first answer."}],
        "rejected": [{"role": "assistant", "content": "Something else at once."}],
    }


def test_of_every_pair_the_prompt_is_the_common_beginning_and_the_replies_differ(run: RunDir) -> None:
    run_export(run, "dpo")
    pairs = {pair["id"]: pair for pair in run.read_rows("pairs")}
    rows = rows_of(run, "export", "dpo")
    assert {row["id"] for row in rows} == set(pairs)
    for row in rows:
        pair, length = pairs[row["id"]], len(row["prompt"])
        assert row["prompt"] == pair["chosen"][:length] == pair["rejected"][:length]
        assert row["prompt"][-1]["role"] == "user"
        assert row["chosen"] == pair["chosen"][length : length + 1]
        assert row["rejected"] == pair["rejected"][length : length + 1]
        assert row["chosen"] != row["rejected"]


def test_pairs_without_such_a_turn_are_counted_by_reason(
    make_run: MakeRun, make_rollout: MakeRollout, capsys
) -> None:
    run = make_run()
    asks_otherwise = make_rollout(2, rejected=["A first answer.", "Why?", "x"])
    blank = make_rollout(3, rejected=["A first answer.", "And then?", "A good answer to 3. "])
    finish_pairs(run, [make_rollout(1), asks_otherwise, blank])
    done = run_export(run, "dpo")
    assert (done.num_pairs, done.num_rows) == (3, 1)
    assert done.left_out == {"prompts_differ": 1, "same_reply": 1}
    assert "export: 2 pairs have no row: prompts_differ 1, same_reply 1" in capsys.readouterr().out
    assert [row["id"] for row in rows_of(run, "export", "dpo")] == ["music-1"]


# -- the folder ------------------------------------------------------------------------------------


@pytest.mark.parametrize("format, column", [("sft", "messages"), ("dpo", "prompt")])
def test_datasets_reads_the_folder_as_it_is(run: RunDir, tmp_path: Path, format: Any, column: str) -> None:
    import datasets

    run_export(run, format)
    folder = run.path("export", format)
    read = load(folder, tmp_path)
    assert read.num_rows == 3 and read[2][column][0] == {"role": "user", "content": "Hello"}
    assert read.features[column] == datasets.List(
        {"role": datasets.Value("string"), "content": datasets.Value("string")}
    )
    by_card = datasets.load_dataset(folder, cache_dir=str(tmp_path / "cache"))
    assert list(by_card) == ["train"] and by_card["train"]["id"][:] == ["music-1", "music-2", "music-3"]


def test_the_snippet_of_the_card_gives_prompt_and_completion(run: RunDir, tmp_path: Path) -> None:
    run_export(run, "sft")
    card = run.read_text("export", "sft", "README.md")
    call = card.split("    rows = rows.map(\n")[1].split("    )\n")[0]
    rows = load(run.path("export", "sft"), tmp_path)
    rows = eval(f"rows.map({call})", {"rows": rows})
    assert rows[2]["prompt"][-1] == {"role": "user", "content": "A prime?"}
    assert rows[2]["completion"] == [{"role": "assistant", "content": "7"}]
    assert len(rows[0]["prompt"]) == 1 and len(rows[0]["completion"]) == 3


def test_the_card_says_what_it_is_where_it_comes_from_and_who_wrote_it(run: RunDir) -> None:
    run_export(run, "dpo")
    card = run.read_text("export", "dpo", "README.md")
    front = yaml.safe_load(card.split("---\n")[1])
    assert front == {
        "pretty_name": "MUSIC preferences for DPO of the run run",
        "license": "unknown",
        "size_categories": ["n<1K"],
        "tags": ["preference", "dpo", "multi-turn", "synthetic", "music_ray"],
        "configs": [
            {"config_name": "default", "data_files": [{"split": "train", "path": "train-*.parquet"}]}
        ],
    }
    assert "| `other` | 1 | unknown |" in card and "| `tests` | 2 | unknown |" in card
    assert "- `a-model` on the engine `scripted`: 3 rollouts" in card
    assert "`rejected`:\n\n```text\n[assistant]\nSomething else than 1.\n```" in card
    assert "## Configuration" in card


def test_many_rows_go_into_several_files_and_a_smaller_export_takes_them_away(
    run: RunDir, make_rollout: MakeRollout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "ROWS_PER_FILE", 4)
    finish_pairs(run, [make_rollout(number) for number in range(10)])
    run_export(run, "dpo")
    assert [Path(path).name for path in run.parquet_files("export", "dpo")] == [
        f"train-0000{number}-of-00003.parquet" for number in range(3)
    ]
    assert len(rows_of(run, "export", "dpo")) == 10
    finish_pairs(run, [make_rollout(1)])
    run_export(run, "dpo")
    assert [Path(path).name for path in run.parquet_files("export", "dpo")] == [
        "train-00000-of-00001.parquet"
    ]


def test_a_crash_leaves_the_earlier_export(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    run_export(run, "sft")
    folder = Path(run.path("export", "sft"))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def die(self: staging.StagedFolder) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(staging.StagedFolder, "publish", die)
    with pytest.raises(KeyboardInterrupt):
        run_export(run, "sft", side="chosen")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["sft"]


def test_files_say_what_they_are_and_what_they_were_made_from(run: RunDir) -> None:
    run_export(run, "sft")
    metadata = pq.read_schema(run.parquet_files("export", "sft")[0]).metadata
    assert metadata[b"music_ray.schema"] == b"sft"
    assert metadata[b"music_ray.version"] == str(SCHEMA_VERSION).encode()
    assert metadata[b"music_ray.pairs"].decode() == run.manifest()["stages"]["pairs"]["output"]


# -- other places ----------------------------------------------------------------------------------


@pytest.mark.parametrize("out", ["{tmp}/mine/dpo", "{tmp}/mine/dpo/", "file://{tmp}/mine/dpo", "mine/dpo"])
def test_out_is_a_path_or_a_uri(
    run: RunDir, tmp_path: Path, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_export(run, "dpo", out.format(tmp=tmp_path))
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == ["dpo"]
    assert sorted(path.name for path in (tmp_path / "mine" / "dpo").iterdir()) == [
        "README.md",
        "train-00000-of-00001.parquet",
    ]
    assert not run.exists("export")


class KeysAlone(pafs.SubTreeFileSystem):
    """As S3: a key may be written or moved anywhere, and there are no folders to make."""

    def create_dir(self, path: str, *, recursive: bool = True) -> None:
        raise OSError("there are no folders")

    def open_output_stream(self, path: str, *args: Any, **options: Any) -> Any:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        return super().open_output_stream(path, *args, **options)

    def move(self, source: str, target: str) -> None:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        super().move(source, target)


def test_a_run_on_an_object_store_exports_into_it(run: RunDir) -> None:
    run.fs, run.is_local = KeysAlone("/", pafs.LocalFileSystem()), False
    run_export(run, "sft")
    assert len(rows_of(run, "export", "sft")) == 3
    assert run.read_text("export", "sft", "README.md").startswith("---\n")


def test_nothing_but_an_earlier_export_is_replaced(run: RunDir, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / ".DS_Store").write_text("")
    run_export(run, "sft", str(mine))
    run_export(run, "sft", str(mine))
    with pytest.raises(InputError) as error:
        run_export(run, "dpo", str(mine))
    assert str(error.value) == (
        f"{mine}/train-00000-of-00001.parquet holds rows of another kind (sft), and an export as dpo would "
        "replace it: name a new or empty folder with --out"
    )
    before = Path(run.path("pairs", "README.md")).read_text()
    with pytest.raises(InputError, match=r"rows of another kind \(preference_pair\)"):
        run_export(run, "sft", run.path("pairs"))
    assert Path(run.path("pairs", "README.md")).read_text() == before
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "README.md").write_text("mine")
    with pytest.raises(InputError, match=r"project holds README\.md, which is of no export"):
        run_export(run, "sft", str(tmp_path / "project"))
    with pytest.raises(InputError, match=r"README\.md is a file: name a new or empty folder"):
        run_export(run, "sft", str(tmp_path / "project" / "README.md"))
    with pytest.raises(InputError, match="--out / names no folder of its own"):
        run_export(run, "sft", "/")


# -- refused ---------------------------------------------------------------------------------------


def test_without_finished_pairs_it_says_what_to_run(make_run: MakeRun, make_rollout: MakeRollout) -> None:
    run = make_run()
    message = (
        f"no finished pairs in {run.display('pairs')}: run `music-ray pairs` or `music-ray run` with the "
        "run's configuration first"
    )
    with pytest.raises(StageError) as error:
        run_export(run, "sft")
    assert str(error.value) == message
    finish_pairs(run, [make_rollout(1)])
    run.start_stage("pairs")  # killed while it moved its files
    with pytest.raises(StageError) as error:
        run_export(run, "sft")
    assert str(error.value) == message


def test_pairs_that_are_out_of_date_are_exported_with_a_word(run: RunDir, capsys) -> None:
    run.write_text("music-1\n", "pairs", "excluded.txt")
    run_export(run, "dpo")
    assert "export: pairs/ is out of date" in capsys.readouterr().out


def test_pairs_of_a_newer_version_are_refused(run: RunDir) -> None:
    newer = PAIR_SCHEMA.with_metadata({b"music_ray.version": str(SCHEMA_VERSION + 1).encode()})
    run.write_table(pa.Table.from_pylist([], schema=newer), "pairs", "train-00000-of-00001.parquet")
    with pytest.raises(InputError) as error:
        run_export(run, "sft")
    assert str(error.value) == (
        f"{run.path('pairs', 'train-00000-of-00001.parquet')} has schema version {SCHEMA_VERSION + 1}, but "
        f"this music_ray reads up to {SCHEMA_VERSION}: upgrade music_ray"
    )
    assert not run.exists("export", "sft")


# -- the command -----------------------------------------------------------------------------------


def test_the_command_finds_the_run_wherever_it_lies(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    from music_ray import cli

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("sys.argv", ["music-ray", "export", "runs/run", "--format", "dpo"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    assert capsys.readouterr().out.startswith("export: 3 rows of 3 pairs in runs/run/export/dpo\n")
