"""Document 001, "2D UNET Segmentation of Mitochondria": its results, pictures and 3D object."""

from __future__ import annotations

from seed_data import EPFL, converted, region
from seed_figures import curves, masks
from seed_runner import NOTHING, Budget, Case, begin, finish, table

import volseg

OPTIONS = {
    "architecture": "unet2d",
    "loss": "square-dice",
    "optimizer": "adam",
    "learning_rate": 0.001,
    "batch": 4,
    "width": 64,
    "patch": (1, 384, 384),
}
AUGMENTATION = {
    **NOTHING,
    "flip_probability": 1.0,
    "centre_crop": 0.3,
    "intensity_probability": 0.5,
    "gamma": 0.0,
    "noise": 0.0,
    "blur": 0.0,
}
LONGER = Budget("cpu", 300, 8, 2, 6.5, 3.2, 6)
"""There is one training alone."""
WHY = """\
The document gives three numbers of training images beside one of images that the network did not
see. It has no validation data, so nothing says when to stop; here slices 120 to 131 choose the
weights. Its test volume is another one than ours: slices 132 to 164 of the training volume, with
the labels of Lucchi++. It resizes images to 384 x 384, which makes pixels of 10 x 13 nm; here
patches of 384 are cut, at 5 nm (`volseg train --resample-to 5,10,13.33` resizes as it does)."""


def main(arguments: list[str] | None = None) -> None:
    """Train the network, and draw what it finds."""
    study = begin("001", arguments, cpu=LONGER)
    data = study.data(EPFL)
    case = Case("2D U-Net", data, OPTIONS, {"augmentation": AUGMENTATION})
    (result,) = study.run([case]).values()
    train, test = result["train"], result["test"]
    rows = [
        ["Dice loss", 0.022, 1 - train["dice"]],
        ["IoU, training", 0.96, train["jaccard"]],
        ["F1, training", 0.98, train["dice"]],
        ["IoU, test", 0.87, test["jaccard"]],
        ["F1, test", None, test["dice"]],
        ["objects matched, test", None, f"{test['matched']} of {test['truth']}"],
    ]
    volume = converted(data, study.folder)
    labels = volseg.segment(
        volume, name="study", model=result["weights"], roi=region(data.test), views="xy"
    )
    meshes = study.folder / "object.glb"
    if labels.label.objects:
        volseg.stats(volume, name="study")
        volseg.export(volume, "labels", name="study", output=meshes, overwrite=True)
    told = (
        f"3D objects of the test slices: {meshes.name if meshes.exists() else 'none were found'}\n"
    )
    pictures = [
        curves(study, [case.name], ("loss", "validation_loss", "jaccard", "dice"), "tensorboard"),
        masks(study, [case.name], "overlays"),
    ]
    parts = [table("Results", ["score", "published", "ours"], rows), told]
    finish(study, "Document 001: 2D U-Net", parts, pictures, WHY)


if __name__ == "__main__":
    main()
