"""Shipped weights: small enough together, and restricted ones say so."""

from __future__ import annotations

from volseg.stages.predict.network import note_terms
from volseg.storage.cards import find_weights, load_card, shipped_models
from volseg.storage.weights import load_weights


def test_they_are_small_and_are_what_their_cards_describe():
    paths = [find_weights(name) for name in shipped_models()]
    assert sum(path.stat().st_size for path in paths) <= 40e6
    for name in shipped_models():
        load_weights(name, load_card(name))


def test_who_trained_on_non_commercial_data_says_so_when_a_run_is_planned():
    """By the data that cards name: all but those of EPFL are restricted."""
    for name in shipped_models():
        card = load_card(name)
        told = note_terms(card)
        restricted = any("lucchi" not in str(data.get("volume")) for data in _data(card))
        assert bool(told) == restricted, name
        assert not told or "non-commercial use only" in told[0]
    assert note_terms(load_card("unet2d-general"))


def _data(card):
    found = card.training["data"]
    return list(found.values()) if isinstance(found, dict) else []
