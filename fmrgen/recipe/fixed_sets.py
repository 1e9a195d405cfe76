"""The recipe of fixed sets; it imports no torch, so that a mistake in one is reported at once."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, model_validator

from fmrgen.config import StrictConfig
from fmrgen.recipe.sections import source_config_of
from fmrgen.sources.base import SourceConfig


class FixedSets(StrictConfig):
    """Labelled sets that belong together: one, or a set for each corruption and severity.

    `{set}` and `{severity}` in the strings of `source` stand for each of them.
    """

    description: str = ""
    source: dict[str, Any]
    sets: list[str] = Field([], description="corruptions, or other sets; empty: the source is the only one")
    severities: list[int] = Field([], description="severities of each corruption; empty: it has only one")
    normaliser: dict[str, float] = Field(
        {}, description="error of the classifier that mCE is relative to, in percent, by set (mean over severities)"
    )

    @model_validator(mode="after")
    def _knows_its_sets(self) -> Self:
        if self.severities and not self.sets:
            raise ValueError("severities: belong to sets; list the sets too")
        if self.normaliser and set(self.normaliser) != set(self.sets):
            odd = sorted(set(self.normaliser) ^ set(self.sets))[0]
            raise ValueError(f"normaliser: needs an error for each set, and for no other; see {odd}")
        if any(not error > 0 for error in self.normaliser.values()):
            raise ValueError("normaliser: errors must be above 0")
        return self

    def sources(self, name: str) -> dict[tuple[str, int | None], SourceConfig]:
        """Return the source of each set and severity, which is None if there are none.

        Raises UserError, starting with `name`, for an invalid source.
        """
        sources: dict[tuple[str, int | None], SourceConfig] = {}
        severities: list[int | None] = [*self.severities] or [None]
        for set_name in self.sets or [name]:
            for severity in severities:
                words = {"set": set_name, "severity": str(severity)}
                sources[set_name, severity] = source_config_of(_filled(self.source, words), f"{name}: {set_name}")
        return sources


def _filled(tree: Any, words: Mapping[str, str]) -> Any:
    """Return a source's section with the `words` in place of their names."""
    if isinstance(tree, str):
        for name, word in words.items():
            tree = tree.replace(f"{{{name}}}", word)
        return tree
    if isinstance(tree, dict):
        return {key: _filled(value, words) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_filled(value, words) for value in tree]
    return tree
