"""What the configs of oracles share. The oracle itself is `fmrgen.engine.interfaces.Oracle`."""

from fmrgen.config import ComponentConfig


class OracleConfig(ComponentConfig):
    """What every oracle's config tells."""

    @property
    def is_image_text(self) -> bool:
        """Whether its score is the similarity of an image and a text, which the column `clip_score` then holds."""
        return False
