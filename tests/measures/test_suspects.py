"""What is unlike the rest, or not sure, is ranked first."""

from __future__ import annotations

import numpy as np
import pytest

from volseg.measures.suspects import rank_suspects


def columns(count=40, **changes):
    random = np.random.default_rng(3)
    found = {
        "voxels": random.integers(900, 1100, count),
        "sphericity": random.uniform(0.75, 0.85, count),
        "complexity_index": random.uniform(1.0, 1.2, count),
        "elongation": random.uniform(1.5, 1.9, count),
        "probability_mean": np.full(count, 0.99),
        "touches_border": np.zeros(count, bool),
    }
    for name, values in changes.items():
        for row, value in values.items():
            found[name][row] = value
    return found


def test_reasons_are_named_and_rank():
    table = columns(
        voxels={3: 90_000},
        probability_mean={5: 0.6},
        touches_border={7: True},
        sphericity={3: 0.2},
    )
    found = rank_suspects(table, 10)
    assert [s.row for s in found] == [3, 5, 7]
    assert set(found[0].reasons) == {"unusually large", "unusually far from round"}
    assert found[1].reasons == ("low mean probability",)
    assert found[2].reasons == ("touches the border",)
    assert rank_suspects(table, 1) == found[:1]


def test_of_a_few_objects_none_is_called_unusual():
    table = columns(7, voxels={3: 90_000}, probability_mean={5: 0.8})
    assert [s.row for s in rank_suspects(table, 10)] == [5]


def test_a_table_without_shapes_is_enough():
    table = {"voxels": np.arange(10, 20), "touches_border": np.eye(10, dtype=bool)[4]}
    assert [s.row for s in rank_suspects(table, 10)] == [4]


def test_values_that_are_not_known_speak_for_nothing():
    table = columns(elongation=dict.fromkeys(range(40), np.nan), probability_mean={1: np.nan})
    assert rank_suspects(table, 10) == []


def test_a_thin_neck_is_a_reason():
    (first, *_) = rank_suspects(columns(), 3, necks=[4])
    assert (first.row, first.reasons) == (4, ("thin neck, maybe several",))


def test_flips_and_views_that_disagree_are_reasons():
    found = rank_suspects(columns(), 3, flips={4: 0.2, 6: 0.05}, views={4: 0.2, 7: 0.4, 8: 0.15})
    assert [s.row for s in found] == [7, 4]
    assert found[0].reasons == ("views disagree by 0.40",)
    assert found[1].reasons == ("flips disagree by 0.20", "views disagree by 0.20")
    assert [s.score for s in found] == pytest.approx([2.5, 2.0])
