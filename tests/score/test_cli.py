"""The two commands: what they load, what they refuse, how."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


def run(code: str, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    program = (
        "import sys\nfrom music_ray.cli import main\ntry:\n    main()\n"
        f"except SystemExit as ended:\n    code = ended.code\n{code}"
    )
    command = [sys.executable, "-c", program, *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=60)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("score", "none", "x.jsonl", "--out", "o"), "music-ray: no model folder at none: "),
        (("serve", "none"), "music-ray: no model folder at none: "),
        (("score", "none", "x.jsonl"), "Missing option '--out'"),
        (("score", "none", "x.jsonl", "--out", "o", "--engine", "trl"), "'trl' is not one of"),
        (("serve", "none", "--port", "0"), "Invalid value for '--port'"),
    ],
)
def test_mistakes_end_with_2_and_load_nothing_heavy(words, message, tmp_path: Path) -> None:
    heavy = "{'torch', 'ray', 'vllm', 'transformers'}"
    done = run(f"print(code, sorted({heavy} & set(sys.modules)))", *words, cwd=tmp_path)
    assert done.stdout == "2 []\n", done.stderr
    assert message in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_model_that_is_none_is_refused_before_the_input_is_looked_at(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    (folder / "model.safetensors").touch()
    (folder / "chat_template.jinja").touch()
    done = run("print(code)", "score", "m", "none.jsonl", "--out", "out", cwd=tmp_path)
    assert done.stdout == "2\n" and done.stderr.startswith("music-ray: m is no reward model: its config.json")
    assert not (tmp_path / "out").exists()
