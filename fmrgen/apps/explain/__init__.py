"""Where does it fail? Failures are named, then confirmed by changing originals until the classifier errs."""

NAMES: dict[str, str] = {
    "Attribute": "fmrgen.apps.explain.attributes",
    "RandomChange": "fmrgen.apps.explain.random_change",
    "explain": "fmrgen.apps.explain.explain",
}
