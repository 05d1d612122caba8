"""Every evaluation of a run's page beside its own stage: any models on any pairs, and best-of-N."""

from __future__ import annotations

from music_ray.errors import InputError
from music_ray.report.any_model import AnyModel, read_any_model
from music_ray.report.best_of_n import BestOfN, read_best_of_n
from music_ray.report.calibration import Calibration, calibration
from music_ray.report.evaluation import Evaluation
from music_ray.report.given import BEST_OF_N, EVALUATION, Place


def read_place(place: Place) -> AnyModel | BestOfN:
    """What a folder holds.

    Raises:
        InputError: it is gone, or its document is damaged.
    """
    if place.kind == EVALUATION:
        return read_any_model(place)
    if place.kind == BEST_OF_N:
        return read_best_of_n(place)
    raise InputError("the folder is gone: name another with music-ray report RUN --evaluation FOLDER")


def calibrations(
    own: Evaluation | None, any_models: list[AnyModel]
) -> list[tuple[str, list[Calibration], str]]:
    """Models that are calibrated on the same pairs, together: the pairs in words, models, a key for ids."""
    found = [
        (
            suite.label,
            [calibration(model, scores.margins) for model, scores in suite.scores.items()],
            f"own-{suite.name}",
        )
        for suite in (own.suites if own else ())
    ]
    for number, one in enumerate(any_models):
        for index, pairs in enumerate(one.sets):
            models = [
                calibration(mark, [chosen - rejected for chosen, rejected in scores])
                for mark, scores in pairs.scores.items()
            ]
            found.append((pairs.name, models, f"{number}-{index}"))
    return [
        (title, known, key)
        for title, models, key in found
        if (known := [one for one in models if one is not None])
    ]
