"""A hub model's branch becomes a commit once: against a small server that stands where the hub stands."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from music_ray import models
from music_ray.errors import InputError


class Hub(BaseHTTPRequestHandler):
    """Knows one open model and one gated one."""

    def do_GET(self):
        if "/api/models/open/model" in self.path:
            self._answer(200, {"id": "open/model", "modelId": "open/model", "sha": "c0ffee" * 6 + "abcd"})
        elif "/api/models/gated/model" in self.path:
            self._answer(403, {"error": "gated"}, {"X-Error-Code": "GatedRepo"})
        else:
            self._answer(404, {"error": "no"}, {"X-Error-Code": "RepoNotFound"})

    def _answer(self, status, body, headers=None):
        content = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def hub(monkeypatch):
    import huggingface_hub

    # Other tests of this session see to it that nothing asks the real hub.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(huggingface_hub.HfApi, "__init__", _at(endpoint, huggingface_hub.HfApi.__init__))
    yield endpoint
    server.shutdown()


def _at(endpoint, original):
    def init(self, *arguments, **options):
        original(self, *arguments, **{"endpoint": endpoint, **options})

    return init


def test_a_branch_becomes_the_commit_that_it_means_now(hub):
    assert models.resolve_revision("open/model", "main") == "c0ffee" * 6 + "abcd"


def test_a_gated_model_and_one_that_is_not_there_are_said_with_the_remedy(hub):
    with pytest.raises(InputError, match=r"^gated/model is gated: accept its licence on the hub"):
        models.resolve_revision("gated/model", None)
    with pytest.raises(InputError, match=r"^the hub has no model not/there"):
        models.resolve_revision("not/there", None)


def test_what_is_no_hub_model_stays_as_it_is(tmp_path):
    assert models.resolve_revision("demo:smollm2-135m-instruct", None) is None
    assert models.resolve_revision(str(tmp_path), "x") == "x"


def test_without_a_network_the_cached_commit_is_used_or_the_problem_is_said(tmp_path, monkeypatch):
    import huggingface_hub
    from huggingface_hub import constants

    dead = _at("http://127.0.0.1:9", huggingface_hub.HfApi.__init__)
    monkeypatch.setattr(huggingface_hub.HfApi, "__init__", dead)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="cannot look up open/model at its default branch"):
        models.resolve_revision("open/model", None)
    folder = tmp_path / "models--open--model"
    (folder / "snapshots" / ("a" * 40)).mkdir(parents=True)
    (folder / "snapshots" / ("a" * 40) / "config.json").write_text("{}")
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("a" * 40)
    assert models._cached_commit("open/model", None) == "a" * 40
