"""How a result that stands differs from what is asked for, in words."""

from __future__ import annotations

import pytest

from volseg.differences import tell_apart

RUN = {
    "format": 2,
    "raw": "a1",
    "model": "m1",
    "tone": {"window": [0.0, 1.0]},
    "level": 0,
    "lattice": [{"tile": 256}] * 3,
    "roi": [[0, 8], [0, 9], [1, 4]],
    "averaged": [False, False, "ortho"],
    "device": "cpu",
    "precision": "float32",
}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"model": "m2", "averaged": [False, False, "xy"], "lattice": [{"tile": 96}] * 3},
            "was made with unet2d along three axes; you ask for emnet",
        ),
        (
            {"model": "m2", "averaged": [True, True, "xy"], "precision": "bfloat16"},
            "axes, in float32; you ask for emnet, averaged over flips and quarter turns, bfloat16",
        ),
        ({"roi": [[0, 8], [2, 9], [1, 4]]}, "for the region 0:8,0:9,1:4; you ask for the region "),
        ({"lattice": [{"tile": 96}] * 3}, "in tiles of 256 x 256 x 256; you ask for tiles of 96 x"),
        ({"raw": "b2"}, "from other voxels; you ask for those that the volume holds now"),
        ({"device": "cuda"}, "on cpu; you ask for cuda"),
        ({"roi": 7}, "for the region 0:8,0:9,1:4; you ask for roi 7"),
        ({"smoothed": 3}, "with no smoothed; you ask for smoothed 3"),
    ],
)
def test_a_network_and_what_it_saw(changes, said):
    assert said in tell_apart(RUN, RUN | changes, ("unet2d", "emnet"))


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [
        (
            {},
            {"split": "distance"},
            "no split; you ask for touching objects split by distance",
        ),
        ({"fill_holes": True}, {}, "with filled holes; you ask for no filled holes"),
        ({"connectivity": 6}, {"connectivity": 26}, "with 6 neighbours; you ask for 26 neighbours"),
        ({"probabilities": "a"}, {"probabilities": "b"}, "from probabilities of unet2d; you ask"),
        ({"output": "contour"}, {"output": "distance"}, "as contours; you ask for distances"),
        ({"output": None}, {"output": "offset-y"}, "as a class; you ask for offsets along y"),
        ({"output": "centerline"}, {}, "as centerlines; you ask for a class"),
        ({"min_probability": 0.9}, {}, "mean probability of 0.9; you ask for no lowest mean"),
        (
            {"min_probability": 0.9, "faint_size": 50},
            {"min_probability": 0.9},
            (
                "was made with a lowest mean probability of 0.9 for objects up to 50 voxels; you "
                "ask for a lowest mean probability of 0.9 for objects of any size"
            ),
        ),
        (
            {"min_size": 4},
            {"min_probability": 0.9, "faint_size": 50, "min_size": 3},
            (
                "was made with no lowest mean probability, with a smallest size of 4 voxels; you "
                "ask for a lowest mean probability of 0.9 for objects up to 50 voxels, a smallest "
                "size of 3 voxels"
            ),
        ),
    ],
)
def test_the_rules_of_objects(was, now, said):
    assert said in tell_apart(was, now, ("unet2d", "emnet"))


def test_along_which_axes_is_told_of_one_network_too():
    now = RUN | {"averaged": [False, False, "xy"]}
    expected = "was made with unet2d along three axes; you ask for unet2d along z"
    assert tell_apart(RUN, now, ("unet2d", "unet2d")) == expected


def test_networks_of_one_name_are_told_apart_by_their_hashes():
    found = tell_apart(RUN, RUN | {"model": "m2"}, ("mine", "mine"))
    assert found == "was made with mine m1 along three axes; you ask for mine m2 along three axes"


def test_what_has_no_record_is_said_to_have_none():
    assert "no record says how it was made" in tell_apart(None, RUN, ("", "emnet"))
