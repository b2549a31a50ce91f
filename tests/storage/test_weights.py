"""Weights and cards: what is saved comes back, and what does not fit is refused."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from toy_weights import toy_card
from volseg.errors import ModelError, StorageError
from volseg.storage.cards import find_weights, load_card
from volseg.storage.weights import load_weights, save_weights

CARD = toy_card(3, tile=[16, 32, 32])


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "toy.safetensors"
    save_weights(path, {"a": torch.arange(3.0)}, CARD)
    return path


def test_round_trip(saved):
    card = load_card(saved)
    assert card.tile == (16, 32, 32)
    assert load_card(saved.with_suffix(".json")) == card
    assert (load_weights(saved, card)["a"] == torch.arange(3.0)).all()
    assert sorted(p.name for p in saved.parent.iterdir()) == ["toy.json", "toy.safetensors"]


def test_a_card_need_not_say_from_which_mean_probability_on_objects_count(saved):
    path = saved.with_suffix(".json")
    content = json.loads(path.read_text())
    assert content.pop("min_probability") == load_card(saved).min_probability == 0
    path.write_text(json.dumps(content))
    assert load_card(saved).min_probability == 0
    path.write_text(json.dumps(content | {"min_probability": 0.9}))
    assert load_card(saved).min_probability == 0.9


def test_changed_weights_are_refused(saved):
    card = load_card(saved)
    content = bytearray(saved.read_bytes())
    content[-1] ^= 1
    saved.write_bytes(content)
    with pytest.raises(ModelError, match="sha256"):
        load_weights(saved, card)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("width", 0),
        ("width", 10**9),
        ("tile", [1, 2]),
        ("tile", [16, 32, "x"]),
        ("preprocessing", [1, 99]),
        ("preprocessing", {**CARD["preprocessing"], "percentiles": [99, 1]}),
        ("preprocessing", {**CARD["preprocessing"], "gamma": 0}),
        ("threshold", 2),
        ("min_probability", 1.5),
        ("min_probability", -0.1),
        ("min_probability", None),
        ("min_probability", True),
        ("min_probability", "0.9"),
        ("training", 3),
    ],
)
def test_bad_cards_are_refused(saved, field, value):
    path = saved.with_suffix(".json")
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    with pytest.raises(ModelError, match="not a valid card"):
        load_card(saved)


@pytest.mark.parametrize("text", ["", "[]", "{}", "nonsense", '{"name": "x"}'])
def test_files_that_are_no_cards_are_refused(saved, text):
    saved.with_suffix(".json").write_text(text)
    with pytest.raises(ModelError, match="not a valid card"):
        load_card(saved)


def test_a_missing_card_and_a_missing_model_are_named(saved, tmp_path):
    saved.with_suffix(".json").unlink()
    with pytest.raises(ModelError, match="need a card"):
        load_card(saved)
    with pytest.raises(ModelError, match="no weights at"):
        find_weights(tmp_path / "none.safetensors")
    with pytest.raises(ModelError, match="no model is called 'nonesuch'"):
        find_weights("nonesuch")


def test_weights_that_cannot_be_written_are_a_storage_error(tmp_path, toy_model):
    card = load_card(toy_model)
    tensors = load_weights(toy_model, card)
    with pytest.raises(StorageError, match="cannot write"):
        save_weights(tmp_path / "nowhere" / "x.safetensors", tensors, dataclasses.asdict(card))
    assert not list(tmp_path.iterdir())
