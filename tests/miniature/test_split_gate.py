"""No list of the suites in what is trained on."""

from dataclasses import replace

from music_ray.miniature.split_gate import first_foreign_list, list_of_another_split, lists
from music_ray.miniature.world import conversation
from tests.report.report_folder import make_rollout


def test_lists_are_what_users_write_out() -> None:
    messages = [
        {"role": "user", "content": "Join a b c and d d."},
        {"role": "assistant", "content": "a b c d d"},
        {"role": "user", "content": "Sort it."},
        {"role": "assistant", "content": "d c b"},
        {"role": "user", "content": "Tell me a b."},
    ]
    assert list(lists(messages)) == ["abc", "dd", "ab"]


def test_conversations_keep_to_their_split() -> None:
    for split in ("train", "dev", "suites"):
        for seed in range(50):
            messages = conversation(seed, 4, split=split)
            assert first_foreign_list(messages, split) == ""
            found = next(lists(messages))
            assert all(
                first_foreign_list(messages, other) == found
                for other in ("train", "dev", "suites")
                if other != split
            )


def test_the_gate_looks_at_both_branches() -> None:
    allowed = [{"role": "user", "content": "Sort a b d."}, {"role": "assistant", "content": "a b d"}]
    foreign = [{"role": "user", "content": "Sort a b e."}, {"role": "assistant", "content": "a b e"}]
    rollout = make_rollout(1)
    assert list_of_another_split(replace(rollout, chosen=allowed, rejected=allowed)) == ""
    for sides in ({"chosen": foreign, "rejected": allowed}, {"chosen": allowed, "rejected": foreign}):
        assert list_of_another_split(replace(rollout, **sides)) == (
            "a user writes out a b e, which is of the split suites"
        )
