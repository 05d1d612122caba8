"""music-ray push: what goes to the hub, what is refused, and that the token is never said."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from music_ray.errors import InputError, MusicRayError, StageError
from music_ray.generate.export import upload
from music_ray.generate.export.push import run_push
from music_ray.generate.export.write import run_export
from music_ray.rundir import RunDir
from music_ray.schema import Rollout
from tests.generate.finished_pairs import finish_pairs
from tests.generate.hub_server import TOKEN, Hub, Repo, serve_hub

MakeRun = Callable[..., RunDir]
MakeRollout = Callable[..., Rollout]
LICENSED = {"sources": [{"path": "tests.jsonl", "licence": "cc-by-4.0"}]}
NAME = "train-00000-of-00001.parquet"


@pytest.fixture
def run(make_run: MakeRun, make_rollout: MakeRollout) -> RunDir:
    run = make_run(data=LICENSED)
    finish_pairs(run, [make_rollout(1), make_rollout(2)])
    return run


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serve_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        # Other tests of this session see to it that nothing asks the real hub.
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        # The other store of large files speaks a protocol of its own, in a binary.
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        yield hub


# -- what goes -------------------------------------------------------------------------------------


def test_the_pairs_go_in_one_commit_with_their_card_and_nothing_else(run: RunDir, hub: Hub, capsys) -> None:
    run.write_text("music-9\n", "pairs", "notes.txt")
    run_push(run, "team/pairs")
    repo = hub.repos["datasets/team/pairs"]
    assert repo.private and repo.commits == ["pairs of the run run (music_ray)"]
    assert sorted(repo.files) == ["README.md", NAME]
    assert repo.files[NAME] == run.read_bytes("pairs", NAME)
    assert repo.files["README.md"] == run.read_bytes("pairs", "README.md")
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("push: 2 files, ") and out[0].endswith(
        f" {hub.url}/datasets/team/pairs (private)"
    )
    assert out[1] == f"push: done, {hub.url}/datasets/team/pairs/commit/{1:040d}"


def test_a_second_push_takes_out_what_the_first_one_left(
    run: RunDir, hub: Hub, make_rollout: MakeRollout
) -> None:
    hub.repos["datasets/team/pairs"] = Repo(
        True, {".gitattributes": b"", "NOTICE": b"mine", "train-00000-of-00002.parquet": b"old", NAME: b"old"}
    )
    run_push(run, "team/pairs")
    repo = hub.repos["datasets/team/pairs"]
    assert sorted(repo.files) == [".gitattributes", "NOTICE", "README.md", NAME]
    assert repo.files[NAME] == run.read_bytes("pairs", NAME) and len(repo.commits) == 1


@pytest.mark.parametrize("what", ["sft", "dpo"])
def test_exported_folders_go_too(run: RunDir, hub: Hub, what) -> None:
    run_export(run, what)
    run_push(run, "team/rows", what)
    files = hub.repos["datasets/team/rows"].files
    assert files[NAME] == run.read_bytes("export", what, NAME) and sorted(files) == ["README.md", NAME]


def test_a_model_goes_into_a_model_repository(run: RunDir, hub: Hub) -> None:
    for name in ("README.md", "config.json", "model.safetensors", "tokenizer.json", "secret.pt", ".hidden"):
        run.write_text(f"the {name}", "model", name)
    run.start_stage("train")
    run.finish_stage("train", "made", 1.0)
    run_push(run, "team/rm", "model")
    assert list(hub.repos) == ["models/team/rm"]
    files = hub.repos["models/team/rm"].files
    assert sorted(files) == ["README.md", "config.json", "model.safetensors", "tokenizer.json"]
    assert files["model.safetensors"] == b"the model.safetensors"


def test_a_dry_run_lists_files_and_sizes_and_needs_neither_token_nor_network(
    run: RunDir, hub: Hub, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    run.write_bytes(b"x" * 1_234_567, "pairs", "README.md")
    size = len(run.read_bytes("pairs", NAME))
    run_push(run, "team/pairs", dry_run=True)
    assert capsys.readouterr().out.splitlines() == [
        "    1.2 MB  README.md",
        f"    {size / 1000:.1f} KB  {NAME}",
        f"push: 2 files, 1.2 MB would go to {hub.url}/datasets/team/pairs (private); nothing was sent",
    ]
    assert hub.requests == []


def test_the_real_program_pushes(run: RunDir, hub: Hub, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "music_ray", "push", run.display(), "--repo", "team/pairs", "--public"]
    environment = os.environ | {"HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert not hub.repos["datasets/team/pairs"].private
    assert TOKEN not in done.stdout + done.stderr


# -- licences --------------------------------------------------------------------------------------


def test_public_needs_a_licence_for_every_source_or_a_word(
    make_run: MakeRun, make_rollout: MakeRollout, hub: Hub
) -> None:
    run = make_run(data={"sources": [{"path": "tests.jsonl"}]})
    finish_pairs(run, [make_rollout(1)])
    with pytest.raises(InputError) as error:
        run_push(run, "team/pairs", public=True)
    assert str(error.value) == (
        "nobody has named the licence of 1 sources (tests): set `licence` in data.sources and run "
        "`music-ray pairs` once more (nothing is made again), or say --licence-checked if you know that this "
        "may be public"
    )
    assert hub.requests == []
    run_push(run, "team/pairs")  # a private one is nobody else's business
    assert hub.repos["datasets/team/pairs"].private
    run_push(run, "team/other", public=True, licence_checked=True)
    assert not hub.repos["datasets/team/other"].private


def test_a_licence_named_after_the_pairs_were_made_is_on_the_card_that_goes(
    make_run: MakeRun, make_rollout: MakeRollout, hub: Hub
) -> None:
    finish_pairs(make_run(data={"sources": [{"path": "tests.jsonl"}]}), [make_rollout(1)])
    run = make_run(data=LICENSED)
    run.check_identity()
    assert "license: unknown" in run.read_text("pairs", "README.md")
    run_push(run, "team/pairs", public=True)
    card = hub.repos["datasets/team/pairs"].files["README.md"].decode()
    assert yaml.safe_load(card.split("---\n")[1])["license"] == "cc-by-4.0"
    assert "| `tests` | 1 | `cc-by-4.0` |" in card and "`unknown`" not in card


def test_a_row_without_a_licence_keeps_its_source_unknown(run: RunDir, hub: Hub) -> None:
    run.finish_stage("seeds", "", 1.0, licences=[
        {"source": "tests", "read_from": 0, "licence": "isc", "pairs": 1},
        {"source": "tests", "read_from": 7, "licence": "", "pairs": 1},
    ])  # fmt: skip
    with pytest.raises(InputError, match=r"of 1 sources \(tests\)"):
        run_push(run, "team/pairs", public=True)


def test_a_private_push_never_fills_a_public_repository(run: RunDir, hub: Hub, capsys) -> None:
    hub.repos["datasets/team/pairs"] = Repo(private=False)
    with pytest.raises(InputError, match="team/pairs is there already, and it is public: say --public"):
        run_push(run, "team/pairs")
    assert hub.repos["datasets/team/pairs"].commits == []
    hub.repos["datasets/team/pairs"].private = True
    run_push(run, "team/pairs", public=True)
    assert "team/pairs is there already, and it stays private" in capsys.readouterr().out


# -- what is refused before anything is asked ------------------------------------------------------


@pytest.mark.parametrize(
    "repo", ["pairs", "a/b/c", "team/", "/pairs", "te am/x", "team/a--b", "a" * 99 + "/b", "ü/x"]
)
def test_a_name_that_is_none(run: RunDir, hub: Hub, repo: str) -> None:
    with pytest.raises(InputError, match=r"is no OWNER/NAME of at most 96 letters"):
        run_push(run, repo)
    assert hub.requests == []


def test_without_a_token_in_the_environment(run: RunDir, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", " ")
    with pytest.raises(InputError) as error:
        run_push(run, "team/pairs")
    assert str(error.value) == (
        f"HF_TOKEN is not set: make a token with write access at {hub.url}/settings/tokens and put it into "
        "the environment"
    )
    monkeypatch.setenv("HF_TOKEN", f"{TOKEN} extra")
    with pytest.raises(InputError) as error:
        run_push(run, "team/pairs")
    assert TOKEN not in str(error.value) and str(error.value).startswith("HF_TOKEN holds spaces")
    assert hub.requests == []


def test_what_is_missing_or_out_of_date(run: RunDir, hub: Hub, make_rollout: MakeRollout) -> None:
    with pytest.raises(StageError) as error:
        run_push(run, "team/rows", "sft")
    assert str(error.value) == (
        f"nothing to push in {run.display('export', 'sft')}: make it with `music-ray export RUN --format "
        "sft` first"
    )
    with pytest.raises(StageError, match="make it with `music-ray train` first"):
        run_push(run, "team/rows", "model")
    run_export(run, "sft")
    finish_pairs(run, [make_rollout(7)])
    with pytest.raises(
        StageError, match=r"was made from other pairs than .* holds: run `music-ray export RUN"
    ):
        run_push(run, "team/rows", "sft")
    run.write_text("7\n", "pairs", "excluded.txt")  # marked, but the pairs stage has not seen it
    with pytest.raises(StageError, match="does not fit the run's configuration and input any more"):
        run_push(run, "team/pairs")
    finish_pairs(run, [])
    with pytest.raises(StageError, match="holds no rows: there is nothing to push"):
        run_push(run, "team/pairs")
    assert hub.requests == []


# -- what the hub says -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "part, status, kind, message",
    [
        ("GET /api", 401, InputError, "the hub does not accept HF_TOKEN (401: no)"),
        ("/api/repos/create", 403, InputError, "HF_TOKEN may not write to team/pairs (403: no): use a token"),
        ("/commit/", 403, InputError, "HF_TOKEN may not write to team/pairs (403: no): use a token"),
        ("/api/repos/create", 404, InputError, "the hub does not know team/pairs (404: no): check owner"),
        ("/api/repos/create", 409, InputError, "the hub refuses the push to team/pairs (409: no)"),
        ("/commit/", 413, InputError, "the hub refuses the push to team/pairs (413: no)"),
        ("/lfs-store/", 403, InputError, "HF_TOKEN may not write to team/pairs (403: "),
        ("/commit/", 500, StageError, "the hub fails (500: no): the same command tries again later"),
    ],
)
def test_what_goes_wrong_there_is_one_message(
    run: RunDir, hub: Hub, part: str, status: int, kind: type[MusicRayError], message: str
) -> None:
    hub.refuse[part] = (status, "no")
    with pytest.raises(kind) as error:
        run_push(run, "team/pairs")
    assert str(error.value).startswith(message) and TOKEN not in str(error.value)
    assert error.value.exit_code == {InputError: 2, StageError: 3}[kind]
    assert all(not repo.files for repo in hub.repos.values())


def test_a_token_that_is_not_accepted(run: RunDir, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(InputError) as error:
        run_push(run, "team/pairs")
    assert str(error.value) == (
        "the hub does not accept HF_TOKEN (401: Invalid username or password.): make a token with write "
        f"access to team at {hub.url}/settings/tokens"
    )


def test_an_answer_that_repeats_the_token_does_not_get_through(run: RunDir, hub: Hub) -> None:
    hub.refuse["/commit/"] = (400, f"bad header Bearer {TOKEN}")
    with pytest.raises(InputError) as error:
        run_push(run, "team/pairs")
    assert str(error.value) == "the hub refuses the push to team/pairs (400: bad header Bearer ***)"


def test_no_network(run: RunDir, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        StageError, match=r"cannot reach the hub at http://127\.0\.0\.1:9: .*check the network"
    ):
        run_push(run, "team/pairs")


def test_pages_of_repositories(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    assert upload.repo_url("a/b", "dataset") == "https://huggingface.co/datasets/a/b"
    assert upload.repo_url("a/b", "model") == "https://huggingface.co/a/b"
