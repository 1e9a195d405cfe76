"""A recipe for a user's images, a pilot that tries a recipe on a few, and masks of latents."""

NAMES: dict[str, str] = {
    "SparseMask": "fmrgen.apps.pilot.sparsify",
    "init": "fmrgen.apps.pilot.init",
    "inspect": "fmrgen.apps.pilot.inspect",
    "sparsify": "fmrgen.apps.pilot.sparsify",
}
RECIPE_OF_IMAGES = "fmrgen.apps.pilot.init:recipe_of_images"
