"""Tables become typed settings, or a message that names what is wrong."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from volseg.errors import ParameterError
from volseg.fields import read_fields
from volseg.training.augmentation import Augmentation
from volseg.training.config import TrainConfig


def test_a_whole_recipe_survives():
    config = TrainConfig(steps=3, patch=(8, 16, 16), augmentation=Augmentation(blur=0.5))
    table = json.loads(json.dumps(asdict(config)))
    table = {k: v for k, v in table.items() if v is not None}
    assert TrainConfig(**read_fields(TrainConfig, table, "recipe")) == config


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"stepz": 3, "los": "x"}, r"\[recipe\] has no settings called los, stepz; there are"),
        ({"steps": "many"}, "recipe.steps is of the type int, found 'many'"),
        ({"steps": True}, "recipe.steps is of the type int, found True"),
        ({"patch": [1, 2]}, "recipe.patch is a list of 3 values"),
        ({"patch": [1, 2, 3.5]}, "recipe.patch is of the type int, found 3.5"),
        ({"augmentation": {"blurr": 1}}, r"\[recipe.augmentation\] has no settings called blurr"),
        ({"augmentation": 3}, r"\[recipe.augmentation\] is a table"),
    ],
)
def test_what_cannot_be_read_is_named(table, message):
    with pytest.raises(ParameterError, match=message):
        read_fields(TrainConfig, table, "recipe")
