"""A recipe for a user's images, and masks of latents."""
