"""The prompt templates: text goes in as it is, and every change of a template changes the hash."""

from importlib import resources
from pathlib import Path

import jinja2
import pytest

from music_ray import prompts

FOLDER = Path(str(resources.files("music_ray.prompts")))
VALUES = {
    "contrast_joint.j2": {"message": "Sort these."},
    "contrast_two_step.j2": {"message": "Sort these."},
    "user_prompted.j2": {"has_history": True, "max_words": 40},
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


@pytest.mark.parametrize("name", ["contrast_joint.j2", "contrast_two_step.j2"])
def test_what_users_wrote_is_never_a_template_and_never_escaped(name: str) -> None:
    hostile = "{{ 7 * 7 }} {% raise %} <b>&amp;</b> </modified_instruction>"
    assert prompts.render(name, message=hostile).startswith(hostile)


def test_the_hash_knows_every_template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hash_of(folder: Path) -> str:
        monkeypatch.setattr(prompts.resources, "files", lambda _: folder)
        return prompts.prompt_hash.__wrapped__()

    for path in FOLDER.glob("*.j2"):
        (tmp_path / path.name).write_text(path.read_text())
    assert hash_of(tmp_path) == hash_of(FOLDER)
    seen = {hash_of(FOLDER)}
    for path in sorted(tmp_path.glob("*.j2")):
        path.write_text(path.read_text() + " ")
        seen.add(hash_of(tmp_path))
    (tmp_path / "user_prompted.j2").rename(tmp_path / "user_other.j2")
    seen.add(hash_of(tmp_path))
    assert len(seen) == 2 + len(VALUES)
