"""What the configs of oracles share. The oracle itself is `fmrgen.engine.interfaces.Oracle`."""

from fmrgen.config import ComponentConfig
from fmrgen.engine.interfaces import Oracle


class OracleConfig(ComponentConfig):
    """What every oracle's config tells."""

    @property
    def is_image_text(self) -> bool:
        """Whether its score is the similarity of an image and a text, which the column `clip_score` then holds."""
        return False


def digests_within(oracle: Oracle) -> set[str]:
    """The digests that the weights of an oracle, of each member of a panel, and of a classifier that is one, may have
    on record."""
    from fmrgen.classifiers.base import digests_of
    from fmrgen.oracles.classifier import ClassifierOracle
    from fmrgen.weights.digest import weights_sha256

    found = {weights_sha256(oracle)}
    for held in vars(oracle).values():
        for member in held if isinstance(held, list) else [held]:
            found |= digests_within(member) if isinstance(member, Oracle) else set()
    if isinstance(oracle, ClassifierOracle):
        found.update(digests_of(oracle.classifier))
    return {digest for digest in found if digest is not None}
