"""The pool of similar but different requests."""

from music_ray.generate.neighbours import NeighbourPool

POOL = ["How long should I boil eggs?", "How long should I boil potatoes?", "Name three museums in Rome."]


def test_the_nearest_message_that_is_another_request_is_drawn():
    pool = NeighbourPool(POOL, max_similarity=0.8)
    assert pool.draw("How long should I boil eggs?", set(), 1) == "How long should I boil potatoes?"


def test_what_the_user_has_asked_before_is_no_contrast():
    pool = NeighbourPool(POOL, max_similarity=0.8)
    asked = {"How long should I boil eggs?", "How long should I boil potatoes?"}
    assert pool.draw("How long should I boil eggs?", asked, 1) == "Name three museums in Rome."
    assert pool.draw("How long should I boil eggs?", set(POOL), 1) is None


def test_without_a_shared_word_all_are_drawn_from():
    pool = NeighbourPool([f"topic{n} word{n}" for n in range(50)], max_similarity=0.8)
    drawn = {pool.draw("nothing alike", set(), key) for key in range(200)}
    assert len(drawn) > 40


def test_the_draw_is_a_function_of_its_key():
    pool = NeighbourPool([f"boil {n}" for n in range(20)], max_similarity=0.99)
    assert [pool.draw("boil", set(), key) for key in range(9)] == [
        pool.draw("boil", set(), key) for key in range(9)
    ]


def test_messages_without_a_word_that_counts_still_make_a_pool():
    pool = NeighbourPool(["And you?", "Why?", "??"], max_similarity=0.9)
    assert pool.draw("Why?", {"Why?"}, 1) in {"And you?", "??"}
