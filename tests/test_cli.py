"""The command line: exit codes, messages, and what is not loaded."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from music_ray import __version__, cli
from music_ray.config.load import dump_config, load_config

ROOT = Path(__file__).resolve().parents[1]
DEMO = str(ROOT / "configs" / "demo.yaml")


class Ended:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """music-ray with these words, in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("signal.signal", lambda *_: None)

    def run(*words: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["music-ray", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return Ended(int(ended.value.code or 0), captured.out, captured.err)

    return run


def in_process(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "music_ray", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=60)


# -- what a start costs ----------------------------------------------------------------------------


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nsys.argv = ['music-ray', '--help']\nfrom music_ray.cli import main\n"
        "try:\n    main()\nexcept SystemExit as ended:\n    code = ended.code\n"
        "heavy = {'torch', 'ray', 'vllm', 'deepspeed', 'transformers', 'pyarrow', 'datasets'}\n"
        "heavy |= {'numpy', 'pydantic'}\n"
        "sys.stderr.write(f'{code} {sorted(heavy & set(sys.modules))}')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr == "0 []"
    for command in ["seeds", "generate", "pairs", "mix", "train", "evaluate", "report", "run", "inspect"]:
        assert f" {command} " in done.stdout


def test_a_refused_command_loads_neither_ray_nor_torch() -> None:
    code = (
        "import sys\nsys.argv = ['music-ray', 'train', sys.argv[1], 'runs_dir=' + sys.argv[2]]\n"
        "from music_ray.cli import main\n"
        "try:\n    main()\nexcept SystemExit as ended:\n    code = ended.code\n"
        "print(code, sorted({'torch', 'ray', 'vllm', 'deepspeed', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, DEMO, "/nonexistent"], capture_output=True, text=True)
    assert done.stdout == "2 []\n"
    assert done.stderr.startswith("music-ray: train needs seeds, which is not finished in /nonexistent/demo")


# -- the real program ------------------------------------------------------------------------------


def test_a_misspelt_key_ends_with_2_and_names_the_key(tmp_path: Path) -> None:
    done = in_process("generate", DEMO, "generate.trns=3", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "music-ray: unknown key generate.trns: did you mean generate.turns?\n"


def test_a_bug_keeps_its_traceback_and_ends_with_1(tmp_path: Path) -> None:
    code = (
        "import sys, music_ray.config.load as load\n"
        "def broken(*_): raise ZeroDivisionError('a bug')\n"
        "load.load_config = broken\nsys.argv = ['music-ray', 'run', 'x.yaml']\n"
        "from music_ray.cli import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback") and done.stderr.endswith("ZeroDivisionError: a bug\n")


# -- mistakes --------------------------------------------------------------------------------------


def test_mistakes_in_the_command(call) -> None:
    ended = call("zzzz")
    assert (ended.code, ended.err.splitlines()[-1]) == (2, "music-ray: No such command 'zzzz'.")
    ended = call("generate")
    assert (ended.code, ended.err.splitlines()[-1]) == (2, "music-ray: Missing argument 'CONFIG'.")
    ended = call("generate", DEMO, "--bogus")
    assert (ended.code, ended.err.splitlines()[-1]) == (2, "music-ray: No such option: --bogus")
    ended = call("inspect", "x", "--limit", "0")
    assert ended.code == 2 and "Input should be greater than or equal to 1" in ended.err
    assert call().code == 2


def test_mistakes_in_the_configuration(call, tmp_path: Path) -> None:
    assert (ended := call("run", "none.yaml")).code == 2
    assert ended.err == (
        "music-ray: no configuration file at none.yaml: name a YAML file, e.g. configs/demo.yaml\n"
    )
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    assert (ended := call("run", "latin.yaml")).code == 2
    assert ended.err == "music-ray: latin.yaml is not UTF-8 (byte 9): save it as UTF-8\n"
    (tmp_path / "list.yaml").write_text("- name\n- demo\n")
    assert (ended := call("run", "list.yaml")).code == 2
    assert ended.err == (
        "music-ray: list.yaml holds no sections: it must be a mapping such as 'name: demo'\n"
    )
    assert (ended := call("run", DEMO, "generate.turns=0", "train.stps=1")).code == 2
    assert ended.err.splitlines() == [
        "music-ray: generate.turns is 0: input should be greater than or equal to 1",
        "music-ray: unknown key train.stps: did you mean train.steps?",
    ]


def test_a_folder_that_is_no_run(call, tmp_path: Path) -> None:
    for command in ("inspect", "report"):
        assert (ended := call(command, str(tmp_path))).code == 2
        assert ended.err == (
            f"music-ray: {tmp_path} is no run folder: it has no config.yaml; name one such as runs/demo\n"
        )
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.yaml").write_bytes(b"\xff: [")
    assert (ended := call("inspect", "broken")).code == 2
    assert "broken/config.yaml is not valid YAML" in ended.err


@pytest.mark.parametrize("stage", ["generate", "pairs", "mix", "train", "evaluate"])
def test_a_stage_without_its_upstream_leaves_nothing_behind(call, tmp_path: Path, stage: str) -> None:
    assert (ended := call(stage, DEMO)).code == 2
    assert ended.err == (
        f"music-ray: {stage} needs seeds, which is not finished in runs/demo: run `music-ray seeds` first, "
        "or `music-ray run` for all\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_refused_stage_does_not_touch_the_run(call, tmp_path: Path) -> None:
    seeds = ["seeds", DEMO, "seeds.max_tokens=null"]
    assert call(*seeds).code == 0
    (tmp_path / "runs" / "demo" / "rollouts").mkdir()
    before = {path: path.read_bytes() for path in (tmp_path / "runs" / "demo").rglob("*") if path.is_file()}
    ended = call("mix", DEMO, "seeds.max_tokens=null", "train.steps=99")
    assert ended.code == 2
    ended = call("seeds", DEMO, "seeds.max_tokens=null", "seed=8")
    assert ended.err.splitlines() == [
        "music-ray: seed is 8, but runs/demo was made with 7",
        "music-ray: set the old value again, or give this run another name",
    ]
    assert {path: path.read_bytes() for path in before} == before
    ended = call(*seeds)
    assert ended.out.splitlines() == ["seeds: finished", "seeds: runs/demo"]


def test_a_second_driver_is_told_who_holds_the_run(call, tmp_path: Path) -> None:
    from music_ray.rundir import RunDir

    run = RunDir(load_config(DEMO))
    with run.lock():
        ended = call("seeds", DEMO)
    assert ended.code == 2
    assert ended.err.startswith("music-ray: runs/demo is in use by process ")


# -- what is printed -------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["seeds", "generate", "pairs", "mix", "train", "evaluate", "run"])
@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_dry_run_prints_the_resolved_configuration_and_starts_nothing(
    call, tmp_path: Path, command: str, path: Path
) -> None:
    ended = call(command, str(path), "generate.turns=4", "--dry-run")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == dump_config(load_config(path, ["generate.turns=4"]))
    assert yaml.safe_load(ended.out)["generate"]["turns"] == 4
    assert list(tmp_path.iterdir()) == []


def test_version(call) -> None:
    ended = call("version")
    assert (ended.code, ended.out) == (0, f"{__version__}\n")


def test_a_data_file_by_itself_becomes_a_run(call, tmp_path: Path) -> None:
    (tmp_path / "my pairs.jsonl").write_text("{}")
    ended = call("seeds", "my pairs.jsonl", "seed=3", "--dry-run")
    values = yaml.safe_load(ended.out)
    assert values["name"] == "seeds-my-pairs"
    assert values["data"]["sources"][0]["path"] == "my pairs.jsonl"
    assert (values["data"]["held_out_fraction"], values["seed"]) == (0.0, 3)
    ended = call("seeds", "none.jsonl")
    assert ended.code == 2
    assert ended.err == "music-ray: no file or folder at none.jsonl: correct data.sources\n"


@pytest.mark.parametrize(
    "typed", ["runs/demo", "runs/demo/", "./runs/demo", "{tmp}/runs/demo", "file://{tmp}/runs/demo"]
)
def test_a_run_folder_is_found_however_it_is_named(call, tmp_path: Path, typed: str) -> None:
    assert call("seeds", DEMO, "seeds.max_tokens=null").code == 0
    ended = call("report", typed.format(tmp=tmp_path))
    assert ended.code == 0, ended.err
    assert (tmp_path / "runs" / "demo" / "report" / "index.html").is_file()


def test_a_report_is_built_again_though_nothing_is_finished_since(
    call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call("seeds", DEMO, "seeds.max_tokens=null").code == 0
    assert call("report", "runs/demo").code == 0
    page = tmp_path / "runs" / "demo" / "report" / "index.html"
    page.write_text("old")
    monkeypatch.chdir(tmp_path / "runs" / "demo")
    assert call("report", ".").code == 0
    assert page.read_text() != "old"


def test_a_full_disk_is_one_line_and_a_bug_keeps_its_traceback(call, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_with(number: int) -> None:
        def run_stages(*_: object, **__: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr("music_ray.run.run_stages", run_stages)

    fail_with(errno.ENOSPC)
    assert (ended := call("run", DEMO)).code == 3
    assert ended.err == (
        "music-ray: [Errno 28] No space left on device: see to the disk or the store, then the same command "
        "goes on\n"
    )
    fail_with(errno.ENOENT)
    with pytest.raises(FileNotFoundError):
        monkeypatch.setattr(sys, "argv", ["music-ray", "run", DEMO])
        cli.main()
