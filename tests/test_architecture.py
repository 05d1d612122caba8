"""Arrows go one way: cli → run → stages → what stages share → schema, config, errors."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "music_ray"
FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = {
    ".".join(("music_ray", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in FILES
}

STAGES = ("generate", "reward", "evaluate", "report", "planning", "miniature", "score", "submit")
SHARED = (
    "capacity", "chat", "costs", "data_files", "engines", "gate_inputs", "identity", "jobs", "judge",
    "markdown", "memory", "model_folder", "models", "packed_attention", "packed_layout", "paired_tests",
    "plugins", "preflight", "progress", "prompts", "provenance", "public", "ray_session", "revisions",
    "reward_model", "run_lock", "rundir", "score_section", "storage", "stored_models", "visible",
)  # fmt: skip
FOUNDATION = ("schema", "config", "errors")
ENTRY = ("cli", "cli_cluster", "run", "__main__", "bench", "replicate")

HEAVY = {"torch", "ray", "vllm", "deepspeed", "transformers", "datasets", "peft", "sklearn", "matplotlib"}
MAY_LOAD_AT_ONCE = {
    # Entered only inside a training or scoring process, which has torch anyway.
    "music_ray.reward_model": {"torch", "transformers"},
    "music_ray.reward.loss": {"torch"},
    "music_ray.packed_attention": {"torch"},
    "music_ray.packed_layout": {"torch"},
    "music_ray.score.packed": {"torch"},
    # Entered only where a training is started, on a Ray that runs.
    "music_ray.reward.rendezvous": {"ray"},
}


def part(module: str) -> str:
    """The first name below the package: 'music_ray.generate.rollout' is of 'generate'."""
    return module.split(".")[1] if "." in module else ""


def imports(tree: ast.AST, *, at_load: bool = False) -> Iterator[str]:
    """Names of imported modules; with at_load only those that importing the file imports."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, "relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif at_load and (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
        ):
            continue
        else:
            yield from imports(node, at_load=at_load)


def of_package(path: Path) -> set[str]:
    found = {name for name in imports(ast.parse(path.read_text())) if name.startswith("music_ray")}
    return {name for name in found if name in MODULES}


def test_every_file_has_its_place() -> None:
    places = {part(module) for module in MODULES} - {""}
    assert places <= {*STAGES, *SHARED, *FOUNDATION, *ENTRY}


@pytest.mark.parametrize("module", MODULES)
def test_arrows_go_one_way(module: str) -> None:
    place = part(module)
    allowed = {
        "foundation": {*FOUNDATION},
        "shared": {*FOUNDATION, *SHARED},
        "stage": {*FOUNDATION, *SHARED, place},
        "entry": {*FOUNDATION, *SHARED, *STAGES, *ENTRY},
    }[
        "foundation"
        if place in FOUNDATION
        else "shared"
        if place in SHARED
        else "stage"
        if place in STAGES and place != "bench"  # benchmarks measure the stages
        else "entry"
    ]
    used = {part(name) for name in of_package(MODULES[module])} - {""}
    assert used <= allowed, f"{module} imports {sorted(used - allowed)}"


def test_nothing_but_the_entry_points_knows_the_command_line() -> None:
    for module, path in MODULES.items():
        if part(module) not in ("", *ENTRY):
            assert not of_package(path) & {"music_ray.cli", "music_ray.run"}, module


@pytest.mark.parametrize("module", MODULES)
def test_nothing_heavy_is_imported_at_the_top_of_a_file(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text())
    loaded = {name.partition(".")[0] for name in imports(tree, at_load=True)}
    assert loaded & HEAVY <= MAY_LOAD_AT_ONCE.get(module, set())


@pytest.mark.parametrize(
    "module",
    ["music_ray.cli", "music_ray.cli_cluster", "music_ray.errors", "music_ray.config", "music_ray.progress"],
)
def test_the_command_line_starts_on_few_imports(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text())
    known = {*sys.stdlib_module_names, "music_ray", "typer", "pydantic", "pydantic_core", "yaml"}
    assert {name.partition(".")[0] for name in imports(tree, at_load=True)} <= known


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_are_short_and_say_what_they_are_for(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    assert path.name not in {"utils.py", "util.py", "helpers.py", "common.py", "misc.py"}
    assert ast.get_docstring(ast.parse(text)), "no module docstring"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_catches_everything_in_silence(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"bare except in line {node.lineno}"
            broad = ast.unparse(node.type) in ("Exception", "BaseException")
            uses_it = node.name is not None or any(isinstance(one, ast.Raise) for one in ast.walk(node))
            assert not broad or uses_it, f"line {node.lineno} swallows everything"


def test_the_package_says_that_it_is_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()
