"""Model names: folders as they are, what is fetched of a hub model, and the model a run started from."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from music_ray.config.load import dump_config, load_config, resolve_config
from music_ray.errors import InputError
from music_ray.evaluate.model_names import local_model
from music_ray.rundir import RunDir
from music_ray.score.model import open_model
from tests.reward.conftest import make_model

COMMIT = "c0ffee" * 6 + "abcd"
FILES = {
    "config.json": b'{"architectures": ["TinyForSequenceClassification"], "num_labels": 1}',
    "model.safetensors": b"weights",
    "pytorch_model.bin": b"a pickle",
    "modeling_tiny.py": b"raise SystemExit('code of the hub was run')",
    "README.md": b"card",
    "tokenizer_config.json": b"{}",
}


@pytest.fixture
def out(tmp_path: Path) -> RunDir:
    return RunDir(resolve_config({"name": "out", "runs_dir": str(tmp_path)}))


def test_a_folder_is_taken_as_it_is_named(tmp_path: Path, out: RunDir, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "model").mkdir(parents=True)
    # The last ones are no ids of the hub: opening them says that nothing is there.
    for name in ("runs/model", str(tmp_path), "./a/b", "runs/demo/model", "none"):
        assert local_model(name, out) == name


# -- the hub ---------------------------------------------------------------------------------------


class Hub(BaseHTTPRequestHandler):
    """Has one repository, open/model, and remembers what it was asked for."""

    asked: list[str]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.asked.append(path)
        name = path.rpartition("/")[2]
        if path.startswith("/api/models/open/model/tree/"):
            files = [{"type": "file", "path": file, "size": len(FILES[file]), "oid": file} for file in FILES]
            self._answer(200, json.dumps(files).encode())
        elif path.startswith("/api/models/open/model"):
            siblings = [{"rfilename": file} for file in FILES]
            found = {"id": "open/model", "sha": COMMIT, "siblings": siblings}
            self._answer(200, json.dumps(found).encode())
        elif path.startswith(f"/open/model/resolve/{COMMIT}/") and name in FILES:
            self._answer(200, FILES[name], {"ETag": f'"{name}"', "X-Repo-Commit": COMMIT})
        else:
            self._answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def _answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[tuple[str, list[str]]]:
    """A hub's address, and the paths that it was asked for."""
    asked: list[str] = []
    handler = type("Handler", (Hub,), {"asked": asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def in_process(name: str, endpoint: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """local_model in a process of its own: the hub's client reads its address when it is imported."""
    code = (
        "import sys\nfrom music_ray.config.load import resolve_config\nfrom music_ray.rundir import RunDir\n"
        "from music_ray.errors import InputError\nfrom music_ray.evaluate.model_names import local_model\n"
        "try:\n    print(local_model(sys.argv[1], RunDir(resolve_config({'name': 'out'}))))\n"
        "except InputError as error:\n    print('refused:', error)\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {
        "HF_ENDPOINT": endpoint,
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "HF_HUB_DISABLE_XET": "1",
    }
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
    return subprocess.run(
        [sys.executable, "-c", code, name], env=environment, cwd=tmp_path, capture_output=True, text=True
    )


def test_of_a_hub_model_no_code_and_no_pickle_is_fetched(hub, tmp_path: Path) -> None:
    endpoint, asked = hub
    done = in_process("open/model@v1", endpoint, tmp_path)
    assert done.returncode == 0, done.stderr
    first, folder = done.stdout.splitlines()
    assert first == f"evaluate: fetching open/model at {COMMIT}, or finding it in the hub's cache"
    assert sorted(os.listdir(folder)) == ["config.json", "model.safetensors", "tokenizer_config.json"]
    assert Path(folder, "model.safetensors").read_bytes() == b"weights"
    assert "/api/models/open/model/revision/v1" in asked
    assert not [path for path in asked if path.endswith((".py", ".bin", ".md"))]


def test_a_model_that_the_hub_has_not_is_refused(hub, tmp_path: Path) -> None:
    done = in_process("not/there", hub[0], tmp_path)
    assert done.stdout.startswith("refused: the hub has no model not/there, or not for this token")


# -- what a run started from -----------------------------------------------------------------------


def make_run_folder(tmp_path: Path, **train: object) -> str:
    base = make_model(tmp_path / "base", "llama")
    config = resolve_config({"name": "run", "seed": 5, "train": {"base_model": str(base), **train}})
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(dump_config(config))
    return str(tmp_path / "run")


def test_an_untrained_model_has_the_base_and_the_first_head_of_its_run(tmp_path: Path, out: RunDir) -> None:
    import torch

    from music_ray import reward_model

    run = make_run_folder(tmp_path, num_layers=2)
    folder = local_model(f"untrained:{run}", out)
    assert Path(folder).parent == tmp_path / "out" / "models"
    assert open_model(folder).architecture == "LlamaForSequenceClassification"
    found = reward_model.load_reward_model(folder)
    expected = reward_model.load_reward_model(
        str(tmp_path / "base"), num_layers=2, head_seed=reward_model.head_seed(5)
    )
    for name, weight in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], weight), name
    written = (Path(folder) / "model.safetensors").stat().st_mtime_ns
    assert local_model(f"untrained:{run}", out) == folder  # and it is not written again
    assert (Path(folder) / "model.safetensors").stat().st_mtime_ns == written
    assert len(list(Path(folder).parent.iterdir())) == 1


def test_an_untrained_model_goes_by_its_content_and_not_by_its_place(tmp_path: Path, out: RunDir) -> None:
    run = make_run_folder(tmp_path)
    first = local_model(f"untrained:{run}", out)
    (tmp_path / "elsewhere").mkdir()
    base = (tmp_path / "base").rename(tmp_path / "elsewhere" / "base")
    config = load_config(Path(run) / "config.yaml")
    moved = config.model_copy(update={"train": config.train.model_copy(update={"base_model": str(base)})})
    (tmp_path / "run").rename(tmp_path / "elsewhere" / "run")
    run = str(tmp_path / "elsewhere" / "run")
    (Path(run) / "config.yaml").write_text(dump_config(moved))
    assert local_model(f"untrained:{run}", out) == first, "the same base in another place, and the same seed"
    weights = base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")  # of a float that was 1.0
    second = local_model(f"untrained:{run}", out)
    assert second != first, "another base in the same place"
    (Path(run) / "config.yaml").write_text(dump_config(moved.model_copy(update={"seed": 6})))
    assert len({first, second, local_model(f"untrained:{run}", out)}) == 3


def test_an_untrained_model_needs_a_run_folder_and_a_local_place(tmp_path: Path, out: RunDir) -> None:
    with pytest.raises(InputError, match=r"is no run folder on this machine: untrained:RUN wants one"):
        local_model(f"untrained:{tmp_path}", out)
