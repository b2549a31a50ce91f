"""Recipes survive writing and reading, whatever stands in them."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volseg.errors import ParameterError, StorageError
from volseg.storage.recipes import format_toml, read_recipe, write_recipe

words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=12)
numbers = st.integers(-(2**60), 2**60) | st.floats(allow_nan=False)
plain = words | numbers | st.booleans()
values = plain | st.lists(plain, max_size=3)
tables = st.dictionaries(words.filter(bool), values, max_size=4)
recipes = st.dictionaries(
    words.filter(bool), values | tables | st.lists(tables, min_size=1, max_size=2), max_size=4
)


@given(recipes)
def test_what_is_written_is_what_is_read(recipe):
    assert tomllib.loads(format_toml(recipe)) == recipe


def test_none_is_left_out_and_a_comment_leads(tmp_path):
    path = tmp_path / "recipe.toml"
    write_recipe(path, {"a": None, "recipe": {"patch": (1, 2, 3), "ema": 1e-05}}, "made\nhere")
    assert path.read_text().startswith("# made\n# here\n")
    assert read_recipe(path) == {"recipe": {"patch": [1, 2, 3], "ema": 1e-05}}


def test_files_that_are_none_are_named(tmp_path):
    path = tmp_path / "recipe.toml"
    with pytest.raises(ParameterError, match=r"there is no file .*recipe\.toml"):
        read_recipe(path)
    path.write_text("a = = 3")
    with pytest.raises(ParameterError, match=r"recipe\.toml cannot be read as TOML"):
        read_recipe(path)
    with pytest.raises(StorageError, match="cannot write"):
        write_recipe(tmp_path / "nowhere" / "recipe.toml", {}, "x")
