"""The real command: exit codes, messages, and once with real models on a real Ray."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from music_ray.evaluate.pair_sets import read_pair_sets
from music_ray.evaluate.spoil import spoil
from music_ray.generate.hub import hub_rows
from tests.evaluate.conftest import messages, write_jsonl
from tests.evaluate.test_model_names import make_run_folder
from tests.reward.conftest import conversation
from tests.score.conftest import make_conversations, make_reward_folder

ROOT = Path(__file__).resolve().parents[2]
PAIR = {"id": 1, "chosen": messages("a", "b"), "rejected": messages("a", "c")}


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command, and on stdout its exit code and which heavy packages it has loaded."""
    program = (
        "import sys\nsys.argv = ['music-ray', 'evaluate', *sys.argv[1:]]\nfrom music_ray.cli import main\n"
        "try:\n    main()\nexcept SystemExit as ended:\n    code = ended.code\n"
        "print(code, sorted({'torch', 'ray', 'vllm', 'transformers'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", program, *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=60)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "evaluate needs a CONFIG, or both --model and --pairs"),
        (("--model", "m"), "evaluate needs a CONFIG, or both --model and --pairs"),
        (("x.yaml", "--sensitivity"), "--sensitivity goes with --model and --pairs: name both, or leave it"),
        (("--pairs", "p.jsonl"), "evaluate needs a CONFIG, or both --model and --pairs"),
        (("--model", "m", "--model", "m", "--pairs", "p.jsonl"), "--model m is given twice: name it once"),
        (
            ("--model", "m", "--pairs", "p.jsonl", "q.jsonl"),
            "q.jsonl is no KEY=VALUE: with --model there is no",
        ),
        (
            ("--model", "m", "--pairs", "p.jsonl", "--dry-run"),
            "--dry-run goes with a CONFIG, not with --model",
        ),
        (("--model", "m", "--pairs", "none.jsonl"), "no file or folder at none.jsonl: name a file of pairs"),
        (("--model", "m", "--pairs", "p.jsonl"), "no model folder at m: name the folder of a trained reward"),
        (
            ("--model", "two", "--pairs", "p.jsonl"),
            "two has 2 labels, a reward model has 1: it classifies, and",
        ),
        (
            ("--model", "lm", "--pairs", "p.jsonl"),
            "lm is no reward model: its config.json names LlamaForCausalLM",
        ),
        (("--model", "untrained:m", "--pairs", "p.jsonl"), "m is no run folder on this machine"),
        (("none.yaml",), "no configuration file at none.yaml"),
    ],
)
def test_mistakes_end_with_2_and_load_nothing_heavy(words, message, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "p.jsonl", PAIR)
    for name, kind in (("two", "LlamaForSequenceClassification"), ("lm", "LlamaForCausalLM")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"architectures": [kind]}))
        (tmp_path / name / "model.safetensors").touch()
        (tmp_path / name / "chat_template.jinja").touch()
    before = sorted(path.name for path in tmp_path.iterdir())
    done = run(*words, cwd=tmp_path)
    assert done.stdout == "2 []\n", done.stdout + done.stderr
    assert done.stderr.startswith(f"music-ray: {message}"), done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.slow
def test_real_models_on_real_pairs(tmp_path: Path) -> None:
    from music_ray.chat import ChatFormat
    from music_ray.reward_model import load_reward_model, score

    model = make_reward_folder(tmp_path / "gemma")
    untrained = f"untrained:{make_run_folder(tmp_path)}"
    made = make_conversations(24)
    rows = [
        {"id": f"p{number}", "chosen": one, "rejected": other}
        for number, (one, other) in enumerate(zip(made[::2], made[1::2], strict=True))
    ]
    rows[5]["rejected"] = conversation("a " * 300, "b")  # longer than the model can read
    pairs = write_jsonl(tmp_path / "dev.jsonl", *rows)
    words = ["--model", str(model), "--model", untrained, "--pairs", pairs, "--out", str(tmp_path / "out")]
    words += ["--sensitivity", "ray.num_cpus=2", "evaluate.bootstrap_samples=200"]
    command = [sys.executable, "-m", "music_ray", "evaluate", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    assert "dev: 12 pairs of 12 contexts, with 95% intervals" in done.stdout

    result = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    found = result["pair_sets"][0]["models"][str(model)]
    assert found["unscored_reasons"] == {"over_length": 1} and found["overall"]["unscored"] == 1
    classifier, chat = load_reward_model(str(model)), ChatFormat.load(str(model))
    expected = [
        score(classifier, [chat.conversation_ids(row[side]) for side in ("chosen", "rejected")])
        for row in rows
    ]
    right = [one > other for number, (one, other) in enumerate(expected) if number != 5]
    assert found["overall"]["accuracy"] == pytest.approx(sum(right) / 12)
    slug = next((tmp_path / "out" / "dev").glob("scores-reward-*.parquet"))
    for row, (chosen, rejected) in zip(pq.read_table(slug).to_pylist(), expected, strict=True):
        assert row["chosen_score"] == pytest.approx(chosen, abs=1e-5)
        if row["id"] != "p5":
            assert row["rejected_score"] == pytest.approx(rejected, abs=1e-5)

    spoiled = spoil(read_pair_sets([pairs], hub_rows)[0].pairs, 0).spoiled
    after = score(classifier, [chat.conversation_ids(one.messages) for one in spoiled])
    path = next((tmp_path / "out" / "dev").glob("sensitivity-reward-*.parquet"))
    written = pq.read_table(path).to_pylist()
    assert [row["spoiled_score"] for row in written] == pytest.approx(after, abs=1e-5)
    good = {row["id"]: chosen for row, (chosen, _) in zip(rows, expected, strict=True)}
    assert [row["good_score"] for row in written] == pytest.approx(
        [good[row["id"]] for row in written], abs=1e-5
    )
    assert "one turn spoiled by another conversation's reply" in done.stdout
    second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert (
        second.returncode == 0 and second.stdout.count("score: finished in") == 4
    )  # nothing is scored twice
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text()) == result
