"""Rows of a Hugging Face dataset, streamed through the datasets library. No code of a dataset is run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from music_ray.data_files import RawRow
from music_ray.errors import InputError


def hub_rows(dataset: str, revision: str | None, split: str, key: str = "data.sources") -> Iterator[RawRow]:
    """All rows of one split, as a stream.

    Args:
        key: the configuration key that names the dataset, for messages.

    Raises:
        InputError: the dataset, revision or split does not exist, or the hub can't be reached.
    """
    import datasets
    from huggingface_hub.errors import HTTPError

    def problem(error: Exception) -> InputError:
        where = dataset if revision is None else f"{dataset} at revision {revision}"
        cause = " ".join(str(error).split()) or type(error).__name__
        return InputError(
            f"cannot read the {split} split of the Hugging Face dataset {where}: {cause[:400]}; check the "
            f"id, revision and split in {key}, the network, and for gated datasets `hf auth login`; or "
            "download it and name its files with `path`"
        )

    # Missing and gated datasets and unreachable hosts are OSErrors or the hub client's errors; a wrong split
    # or configuration is a ValueError, a dataset that consists of code a RuntimeError.
    foreseen = (OSError, ValueError, RuntimeError, HTTPError, datasets.exceptions.DatasetsError)
    try:
        rows: Iterator[dict[str, Any]] = iter(
            datasets.load_dataset(dataset, split=split, revision=revision, streaming=True)
        )
    except foreseen as error:
        raise problem(error) from None
    number = 0
    while True:
        try:
            value = next(rows)
        except StopIteration:
            return
        except foreseen as error:
            raise problem(error) from None
        number += 1
        yield RawRow(dataset, number, value)
