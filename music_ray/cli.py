"""The command line: one function a command, no logic, nothing heavy imported before it is needed.

Exit codes: 0 done; 1 a bug in music_ray (with its traceback); 2 a mistake in the command, the
configuration or the input; 3 a stage that could not reach its end; 75 the same for a cause that passes by
itself; 130 interrupted (Ctrl-C).
"""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from music_ray import __version__, cli_cluster
from music_ray.errors import EXIT_INTERRUPTED, MusicRayError
from music_ray.progress import quieten_libraries, say
from music_ray.visible import visible

if TYPE_CHECKING:
    from music_ray.config import RunConfig

app = typer.Typer(
    name="music-ray",
    help="Multi-turn preference pairs by Multi-Step Instruction Contrast, and reward models trained on them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigArgument = Annotated[str, typer.Argument(help="A YAML file: configs/demo.yaml.", metavar="CONFIG")]
OverridesArgument = Annotated[
    list[str] | None,
    typer.Argument(help="Overrides such as generate.turns=3; the value is YAML.", metavar="[KEY=VALUE]..."),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Print the resolved configuration and stop; nothing is started.")
]
RunArgument = Annotated[str, typer.Argument(help="A run folder such as runs/demo.", metavar="RUN")]
ModelsOption = Annotated[
    list[str] | None, typer.Option(help="Folder, OWNER/NAME[@REVISION] or untrained:RUN; repeatable.")
]
ModelArgument = Annotated[str, typer.Argument(help="A model's folder: runs/demo/model.", metavar="MODEL")]

_DATA_ENDINGS = (".parquet", ".jsonl", ".jsonl.gz", ".json", ".json.gz")


@app.command()
def seeds(
    config: Annotated[
        str,
        typer.Argument(
            help="A YAML file, or a file of preference pairs (.parquet, .jsonl, .jsonl.gz) by itself.",
            metavar="CONFIG|DATA",
        ),
    ],
    overrides: OverridesArgument = None,
    dry_run: DryRunOption = False,
) -> None:
    """Read the preference set D, hold a part of it out, and cut seed contexts from the rest."""
    if config.endswith(_DATA_ENDINGS):
        from music_ray.config.load import config_for_file

        _stage("seeds", config_for_file(config, overrides or []), dry_run)
    else:
        _stage("seeds", _load(config, overrides), dry_run)


@app.command()
def generate(
    config: ConfigArgument, overrides: OverridesArgument = None, dry_run: DryRunOption = False
) -> None:
    """Roll every seed out into two branches; interrupted, the same command goes on."""
    _stage("generate", _load(config, overrides), dry_run)


@app.command()
def pairs(config: ConfigArgument, overrides: OverridesArgument = None, dry_run: DryRunOption = False) -> None:
    """Pass the rollouts through the quality gates and write the accepted pairs."""
    _stage("pairs", _load(config, overrides), dry_run)


@app.command()
def mix(config: ConfigArgument, overrides: OverridesArgument = None, dry_run: DryRunOption = False) -> None:
    """Join D and the MUSIC pairs, and keep the evaluation suites apart."""
    _stage("mix", _load(config, overrides), dry_run)


@app.command()
def train(config: ConfigArgument, overrides: OverridesArgument = None, dry_run: DryRunOption = False) -> None:
    """Train the reward model with ZeRO-3 and export it; interrupted, the same command resumes."""
    _stage("train", _load(config, overrides), dry_run)


@app.command()
def evaluate(
    config: Annotated[str | None, typer.Argument(help="A YAML file.", metavar="[CONFIG]")] = None,
    overrides: OverridesArgument = None,
    model: ModelsOption = None,
    pairs: Annotated[list[str] | None, typer.Option(help="File, folder or OWNER/NAME[:SPLIT].")] = None,
    verdicts: Annotated[str | None, typer.Option(help="A judge's verdicts on the pairs.")] = None,
    out: Annotated[str | None, typer.Option(help="Folder or URI for the results.")] = None,
    sensitivity: Annotated[bool, typer.Option("--sensitivity", help="Spoil single turns.")] = False,
    dry_run: DryRunOption = False,
) -> None:
    """Score a run's held-out pairs (CONFIG), or any pairs with any reward models (--model, --pairs)."""
    if config is not None and not (model or pairs or verdicts or out or sensitivity):
        return _stage("evaluate", _load(config, overrides), dry_run)
    from music_ray.evaluate.command import evaluate_any
    from music_ray.run import evaluation_tools as tools

    words = [*([config] if config else []), *(overrides or [])]
    return evaluate_any(
        model or [], pairs or [], out, verdicts, words, tools(), sensitivity=sensitivity, dry_run=dry_run
    )


@app.command()
def best_of_n(
    config: ConfigArgument,
    overrides: OverridesArgument = None,
    model: ModelsOption = None,
    out: Annotated[str | None, typer.Option(help="Folder or URI; evaluations/best-of-n-NAME.")] = None,
    dry_run: DryRunOption = False,
) -> None:
    """Let reward models pick replies (best of N), and have a judge compare the conversations."""
    resolved = _load(config, overrides)
    if dry_run:
        return _print_config(resolved)
    from music_ray.run import run_best_of_n

    return run_best_of_n(resolved, model or [], out)


@app.command()
def replicate(
    config: Annotated[str, typer.Argument(help="configs/miniature.yaml", metavar="CONFIG")],
    overrides: OverridesArgument = None,
    scale: Annotated[
        Literal["smoke", "short", "full", "ablations"], typer.Option(help="How much of everything.")
    ] = "short",
    out: Annotated[str, typer.Option(help="Local folder.")] = "runs/replicate",
) -> None:
    """Test the paper's claim in the miniature: rollouts, every arm's model, suites, table."""
    from music_ray.replicate.command import replicate as run_replication
    from music_ray.run import evaluation_tools

    run_replication(config, scale, out, overrides or [], evaluation_tools())


@app.command()
def report(
    run: RunArgument,
    other: Annotated[str | None, typer.Argument(help="A run to set beside it.", metavar="[OTHER]")] = None,
    evaluation: Annotated[list[str] | None, typer.Option(help="Evaluation's folder; repeatable.")] = None,
    out: Annotated[str | None, typer.Option(help="File of the page of two runs.")] = None,
) -> None:
    """Build the HTML report of a run folder, whatever it holds so far, or of two runs side by side."""
    from music_ray.report.command import report_command
    from music_ray.run import config_of_run, run_stages

    report_command(run, other, evaluation or [], out, config_of_run, run_stages)


@app.command(name="run")
def run_all(
    config: ConfigArgument, overrides: OverridesArgument = None, dry_run: DryRunOption = False
) -> None:
    """Bring the whole run to its end: seeds, generate, pairs, mix, train, evaluate, report."""
    from music_ray.rundir import STAGES, RunDir

    resolved = _load(config, overrides)
    if dry_run:
        return _print_config(resolved)
    folder = RunDir(resolved)
    if all(folder.is_finished(stage) for stage in STAGES):
        say(f"everything is finished in {folder.display()}")
    else:
        from music_ray.run import run_stages

        run_stages(resolved, STAGES)
    say(f"report:        {folder.display('report', 'index.html')} (open it in a browser)")
    say(f"read the pairs: music-ray inspect {folder.display()}")
    return None


@app.command()
def plan(
    config: ConfigArgument,
    overrides: OverridesArgument = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Say what a run will take in calls, tokens, GPU hours and money; nothing is started."""
    from music_ray.planning.make import write_plan
    from music_ray.planning.show import print_json, print_plan
    from music_ray.rundir import RunDir

    made = write_plan(RunDir(_load(config, overrides)))
    if as_json:
        print_json(made)
    else:
        print_plan(made)


@app.command()
def inspect(
    run: RunArgument,
    ids: Annotated[list[str] | None, typer.Argument(help="Pair ids; the first pairs when none.")] = None,
    limit: Annotated[int, typer.Option(help="At most this many pairs.", min=1)] = 5,
    refused: Annotated[bool, typer.Option("--refused", help="Rollouts that gave no pair, and why.")] = False,
) -> None:
    """Show pairs in the terminal, both branches side by side."""
    from music_ray.report.inspect import inspect_run
    from music_ray.rundir import RunDir

    inspect_run(RunDir(_config_of_run(run)), limit=limit, ids=ids or [], refused=refused)


@app.command()
def audit(
    run: Annotated[
        str, typer.Argument(help="A run folder, or a file or folder of preference pairs.", metavar="RUN|DATA")
    ],
    fail_above: Annotated[
        float | None,
        typer.Option(
            help="Exit with 3 if any view's AUC is above this, or can't be measured.", min=0.5, max=1.0
        ),
    ] = None,
) -> None:
    """Look for shortcuts: can a linear model on surface features tell chosen from rejected?"""
    from music_ray.config import AuditConfig
    from music_ray.generate.audit import run as auditing
    from music_ray.generate.audit.text import show
    from music_ray.rundir import RunDir

    is_run = auditing.is_run_folder(run)
    found = (
        auditing.run_audit(RunDir(_config_of_run(run))) if is_run else auditing.audit_path(run, AuditConfig())
    )
    show(found)
    if fail_above is not None:
        auditing.check_below(found, fail_above)


@app.command()
def export(
    run: RunArgument,
    format: Annotated[Literal["sft", "dpo"], typer.Option(help="What the rows are for.")],
    out: Annotated[str | None, typer.Option(help="Folder or URI; RUN/export/FORMAT by default.")] = None,
    branch: Annotated[Literal["chosen", "rejected"], typer.Option(help="sft: whose side.")] = "chosen",
) -> None:
    """Write the accepted pairs as conversations (sft) or as prompts with two replies (dpo)."""
    from music_ray.generate.export.write import run_export
    from music_ray.rundir import RunDir

    run_export(RunDir(_config_of_run(run)), format, out, branch)


@app.command()
def push(
    run: RunArgument,
    repo: Annotated[str, typer.Option(help="OWNER/NAME on the Hugging Face hub.")],
    what: Annotated[Literal["pairs", "sft", "dpo", "model"], typer.Option(help="What goes.")] = "pairs",
    public: Annotated[bool, typer.Option("--public/--private", help="Who may read it.")] = False,
    licence_checked: Annotated[
        bool, typer.Option("--licence-checked", help="Make it public though a licence is unknown.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Upload a finished folder with its card to the Hugging Face hub, in one commit (HF_TOKEN)."""
    from music_ray.generate.export.push import run_push
    from music_ray.rundir import RunDir

    folder = RunDir(_config_of_run(run))
    run_push(folder, repo, what, public=public, licence_checked=licence_checked, dry_run=dry_run)


@app.command()
def score(
    model: ModelArgument,
    data: Annotated[
        str,
        typer.Argument(
            help="Parquet or JSON lines, or a folder of them, with `messages`, or `chosen` and `rejected`.",
            metavar="INPUT",
        ),
    ],
    out: Annotated[str, typer.Option(help="Folder or URI for the scores: a new one, or to go on with.")],
    overrides: OverridesArgument = None,
    engine: Annotated[
        Literal["auto", "vllm", "huggingface", "packed"] | None, typer.Option(help="Short for score.engine=…")
    ] = None,
) -> None:
    """Score conversations with a reward model; interrupted, the same command goes on."""
    from music_ray.score.run import run_score

    run_score(model, data, out, [*(overrides or []), *([f"score.engine={engine}"] if engine else [])])


@app.command()
def serve(
    model: ModelArgument,
    overrides: OverridesArgument = None,
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.", min=1, max=65535)] = 8000,
) -> None:
    """Serve a reward model's scores over HTTP, on this machine alone and with a token."""
    from music_ray.score.serve import run_serve

    run_serve(model, port, overrides or [])


cli_cluster.register(app)


@app.command()
def version() -> None:
    """Print the version."""
    say(__version__)


def main() -> None:
    """Entry point: turns what is meant for the user into one message and an exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    quieten_libraries()
    try:
        code = app(standalone_mode=False)
        if code == EXIT_INTERRUPTED:  # typer's own word for Ctrl-C
            raise KeyboardInterrupt
    except MusicRayError as error:
        _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not break the clean end
        _stop_ray()
        _fail("interrupted: the same command goes on from here", EXIT_INTERRUPTED)
    except Exception as error:
        if not isinstance(error, OSError) and type(error).__module__ != "pyarrow.lib":
            _fail_usage(error)
        from music_ray.storage import as_user_error

        meant = as_user_error(error)  # which raises the error itself where it is a bug
        _fail(str(meant), meant.exit_code)
    else:
        sys.exit(code if isinstance(code, int) else 0)


def _load(config: str, overrides: list[str] | None) -> RunConfig:
    from music_ray.config.load import load_config

    return load_config(config, overrides or [])


def _stage(stage: str, config: RunConfig, dry_run: bool) -> None:
    if dry_run:
        return _print_config(config)
    from music_ray.run import run_stages

    folder = run_stages(config, [stage], need_upstream=True)
    say(f"{stage}: {folder.display()}")
    return None


def _print_config(config: RunConfig) -> None:
    from music_ray.config.load import dump_config

    sys.stdout.write(dump_config(config))


def _config_of_run(folder: str) -> RunConfig:
    from music_ray.run import config_of_run

    return config_of_run(folder)


def _interrupt(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


def _stop_ray() -> None:
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()


def _fail(message: str, code: int) -> None:
    sys.stdout.flush()
    for line in message.splitlines():
        sys.stderr.write(f"music-ray: {visible(line)}\n")
    sys.exit(code)


def _fail_usage(error: Exception) -> None:
    """A wrong command line becomes its usage message; anything else is a bug and keeps its traceback."""
    if hasattr(error, "exit_code") and hasattr(error, "format_message"):
        context = getattr(error, "ctx", None)
        if context is not None:
            sys.stderr.write(context.get_usage() + "\n")
        _fail(error.format_message(), int(error.exit_code))
    raise error
