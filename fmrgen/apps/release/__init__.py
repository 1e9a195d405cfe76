"""What did the new one break? Two classifiers on images that tell them apart (`diff`), and a gate (`gate`)."""

NAMES: dict[str, str] = {
    "Flips": "fmrgen.apps.release.flips",
    "Diff": "fmrgen.apps.release.diff",
    "Gate": "fmrgen.apps.release.sequential_test",
    "diff": "fmrgen.apps.release.diff",
    "flips": "fmrgen.apps.release.flips",
    "gate": "fmrgen.apps.release.gate",
    "gate_on_own_splits": "fmrgen.apps.release.gate",
}
