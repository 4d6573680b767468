"""A model as TOML: what is printed is the model again."""

from pathlib import Path

import pytest

import bayes_hte as hte
from bayes_hte.model.text.model_toml import write_model_toml
from bayes_hte.spec.files import list_shipped_models


@pytest.mark.parametrize("name", list_shipped_models())
def test_what_is_written_is_read_as_the_same_model(name: str, tmp_path: Path) -> None:
    model = hte.read_model(name)
    path = tmp_path / "model.toml"
    path.write_text(write_model_toml(model), encoding="utf-8")
    assert hte.read_model(path) == model


def test_any_title_survives(tmp_path: Path) -> None:
    model = hte.read_model("conversion").model_copy(update={"title": 'a "quoted" \\ title\nof two lines, é and \x7f'})
    path = tmp_path / "model.toml"
    path.write_text(write_model_toml(model), encoding="utf-8")
    assert hte.read_model(path).title == model.title
