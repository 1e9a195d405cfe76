"""A pilot that tries a recipe on a few images, and masks of latents."""

NAMES: dict[str, str] = {
    "SparseMask": "fmrgen.apps.pilot.sparsify",
    "inspect": "fmrgen.apps.pilot.inspect",
    "sparsify": "fmrgen.apps.pilot.sparsify",
}
