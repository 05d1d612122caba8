"""What of a job's failures is meant for the user, and what is a bug."""

import pytest

from music_ray.errors import TransientError
from music_ray.jobs.results import Results

AWAY = "OSError: When reading information for key 'a' in bucket 'b': AWS Error SLOW_DOWN during HeadObject"


class Failing:
    """A dataset whose first task fails with these words."""

    def __init__(self, *lines: str) -> None:
        self.text = "\n".join(
            ("Traceback (most recent call last):", '  File "x.py", line 1, in read', *lines)
        )

    def iter_batches(self, **_: object):
        from ray.exceptions import RayTaskError

        raise RayTaskError("read", self.text, OSError())
        yield


def test_a_store_that_fails_under_the_input_is_told_in_a_sentence():
    with pytest.raises(TransientError) as told:
        Results(Failing(AWAY)).take(timeout=60)
    assert str(told.value).startswith(f"{AWAY}; 11 tries have failed. All that is finished is kept")


def test_a_bug_keeps_its_traceback():
    from ray.exceptions import RayTaskError

    with pytest.raises(RayTaskError, match="line 1, in read\nKeyError"):
        Results(Failing("KeyError: 'id'")).take(timeout=60)
