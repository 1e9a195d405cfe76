"""What did the new one break? Two classifiers on images that tell them apart (`diff`), and a gate (`gate`)."""

NAMES: dict[str, str] = {
    "Diff": "fmrgen.apps.release.diff",
    "Gate": "fmrgen.apps.release.sequential_test",
    "diff": "fmrgen.apps.release.diff",
    "gate": "fmrgen.apps.release.gate",
    "gate_on_own_splits": "fmrgen.apps.release.gate",
}
