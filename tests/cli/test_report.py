"""``volseg report``: one page that holds all it shows, and asks for nothing."""

from __future__ import annotations

import html
import re
import shlex
import shutil
from html.parser import HTMLParser

import imagecodecs
import numpy as np
import pytest
import tifffile
from scipy import ndimage

from toy_browser import BROWSER, browsing
from volseg.stages.report.surfaces import can_mesh

# loops are compiled first, which takes long on a busy machine
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def measured(tmp_path_factory, toy_model):
    """A volume whose name is hostile, segmented and measured."""
    from click.testing import CliRunner

    from volseg.cli import main

    folder = tmp_path_factory.mktemp("reported")
    raw = ndimage.gaussian_filter(np.random.default_rng(8).random((20, 70, 60)), 2)
    raw = ((raw - raw.min()) / np.ptp(raw) * 255).astype(np.uint8)
    tifffile.imwrite(folder / "a.tif", raw, photometric="minisblack")
    volume = folder / "<script>alert(1)<!--.zarr"
    for words in (
        ("convert", folder / "a.tif", volume, "--voxel-size", "5", "-q"),
        ("segment", volume, "--model", toy_model, "-q"),
        ("stats", volume, "-q"),
    ):
        done = CliRunner().invoke(main, [str(w) for w in words])
        assert done.exit_code == 0, done.output
    return volume


@pytest.fixture
def page(volseg, measured, tmp_path):
    done = volseg("report", measured, "--output", tmp_path / "r.html")
    assert done.exit_code == 0, done.output
    return tmp_path / "r.html"


class Reader(HTMLParser):
    """Collects tags, and checks that they are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "img", "input", "br", "link"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_asks_for_nothing(page):
    text = page.read_text(encoding="utf-8")
    read = Reader(text)
    assert read.open == []
    sources = [a["src"] for _, a in read.tags if "src" in a]
    assert len(sources) > 9
    assert all(s.startswith("data:image/") for s in sources)
    assert [a["href"] for t, a in read.tags if t == "link"] == ["data:,"]
    assert "alert(1)" not in [a.get("src") for _, a in read.tags]
    assert len([t for t, _ in read.tags if t == "script"]) == (2 if can_mesh() else 1)
    assert all(a.get("alt") for t, a in read.tags if t == "img")
    assert re.search(r"SHA-256\s+[0-9a-f]{64}", text)
    assert "Garwood" in text
    # a bar's words run from the right beyond its end: the number would come after its unit
    bars = re.findall(r'<span class="bar"[^>]*>(.*?)</span>', text)
    assert bars
    assert all(re.fullmatch(r"<bdi>[\d.]+ \S+</bdi>", bar) for bar in bars)


def test_the_numbers_are_those_of_stats(page, volseg, measured):
    import json

    (row,) = json.loads(volseg("stats", measured, "--json", "-q").stdout)
    text = page.read_text(encoding="utf-8")
    assert f"{row['objects']} (" in text
    assert f"{row['objects_low']:.3g} – {row['objects_high']:.3g}" in text


def test_each_suspect_has_the_command_that_shows_it(page, measured):
    listed = page.read_text(encoding="utf-8").partition('id="suspects"')[2]
    listed = listed.partition("<ol")[2]
    commands = [shlex.split(html.unescape(c)) for c in re.findall("<code>(.*?)</code>", listed)]
    assert commands
    for words in commands:
        assert words[:4] == ["volseg", "view", str(measured), "--at"]
        assert int(words[4]) > 0


def test_several_volumes_are_compared(volseg, measured, tmp_path):
    other = tmp_path / "other.zarr"
    shutil.copytree(measured, other)
    done = volseg("report", measured, other, "--output", tmp_path / "r.html", "--suspects", 3)
    assert done.exit_code == 0, done.output
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "Mann-Whitney U" in text
    assert "Holm" in text
    assert text.count("<li><img") == 3


def test_a_table_of_other_labels_is_refused(volseg, measured, tmp_path, toy_model):
    other = tmp_path / "other.zarr"
    shutil.copytree(measured, other)
    table = (other / "tables" / "mitochondria.parquet").read_bytes()
    words = ("--threshold", "0.6", "--overwrite", "-q")
    assert volseg("label", other, *words).exit_code == 0
    missing = volseg("report", other)
    assert missing.exit_code == 2
    assert "volseg stats" in missing.stderr
    (other / "tables" / "mitochondria.parquet").write_bytes(table)
    stale = volseg("report", other)
    assert stale.exit_code == 2
    assert "measured on other labels" in stale.stderr


def test_against_a_truth(volseg, measured, tmp_path):
    import zarr

    labels = zarr.open_array(measured / "labels" / "mitochondria" / "0", mode="r")[...]
    truth = np.where(labels == 1, 0, labels).astype(np.uint16)
    truth[:5, :5, :5] = truth.max() + 1
    tifffile.imwrite(tmp_path / "truth.tif", truth)
    words = ("--truth", tmp_path / "truth.tif", "--output", tmp_path / "r.html")
    done = volseg("report", measured, *words)
    assert done.exit_code == 0, done.output
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "missed / false</th><td>1 / 1</td>" in text.replace("\n", "")
    assert 'img class="truth"' in text
    assert "<title>precision over recall of voxels</title>" in text
    assert "<title>recall over false positive rate of voxels</title>" in text
    within = tmp_path / "within.tif"
    samples = np.ascontiguousarray(truth.transpose(1, 2, 0))
    tifffile.imwrite(within, samples, photometric="rgb", planarconfig="contig")
    again = volseg("report", measured, "--truth", within, "--axes", "YXZ", *words[2:])
    assert again.exit_code == 0, again.output
    other = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert re.findall(r"data:image[^\"]+", other) == re.findall(r"data:image[^\"]+", text)
    twice = volseg("report", measured, *words, "--truth", "mitochondria")
    assert twice.exit_code == 2
    assert "--truth is given once" in twice.stderr


def test_objects_of_a_mask_are_its_components_wherever_it_is_looked_at_from(
    volseg, measured, tmp_path, monkeypatch
):
    import zarr

    from volseg.stages.report import run

    volume, drawn, real = tmp_path / "vol.zarr", [], run.draw_suspect
    shutil.copytree(measured, volume)
    objects = np.zeros((20, 70, 60), np.uint8)
    objects[:6, 5:25, 5:25] = objects[2:8, 40:60, 30:50] = objects[12:18, 5:25, 5:25] = 1
    zarr.create_array(volume / "labels" / "mask", data=255 * objects)
    monkeypatch.chdir(tmp_path)
    assert volseg("stats", "vol.zarr", "--name", "mask", "-q").exit_code == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    def draw(subject, suspect, window):
        drawn.append(np.asarray(subject.labels.levels[0][:, :, :]))
        return real(subject, suspect, window)

    monkeypatch.setattr(run, "draw_suspect", draw)
    done = volseg("report", "../vol.zarr", "--name", "mask", "--output", tmp_path / "r.html")
    assert done.exit_code == 0, done.output
    np.testing.assert_array_equal(drawn[0], ndimage.label(objects, np.ones((3, 3, 3)))[0])
    assert not list((volume / ".volseg").glob("report-*"))


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
def test_in_a_browser_all_moves_and_links_lead_into_the_viewer(page, measured, tmp_path):
    """The page by itself, then served with the viewer, in one browser; nothing complains."""
    pytest.importorskip("neuroglancer")
    import volseg as front

    served = front.view(measured, report=page)
    with browsing(tmp_path) as browser:
        browser.go(page.as_uri())
        browser.wait("document.readyState === 'complete'")
        moved = """(() => {
        const slider = document.querySelector("figure input");
        const image = document.querySelector("img.raw"), before = image.src;
        slider.value = 0;
        slider.dispatchEvent(new Event("input"));
        document.querySelector("input[data-layer=objects]").click();
        return [before !== image.src, document.querySelector("img.objects").hidden,
          document.querySelector("output").textContent, document.querySelector(".jump").hidden];
        })()"""
        assert browser.ask(moved) == [True, True, "0", True]
        if can_mesh():
            browser.ask("document.querySelector('.space').scrollIntoView()")
            assert int(browser.wait("document.querySelector('.space').dataset.drawn")) > 100
        browser.go(served.report)
        if can_mesh():
            browser.wait("document.querySelector('.jump').hidden === false")
            browser.ask("void dispatchEvent(new Event('beforeprint'))")
            browser.wait("document.querySelector('.space').dataset.drawn")
        label = browser.wait("document.querySelector('.jump').href.match(/at.([0-9]+)/)[1]")
        browser.ask("document.querySelector('.jump').click()")
        browser.wait(
            "location.href.includes('/v/') && viewer.display.panels.size && viewer.isReady()"
        )
        layers = browser.ask("viewer.state.toJSON().layers")
        (objects,) = (layer for layer in layers if layer["name"] == "objects")
        assert objects["segments"] == [label]
        seen = imagecodecs.png_decode(browser.look(tmp_path / "view.png").read_bytes())
        complaints = browser.complaints
    served.stop()
    # the first panel: grey where raw is seen, and tinted where objects lie over it
    panel = seen[110:420, 10:480, :3].astype(int)
    tinted = np.ptp(panel, axis=2) > 20
    assert 0.01 < tinted.mean() < 0.9
    assert panel[~tinted].std() > 10
    # neuroglancer's own page has no icon
    assert [c for c in complaints if not c.endswith("/favicon.ico")] == []


def test_jumps_to_what_is_not_shown_are_refused(measured, page):
    pytest.importorskip("neuroglancer")
    import volseg as front

    served = front.view(measured, report=page)
    try:
        for volume, label, words in ((measured, 10**6, "no object"), ("other.zarr", 1, "is shown")):
            with pytest.raises(front.InputError, match=words):
                served.look_at(str(volume), label)
        served.look_at(str(measured), 1)
    finally:
        served.stop()
    with pytest.raises(front.InputError, match="there is no report"):
        front.view(measured, report=page.with_name("none.html"))
