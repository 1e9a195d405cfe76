"""The digests of an oracle's parts."""

from fmrgen.classifiers.base import digests_of
from fmrgen.engine.interfaces import Oracle
from fmrgen.oracles.classifier import ClassifierOracle
from fmrgen.weights.digest import weights_sha256


def digests_of_parts(oracle: Oracle) -> set[str]:
    """Return the digests that the weights of a panel's members, and of a classifier that judges, may have on record."""
    digests: set[str | None] = set()
    if isinstance(oracle, ClassifierOracle):
        digests.update(digests_of(oracle.classifier))
    for value in vars(oracle).values():
        for member in value if isinstance(value, list) else [value]:
            if isinstance(member, Oracle):
                digests.add(weights_sha256(member))
                digests.update(digests_of_parts(member))
    return {digest for digest in digests if digest is not None}
