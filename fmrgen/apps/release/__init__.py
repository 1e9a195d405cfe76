"""What did the new one break? Two classifiers on real images, and on images that tell them apart."""

NAMES: dict[str, str] = {
    "Diff": "fmrgen.apps.release.diff",
    "Flips": "fmrgen.apps.release.flips",
    "diff": "fmrgen.apps.release.diff",
}
