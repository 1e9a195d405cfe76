"""What an oracle is made of, by its weights."""

from fmrgen.classifiers.base import digests_of
from fmrgen.engine.interfaces import Oracle
from fmrgen.oracles.classifier import ClassifierOracle
from fmrgen.weights.digest import weights_sha256


def digests_of_parts(oracle: Oracle) -> set[str]:
    """The digests that the weights of each member of a panel, and of a classifier that judges, may have on record."""
    found: set[str | None] = set()
    if isinstance(oracle, ClassifierOracle):
        found.update(digests_of(oracle.classifier))
    for held in vars(oracle).values():
        for member in held if isinstance(held, list) else [held]:
            if isinstance(member, Oracle):
                found |= {weights_sha256(member)} | digests_of_parts(member)
    return {digest for digest in found if digest is not None}
