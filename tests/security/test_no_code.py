"""Models and data bring no code: pickles, scripts and classes of their own are refused, and never run."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from music_ray.chat import ChatFormat
from music_ray.config import EngineConfig
from music_ray.errors import InputError
from music_ray.generate.hub import hub_rows
from music_ray.models import OWN_CODE, check_local_model
from tests.reward.conftest import make_model

MINE = "MiniModel"


class Trap:
    """Unpickled, it leaves a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """The file that is there when foreign code has run."""
    return tmp_path / "RAN"


@pytest.fixture
def foreign(tmp_path: Path, mark: Path) -> Path:
    """A whole model folder of a kind of its own, with the code for it."""
    folder = make_model(tmp_path / "foreign", "llama")
    code = f"from pathlib import Path\nPath({str(mark)!r}).touch()\n"
    code += f"from transformers import PretrainedConfig\nclass {MINE}(PretrainedConfig):\n    pass\n"
    (folder / "mine.py").write_text(code)
    change(folder / "config.json", model_type="mine", auto_map={"AutoConfig": f"mine.{MINE}"})
    return folder


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def refusal(call: Any, *arguments: Any, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        call(*arguments, **options)
    return str(caught.value)


def test_a_model_that_consists_of_code_is_refused_before_anything_starts(foreign: Path, mark: Path) -> None:
    assert refusal(check_local_model, str(foreign)) == (
        f"{foreign} is of a kind that transformers does not know (model_type 'mine'), and {OWN_CODE}"
    )
    assert not mark.exists()


def test_wherever_it_is_loaded_the_message_is_ours_and_its_code_is_not_run(foreign: Path, mark: Path) -> None:
    from music_ray.engines.vllm_settings import model_facts
    from music_ray.reward_model import load_reward_model

    assert OWN_CODE in refusal(load_reward_model, str(foreign), pad_token_id=0)
    assert OWN_CODE in refusal(model_facts, EngineConfig(model=str(foreign)), str(foreign))
    change(foreign / "tokenizer_config.json", auto_map={"AutoTokenizer": [f"mine.{MINE}", None]})
    # The tokenizer's own file is one that transformers reads: it is taken without the code.
    assert type(ChatFormat.load(str(foreign)).tokenizer).__module__.startswith("transformers.")
    assert not mark.exists()


def test_a_model_that_transformers_knows_is_taken_without_its_code(
    foreign: Path, mark: Path, tmp_path: Path
) -> None:
    """Many folders of the hub bring code that transformers has by now."""
    from music_ray.reward_model import load_reward_model

    change(foreign / "config.json", model_type="llama")
    check_local_model(str(foreign))
    classifier = load_reward_model(str(foreign))
    assert type(classifier).__module__.startswith("transformers.")
    assert not mark.exists()


def test_pickled_weights_are_refused_and_not_opened(tmp_path: Path, mark: Path) -> None:
    from music_ray.reward_model import load_reward_model

    folder = make_model(tmp_path / "pickled", "llama")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(mark)))
    assert refusal(check_local_model, str(folder)) == (
        f"{folder} holds no .safetensors file: convert its weights (pickled weights are not loaded)"
    )
    assert f"cannot load {folder} as a reward model" in refusal(load_reward_model, str(folder))
    assert not mark.exists()


def test_beside_safetensors_a_pickle_is_not_looked_at(tmp_path: Path, mark: Path) -> None:
    from music_ray.reward_model import load_reward_model

    folder = make_model(tmp_path / "both", "llama")
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt"):
        (folder / name).write_bytes(pickle.dumps(Trap(mark)))
    check_local_model(str(folder))
    load_reward_model(str(folder))
    assert not mark.exists()


def test_a_data_set_that_consists_of_code_is_refused(tmp_path: Path, mark: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = tmp_path / "owner" / "scripted"
    folder.mkdir(parents=True)
    (folder / "scripted.py").write_text(f"from pathlib import Path\nPath({str(mark)!r}).touch()\n")
    said = refusal(lambda: list(hub_rows("owner/scripted", None, "train")))
    assert said.startswith("cannot read the train split of the Hugging Face dataset owner/scripted: ")
    assert "Dataset scripts are no longer supported" in said
    assert not mark.exists()


def test_pickled_rows_are_refused(tmp_path: Path, mark: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = tmp_path / "owner" / "pickled"
    folder.mkdir(parents=True)
    (folder / "train.pkl").write_bytes(pickle.dumps(Trap(mark)))
    said = refusal(lambda: list(hub_rows("owner/pickled", None, "train")))
    assert said.startswith("cannot read the train split of the Hugging Face dataset owner/pickled: ")
    assert not mark.exists()


def test_nothing_of_the_package_unpickles_or_trusts() -> None:
    """Ray moves our own objects between our own processes; files are read without it."""
    package = Path(__file__).resolve().parents[2] / "music_ray"
    text = {path: path.read_text() for path in package.rglob("*.py")}
    for word in ("import pickle", "torch.load(", "allow_pickle=True", "trust_remote_code=True", "joblib"):
        assert not [str(path) for path, code in text.items() if word in code], word
