"""A recipe for a user's images, and masks of latents."""

NAMES: dict[str, str] = {"init": "fmrgen.apps.pilot.init", "sparsify": "fmrgen.apps.pilot.sparsify"}
