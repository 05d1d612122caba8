"""What `music-ray report` does with its words: the page of one run, or of two side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from music_ray.config import RunConfig
from music_ray.errors import ConfigError
from music_ray.progress import say
from music_ray.report.build import render_side_by_side
from music_ray.report.collect import collect
from music_ray.report.given import remember
from music_ray.rundir import RunDir, open_filesystem


def report_command(
    run: str,
    other: str | None,
    evaluations: Sequence[str],
    out: str | None,
    config_of_run: Callable[[str], RunConfig],
    run_stages: Callable[..., RunDir],
) -> None:
    """Builds the page of a run as its stage does, or that of two runs.

    Args:
        evaluations, out: see name_evaluations and report_of_two.
        config_of_run, run_stages: lent by the entry point: music_ray.run's.

    Raises:
        MusicRayError: one is no run folder, or the words do not go together.
    """
    config = config_of_run(run)
    if other is not None:
        say(f"report: {report_of_two(RunDir(config), RunDir(config_of_run(other)), evaluations, out)}")
        return
    name_evaluations(RunDir(config), evaluations, out)
    say(f"report: {run_stages(config, ['report'], again=True).display('report', 'index.html')}")


def name_evaluations(run: RunDir, folders: Sequence[str], out: str | None) -> None:
    """Remembers the evaluations that were named for a run's page, instead of those named before.

    Raises:
        InputError: one is no evaluation's folder.
        ConfigError: there is an `out`, which goes with two runs.
    """
    if out is not None:
        raise ConfigError(
            f"--out {out} goes with two runs: the page of one lies in {run.display('report')}; leave it out"
        )
    if folders:
        remember(run, folders)


def report_of_two(first: RunDir, second: RunDir, folders: Sequence[str], out: str | None) -> str:
    """Writes the page of two runs side by side.

    Args:
        folders: evaluations; there may be none, since each belongs to one of the runs.
        out: a file or URI; report/against-SECOND.html in the first run's folder without.

    Returns:
        where the page lies.

    Raises:
        ConfigError: both are the same run, or evaluations are named.
    """
    if folders:
        raise ConfigError(
            f"--evaluation {folders[0]} goes with one run: name it with `music-ray report RUN --evaluation "
            "FOLDER` first; the page of two runs then shows it as well"
        )
    if first.root == second.root:
        raise ConfigError(f"{first.display()} is named twice: name two runs, or one for its own page")
    page = render_side_by_side((first, collect(first)), (second, collect(second)))
    if out is None:
        parts = ("report", f"against-{second.config.name}.html")
        first.write_text(page, *parts)
        return first.display(*parts)
    fs, path = open_filesystem(out)
    parent, slash, _ = path.rpartition("/")
    fs.create_dir(parent or slash)
    with fs.open_output_stream(path) as stream:
        stream.write(page.encode("utf-8"))
    return out
