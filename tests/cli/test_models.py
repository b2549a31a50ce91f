"""``volseg models``: cards as text and as JSON."""

from __future__ import annotations

import json

from volseg.storage.cards import update_card


def test_card_of_own_weights(volseg, toy_model):
    shown = volseg("models", "show", toy_model, "--json")
    assert shown.exit_code == 0
    card = json.loads(shown.stdout)
    assert card == json.loads(toy_model.with_suffix(".json").read_text(encoding="utf-8"))
    text = volseg("models", "show", toy_model).stdout
    assert "sha256: " + card["sha256"] in text
    assert "tile: " + " x ".join(map(str, card["tile"])) in text


def test_a_card_as_text_holds_what_a_person_reads(volseg):
    text = volseg("models", "show", "unet2d-general").stdout
    card = json.loads(volseg("models", "show", "unet2d-general", "--json").stdout)
    lines = text.splitlines()
    assert lines[1] == "terms: " + card["training"]["terms"]
    assert f"objects: from a probability of {card['threshold']:g} on" in text
    recipe = card["training"]["recipe"]
    assert f"    batch: {recipe['batch']}" in lines, "it is not the default"
    assert not [line for line in lines if line.startswith("    optimizer")], "it is the default"
    low, high = card["tissue"]["precision"]["like"]
    places = card["tissue"]["places"]
    assert f"compared with {places} places of the training data; in what is like, " in text
    assert f"precision is {low:.4g} to {high:.4g} of the mean probability" in text
    # no matrix, and of hashes that of the weights alone
    assert max(len(line) for line in lines[2:]) < 600
    assert [word for word in text.split() if len(word) == 64] == [card["sha256"]]


def test_a_card_as_text_holds_all_rules_of_objects(volseg):
    least = "of a mean probability of {} at least or more than {} network voxels"
    median = "of the median of slices 35 nm apart"
    for name, rules in (
        ("unet2d", least.format(0.85, 24000)),
        (
            "unet2d-general",
            f"of 1093 network voxels at least, {least.format(0.65, 1457726)}, {median}",
        ),
    ):
        lines = volseg("models", "show", name).stdout.splitlines()
        assert f"objects: from a probability of 0.5 on, {rules}" in lines


def test_a_card_of_nonsense_in_free_tables_is_told(volseg, toy_model):
    odd = {"tissue": {"precision": {"like": ["a", None], "unlike": 3}}, "scores": {"1": [None]}}
    update_card(toy_model, {**odd, "training": {"recipe": {"steps": {}, "augmentation": 3}}})
    shown = volseg("models", "show", toy_model)
    assert shown.exit_code == 0, shown.output
    assert "compared with ? places" in shown.stdout
    assert "in what is like, precision is a to None" in shown.stdout


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
