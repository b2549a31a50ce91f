"""Shipped weights: small enough together, and restricted ones say so."""

from __future__ import annotations

from dataclasses import replace

from volseg.stages.predict.network import note_terms
from volseg.stages.train.state import Start
from volseg.storage.cards import UNSTATED, find_weights, load_card, shipped_models
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


def test_weights_that_are_trained_on_keep_their_terms(tmp_path):
    general = load_card("unet2d-general")
    (told,) = note_terms(general, tmp_path / "my own.safetensors")
    assert f"`volseg models show '{tmp_path / 'my own.safetensors'}'`" in told
    start = Start(general)
    theirs = general.training["terms"]
    assert start.join_terms(theirs.partition(": ")[2]) == theirs, "said once"
    for own in (UNSTATED, "CC0"):
        joined = start.join_terms(own)
        assert joined.startswith("NON-COMMERCIAL")
        assert joined.endswith(own)
        later = Start(replace(general, training={"terms": joined}))
        assert later.join_terms(own) == joined
        for free in (Start(), Start(replace(general, training={"terms": UNSTATED}))):
            assert free.join_terms(own) == own


def _data(card):
    found = card.training["data"]
    return list(found.values()) if isinstance(found, dict) else []
