"""The commands for a Ray cluster: submit, status, stop. No logic, and nothing heavy imported."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

AddressOption = Annotated[
    str | None,
    typer.Option(help="The cluster's job server, e.g. http://127.0.0.1:8265; else RAY_API_SERVER_ADDRESS."),
]
OverridesArgument = Annotated[
    list[str] | None, typer.Argument(help="Overrides such as generate.turns=3.", metavar="[KEY=VALUE]...")
]
JobArgument = Annotated[
    str, typer.Argument(help="A YAML file, or a job's id such as music-ray-demo-1.", metavar="CONFIG|JOB")
]


def register(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    for command in (submit, status, stop):
        app.command()(command)


def submit(
    config: Annotated[str, typer.Argument(help="A YAML file in this folder or below.", metavar="CONFIG")],
    overrides: OverridesArgument = None,
    address: AddressOption = None,
    stage: Annotated[
        Literal["run", "seeds", "generate", "pairs", "mix", "train", "evaluate"],
        typer.Option(help="All stages (run), or one."),
    ] = "run",
    env: Annotated[
        list[str] | None, typer.Option(help="Name of a variable to pass with its value; repeatable.")
    ] = None,
    driver_cpus: Annotated[float, typer.Option(help="CPUs for the driver; 0: on the head.", min=0.0)] = 0.0,
    follow: Annotated[bool, typer.Option(help="Show the log until the job ends.")] = True,
    resubmit: Annotated[
        int, typer.Option(help="Submit a job that was lost or ended with 75 again, up to so often.", min=0)
    ] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be submitted.")] = False,
) -> None:
    """Run a configuration as a job of a Ray cluster, from a copy of this folder."""
    from music_ray.submit.command import Wishes, submit_command

    wishes = Wishes(address, stage, env or [], driver_cpus, follow, resubmit, dry_run)
    submit_command(config, overrides or [], wishes)


def status(
    what: Annotated[
        str | None,
        typer.Argument(help="A YAML file or a job's id.", metavar="[CONFIG|JOB]"),
    ] = None,
    overrides: OverridesArgument = None,
    address: AddressOption = None,
) -> None:
    """Show the cluster's jobs of music_ray, or one run's jobs and stages."""
    from music_ray.submit.status import status_command

    status_command(what, overrides or [], address)


def stop(what: JobArgument, overrides: OverridesArgument = None, address: AddressOption = None) -> None:
    """Stop a run's job; the same submit goes on."""
    from music_ray.submit.stop import stop_command

    stop_command(what, overrides or [], address)
