"""A recipe for a user's images, and masks of latents."""

NAMES: dict[str, str] = {
    "SparseMask": "fmrgen.apps.pilot.sparsify",
    "init": "fmrgen.apps.pilot.init",
    "sparsify": "fmrgen.apps.pilot.sparsify",
}
