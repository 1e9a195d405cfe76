"""What did the new one break? Two classifiers on real images, and on images that tell them apart."""

NAMES: dict[str, str] = {
    "Certificate": "fmrgen.apps.release.certificate",
    "Diff": "fmrgen.apps.release.diff",
    "Flips": "fmrgen.apps.release.flips",
    "certify": "fmrgen.apps.release.certify",
    "diff": "fmrgen.apps.release.diff",
}
