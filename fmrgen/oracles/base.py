"""The base of the configs of oracles. The oracle itself is `fmrgen.engine.interfaces.Oracle`."""

from fmrgen.config import ComponentConfig


class OracleConfig(ComponentConfig):
    """The config of an oracle."""

    @property
    def is_image_text(self) -> bool:
        """True if its score is the similarity of an image and a text, which is stored in the column `clip_score`."""
        return False
