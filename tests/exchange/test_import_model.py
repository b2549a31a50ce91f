"""What was exported comes back exactly, and packages made to do harm are refused."""

from __future__ import annotations

import io
import os
import zipfile

import pytest
import torch

from toy_weights import card_content
from volseg.errors import ConflictError, ModelError
from volseg.exchange.export_model import export_model
from volseg.exchange.import_model import import_model
from volseg.exchange.packages import open_package
from volseg.exchange.states import read_state_dict
from volseg.storage.cards import load_card
from volseg.storage.weights import load_weights, save_weights

yaml = pytest.importorskip("yaml")


@pytest.fixture(scope="session")
def package(toy_model, tmp_path_factory):
    """The toy model as a package."""
    pytest.importorskip("bioimageio.spec")
    output = tmp_path_factory.mktemp("package") / "toy.zip"
    export_model(toy_model, "bioimageio", output)
    return output


@pytest.fixture
def changed(package, tmp_path):
    """Copy a package with other files or another description: ``changed(edit, **files)``."""

    def write(edit=lambda description: None, files=None):
        path = tmp_path / "changed.zip"
        with zipfile.ZipFile(package) as old, zipfile.ZipFile(path, "w") as new:
            content = {name: old.read(name) for name in old.namelist()} | (files or {})
            description = yaml.safe_load(content["bioimageio.yaml"])
            edit(description)
            content["bioimageio.yaml"] = yaml.safe_dump(description).encode()
            for name, entry in content.items():
                new.writestr(name, entry)
        return path

    return write


def foreign(description):
    """Make volseg's package one that volseg does not know."""
    del description["config"]["volseg"]


def without_hashes(description):
    for weights in description["weights"].values():
        weights.pop("sha256", None)


def saved(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def refused(path, tmp_path, match):
    """Import, and see that nothing is left of it."""
    before = sorted(str(p) for p in tmp_path.rglob("*"))
    with pytest.raises(ModelError, match=match):
        import_model(path, tmp_path / "out" / "deep")
    assert sorted(str(p) for p in tmp_path.rglob("*") if p.name != "out") == before


@pytest.mark.parametrize("kind", ["zip", "folder", "description"])
def test_round_trip_is_exact(package, toy_model, tmp_path, kind):
    path = package
    if kind != "zip":
        path = tmp_path / "unpacked"
        with zipfile.ZipFile(package) as archive:
            archive.extractall(path)
        path = path / "bioimageio.yaml" if kind == "description" else path
    report = import_model(path, tmp_path / "out")
    assert report.output == tmp_path / "out" / "toy.safetensors"
    assert report.output.read_bytes() == toy_model.read_bytes()
    assert load_card(report.output) == load_card(toy_model) == report.card
    assert sorted(p.name for p in report.output.parent.iterdir()) == [
        "toy.json",
        "toy.safetensors",
    ]


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ({"min_probability": 0.85}, ", and volseg drops objects whose mean is below 0.85."),
        (
            {"min_probability": 0.85, "faint_size": 24000, "min_size": 9},
            (
                ", and volseg drops objects of fewer than 9 voxels and those whose mean is below "
                "0.85, if they have at most 24000 voxels."
            ),
        ),
        (
            {"min_size": 1093, "median_nm": 35.0},
            (
                ", and volseg drops objects of fewer than 1093 voxels. Before, volseg takes the "
                "median of slices 35 nm apart."
            ),
        ),
    ],
)
def test_packages_tell_which_objects_count(toy_model, tmp_path, rules, told):
    pytest.importorskip("bioimageio.spec")
    sure = tmp_path / "sure.safetensors"
    content = card_content(toy_model, name="sure", **rules)
    save_weights(sure, load_weights(toy_model, load_card(toy_model)), content)
    export_model(sure, "bioimageio", tmp_path / "sure.zip")
    with zipfile.ZipFile(tmp_path / "sure.zip") as archive:
        assert f"is at least\n0.5{told}\n" in archive.read("README.md").decode()
    assert import_model(tmp_path / "sure.zip", tmp_path / "out").card == load_card(sure)


def test_options_override_the_card(package, tmp_path):
    options = {"voxel_size": (8.0, 4.0, 4.0), "tile": (16, 48, 48), "overlap": (8, 16, 16)}
    card = import_model(package, tmp_path, **options).card
    assert (card.voxel_size, card.tile, card.overlap) == (
        (8.0, 4.0, 4.0),
        (16, 48, 48),
        (8, 16, 16),
    )
    with pytest.raises(ModelError, match="overlap by half at most"):
        import_model(package, tmp_path / "b", tile=(16, 42, 48))
    assert not (tmp_path / "b").exists()


def test_another_model_is_not_replaced(package, tmp_path):
    import_model(package, tmp_path)
    with pytest.raises(ConflictError, match="--overwrite"):
        import_model(package, tmp_path)
    import_model(package, tmp_path, overwrite=True)


class Harm:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_pickled_code_is_not_run(changed, tmp_path):
    content = saved({"a": Harm(tmp_path / "harmed")})
    path = changed(without_hashes, {"weights.pt": content})
    refused(path, tmp_path, "more than tensors")
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize(
    ("value", "match"),
    [
        ({"head.bias": torch.zeros(1)}, "missing activation.weight, "),
        ([torch.zeros(1)], "no mapping from names to tensors"),
        ("words", "no mapping"),
        ({"a": torch.zeros(3, 10**6)}, "expected at most"),
    ],
)
def test_other_tensors_are_refused(changed, tmp_path, value, match):
    refused(changed(without_hashes, {"weights.pt": saved(value)}), tmp_path, match)


@pytest.mark.parametrize(
    ("tensor", "match"),
    [
        (torch.zeros(3), "shape"),
        (torch.full((2, 2), float("nan")), "not finite"),
        (torch.zeros(2, 2, dtype=torch.complex64), "no plain tensor"),
        (torch.zeros(2, 2).to_sparse(), "no plain tensor|more than tensors"),
    ],
)
def test_tensors_must_be_the_expected_ones(tensor, match):
    with pytest.raises(ModelError, match=match):
        read_state_dict(saved({"a": tensor}), {"a": torch.empty(2, 2, device="meta")})


def test_compressed_records_are_refused():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 10**6)
    for content, match in ((buffer.getvalue(), "unpack to 1000000"), (b"\x80\x02.", "no format")):
        with pytest.raises(ModelError, match=match):
            read_state_dict(content, {"a": torch.zeros(1)})


@pytest.mark.parametrize("name", ["../a.pt", "/etc/passwd", "a/../../b", "c:\\a", "http://a/b.pt"])
def test_names_that_lead_elsewhere_are_refused(changed, tmp_path, name):
    def edit(description):
        description["weights"]["pytorch_state_dict"]["source"] = name

    refused(changed(edit), tmp_path, "no name of a file inside")
    path = changed(files={name: b"x"})
    with pytest.raises(ModelError, match="no name of a file inside"):
        open_package(path)


def test_links_out_of_a_folder_are_refused(package, tmp_path):
    folder = tmp_path / "unpacked"
    with zipfile.ZipFile(package) as archive:
        archive.extractall(folder)
    (folder / "weights.pt").unlink()
    (tmp_path / "secret").write_bytes(b"x")
    (folder / "weights.pt").symlink_to(tmp_path / "secret")
    refused(folder, tmp_path, "outside the package")


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_damaged_zips_are_refused(tmp_path, method):
    """Never another content, never another error; some bytes of LZMA's header mean nothing."""
    path, content = tmp_path / "damaged.zip", b"name: something that is long enough\n" * 40
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("bioimageio.yaml", content)
    whole, start = path.read_bytes(), 30 + len("bioimageio.yaml")
    positions = range(start, whole.rindex(b"PK\x01\x02"), 3)
    accepted = 0
    for position in positions:
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 255]) + whole[position + 1 :])
        try:
            found = open_package(path).read("bioimageio.yaml", 10_000)
        except ModelError:
            continue
        assert found == content
        accepted += 1
    assert accepted <= (8 if method == zipfile.ZIP_LZMA else 0)


def test_changed_weights_are_refused(changed, tmp_path):
    refused(changed(files={"weights.pt": b"PK"}), tmp_path, "is not the file")


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        ({"width": 10**6}, "width must be 1 to 1024"),
        ({"width": "8"}, "width must be"),
        ({"architecture": "nonesuch"}, "no architecture"),
        ({"architecture": "torchscript"}, "no architecture"),
        ({"name": "../up"}, "a file's name"),
        ({"tile": [1, 2]}, "three sizes"),
        ({"tile": 3}, "not valid"),
        ({"threshold": 7}, "not valid"),
        ({"unknown": 7}, "not valid"),
    ],
)
def test_bad_cards_are_refused(changed, tmp_path, edit, match):
    path = changed(lambda d: d["config"]["volseg"]["card"].update(edit))
    refused(path, tmp_path, match)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (b"[]", "describes nothing"),
        (b"a: [", "no YAML"),
        (b"!!python/object/apply:os.getcwd []", "no YAML"),
        (b"{}", "expected a model in format 0.5"),
        (b"type: model\nformat_version: 0.4.10", "has weights as nothing"),
        (b"type: model\nformat_version: 0.5.3\nconfig: {volseg: {version: 9}}", "newer volseg"),
        (b"#" * (1 << 20) + b"#", "expected at most"),
        (b"[" * 5000, "no YAML"),
        (b"a: &a [*a]", "more than 100000 entries"),
        (
            (
                b"a: &a [1,1,1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\n"
                b"c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\n"
                b"e: [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]"
            ),
            "more than 100000 entries",
        ),
    ],
)
def test_bad_descriptions_are_refused(tmp_path, text, match):
    (tmp_path / "rdf.yaml").write_bytes(text)
    refused(tmp_path / "rdf.yaml", tmp_path, match)


def test_files_that_are_no_packages_are_refused(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04nothing")
    refused(tmp_path / "a.zip", tmp_path, "is no package")
    refused(tmp_path / "none.zip", tmp_path, "there is nothing at")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("readme", "x")
    refused(tmp_path / "b.zip", tmp_path, r"neither bioimageio\.yaml nor rdf\.yaml")


@pytest.mark.parametrize(
    ("forms", "known", "match"),
    [
        (["torchscript"], False, "has weights as torchscript and no entries of volseg"),
        (["torchscript"], True, "has weights as torchscript and no state dict"),
        (["pytorch_state_dict", "torchscript"], False, "as pytorch_state_dict, torchscript and no"),
        ([], False, "has weights as nothing"),
    ],
)
def test_packages_of_other_networks_are_refused(
    changed, tmp_path, monkeypatch, forms, known, match
):
    """Neither their TorchScript nor their state dict is opened."""

    def edit(description):
        if not known:
            foreign(description)
        weights = description["weights"]
        description["weights"] = {form: weights[form] for form in forms}

    monkeypatch.setattr(torch.jit, "load", None)
    monkeypatch.setattr(torch, "load", None)
    refused(changed(edit), tmp_path, rf"{match}.*expected.*does not run; .*docs/training.md")


def test_weights_that_are_no_mapping_are_refused(changed, tmp_path):
    refused(changed(lambda d: d.update(weights=3)), tmp_path, "has weights as nothing")
