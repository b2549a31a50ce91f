"""Document 002, "U-Net On Biomedical Images": Table 1, curves, fractions, and K-means (Fig. 13)."""

from __future__ import annotations

from dataclasses import replace

from seed_data import EPFL, ISBI, NCMIR, NUCLEI
from seed_figures import curves, lines, masks, trade_offs
from seed_runner import NOTHING, Case, begin, finish, table

PUBLISHED = {"nuclei": (0.47, 0.89), "isbi2012": (0.53, 0.93), "ncmir": (0.23, 0.63)} | {
    "epfl": (0.57, 0.95)
}
FRACTIONS = {"toy": (0.8,), "cpu": (0.1, 0.4, 0.8), "gpu": (0.1, 0.2, 0.4, 0.6, 0.8)}
OPTIONS = {
    "architecture": "unet2d",
    "loss": "bce",
    "optimizer": "adam",
    "batch": 4,
    "width": 64,
    "patch": (1, 128, 128),
}
WHY = """\
The document scores what it held out of the same stacks, whose images are neighbours of those that
it trained on; here the last slices are the test. Its mAP is the mean of TP/(TP+FP) over IoU 0.5 to
1.0, here image by image for unrelated images; objects are components. It trained 100 epochs, at 512
x 512 pixels; here every row has the same number of steps, on patches of 128. Its nuclei are the 670
colour images of DSB 2018, ours the 664 grey ones of stage 1, both of 128 x 128.
After as few steps as `cpu` has, no network is over-trained: augmentation can only cost, and a tenth
of the images is enough for F1, not for mAP. K-means matches more nuclei, and finds more that are
none.
ISBI 2013 is not at hand. Membranes have no known objects but the cells between them, whose labels
these are."""


def main(arguments: list[str] | None = None) -> None:
    """Train on each data set with and without augmentation, then on fractions of the nuclei."""
    study = begin("002", arguments)
    toy = study.budget.name == "toy"
    sets = [study.data(data) for data in ((NUCLEI,) if toy else (NUCLEI, ISBI, NCMIR, EPFL))]
    plain = {"augmentation": NOTHING}
    cases = [Case(data.name, data, OPTIONS) for data in sets]
    if not toy:
        cases += [Case(f"{data.name}, not augmented", data, OPTIONS, plain) for data in sets]
    fractions = [
        Case(f"nuclei at {fraction:.0%}", sets[0], {**OPTIONS, "fraction": fraction})
        for fraction in FRACTIONS[study.budget.name]
    ]
    split = replace(cases[0], name="nuclei, split by K-means", rules={"split": "kmeans"})
    results = study.run([*cases, *([] if toy else fractions), split])
    rows = []
    for case in [*cases, split]:
        if case.name in results:
            published = PUBLISHED.get(case.name, (None, None))
            test, train = results[case.name]["test"], results[case.name]["train"]
            ours = (test["map_precision"], test["dice"])
            both = [x for pair in zip(published, ours, strict=True) for x in pair]
            matched = f"{test['matched']} of {test['truth']}"
            rows.append([case.name, *both, matched, test["predicted"], train["dice"]])
    rows.append(["isbi2013", 0.42, None, 0.97, None, None, None, None])
    head = ["data", "mAP, published", "ours", "F1, published", "ours"]
    parts = [table("Table 1", [*head, "objects matched", "objects found", "train F1"], rows)]
    names = list(results)
    shown = [name for name in (*(data.name for data in sets), split.name) if name in results]
    drawn = [name for name in shown if name != NCMIR.name]  # by its terms no picture goes out
    pictures = [
        masks(study, drawn, "figs-1-to-10-and-13-masks"),
        curves(study, names[:1], ("loss", "validation_loss", "precision", "recall"), "fig-11"),
        trade_offs(study, {name: results[name] for name in shown}, "fig-12-precision-recall-roc"),
    ]
    done = [
        (c.options["fraction"], results[c.name]["test"]) for c in fractions if c.name in results
    ]
    if done:
        cells = [
            [f"{fraction:.0%}", test["dice"], test["map_precision"]] for fraction, test in done
        ]
        parts.append(
            table("Training on a part (published F1 at 10%: 0.96)", ["part", "F1", "mAP"], cells)
        )
        points = [(fraction, test["dice"]) for fraction, test in done]
        pictures.append(lines(study, {"nuclei": points}, ("part of the images", "F1"), "fractions"))
    finish(study, "Document 002: U-Net on biomedical images", parts, pictures, WHY)


if __name__ == "__main__":
    main()
