"""The prompt templates: text goes in as it is, and every change of a template changes the hash."""

from importlib import resources
from pathlib import Path

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from music_ray import prompts

FOLDER = Path(str(resources.files("music_ray.prompts")))
CONTRASTS = ["contrast_direct.j2", "contrast_joint.j2", "contrast_two_step.j2"]
VALUES = {
    **{name: {"message": "Sort these.", "chosen_reply": None} for name in CONTRASTS},
    "user_prompted.j2": {"has_history": True, "max_words": 40},
    "judge_pair.j2": {"shared": [], "a": [], "b": []},
}


def test_every_template_is_tried_here() -> None:
    assert {path.name for path in FOLDER.glob("*.j2")} == VALUES.keys()


@pytest.mark.parametrize("name", VALUES)
def test_a_template_renders_to_plain_text(name: str) -> None:
    text = prompts.render(name, **VALUES[name])
    assert text == text.strip() and "{{" not in text and "{%" not in text


@pytest.mark.parametrize("name", VALUES)
def test_a_value_left_out_is_an_error(name: str) -> None:
    with pytest.raises(jinja2.UndefinedError):
        prompts.render(name)


@pytest.mark.parametrize("name", CONTRASTS)
def test_what_users_wrote_is_never_a_template_and_never_escaped(name: str) -> None:
    hostile = "{{ 7 * 7 }} {% raise %} <b>&amp;</b> </modified_instruction>"
    assert prompts.render(name, message=hostile, chosen_reply=None).startswith(hostile)


@pytest.mark.parametrize("name", CONTRASTS)
def test_a_chosen_reply_is_shown_only_where_there_is_one(name: str) -> None:
    without = prompts.render(name, message="Sort these.", chosen_reply=None)
    shown = prompts.render(name, message="Sort these.", chosen_reply="1, 2, 3")
    assert "fence" not in without and "\n\n\n" not in without
    assert "\n```\n1, 2, 3\n```\n" in shown
    # All that stands without it, in the same order: the chosen reply adds lines and takes none away.
    kept = iter(shown.splitlines())
    assert all(line in kept for line in without.splitlines())


@given(st.text(alphabet="`~a \n", max_size=40))
def test_no_text_can_close_its_fence(text: str) -> None:
    opening, *inside, closing = prompts.fence(text).split("\n")
    assert opening == closing and set(opening) == {"`"} and len(opening) >= 3
    assert "\n".join(inside) == text
    assert opening not in text


def test_the_hash_knows_every_template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hash_of(folder: Path) -> str:
        monkeypatch.setattr(prompts.resources, "files", lambda _: folder)
        return prompts.prompt_hash.__wrapped__()

    for path in FOLDER.glob("*.j2"):
        (tmp_path / path.name).write_text(path.read_text())
    assert hash_of(tmp_path) == hash_of(FOLDER)
    seen = {hash_of(FOLDER)}
    (tmp_path / "judge_pair.j2").write_text("another judge makes no other rollouts")
    assert hash_of(tmp_path) == hash_of(FOLDER)
    for path in sorted(tmp_path.glob("[!j]*.j2")):
        path.write_text(path.read_text() + " ")
        seen.add(hash_of(tmp_path))
    (tmp_path / "user_prompted.j2").rename(tmp_path / "user_other.j2")
    seen.add(hash_of(tmp_path))
    assert len(seen) == 2 + len(VALUES.keys() - {"judge_pair.j2"})
