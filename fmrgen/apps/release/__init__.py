"""What did the new one break? Two classifiers on real images, and on images that tell them apart."""

NAMES: dict[str, str] = {
    "Diff": "fmrgen.apps.release.outcome",
    "diff": "fmrgen.apps.release.diff",
}
