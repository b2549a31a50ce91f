"""``volseg models``: cards as text and as JSON."""

from __future__ import annotations

import json


def test_card_of_own_weights(volseg, toy_model):
    shown = volseg("models", "show", toy_model, "--json")
    assert shown.exit_code == 0
    card = json.loads(shown.stdout)
    assert card == json.loads(toy_model.with_suffix(".json").read_text(encoding="utf-8"))
    text = volseg("models", "show", toy_model).stdout
    assert "sha256: " + card["sha256"] in text
    assert "tile: " + ", ".join(map(str, card["tile"])) in text


def test_unknown_model_lists_what_there_is(volseg):
    result = volseg("models", "show", "unet")
    assert result.exit_code == 2
    assert "error: no model is called 'unet'; shipped: " in result.stderr


def test_every_listed_model_can_be_shown(volseg):
    names = [card["name"] for card in json.loads(volseg("models", "list", "--json").stdout)]
    lines = volseg("models", "list").stdout.splitlines()
    assert [line.split(":")[0] for line in lines if not line.startswith("  ")] == names
    for name in names:
        assert json.loads(volseg("models", "show", name, "--json").stdout)["name"] == name
