"""What did the new one break? Two classifiers on real images, and on images that tell them apart."""

NAMES: dict[str, str] = {
    "diff": "fmrgen.apps.release.diff",
    "diff_classifiers": "fmrgen.apps.release.diff",
}
