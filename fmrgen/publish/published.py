"""The finished splits of a folder or a repo, with what was recorded of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from fmrgen.metrics.summary import Summary
from fmrgen.publish.entries import Entry, leaderboard
from fmrgen.split.judgements import JudgeFile, JudgementsFolder
from fmrgen.storage.made_with import lines_on_models, made_with, related_line
from fmrgen.storage.paths import SplitPaths
from fmrgen.storage.provenance import Provenance, read_all
from fmrgen.storage.shards import SplitFolder, summary_of


@dataclass(frozen=True)
class Published:
    """A finished split.

    Attributes:
        paths: in the folder, or in the local copy of the repo.
        provenance: of the split.
        summary: the figures of its own classifier.
        leaderboard: the results on it, ranked.
        judges: that judged it in addition to its oracle.
    """

    paths: SplitPaths
    provenance: Provenance
    summary: Summary
    leaderboard: list[Entry]
    judges: list[JudgeFile]

    @property
    def made_with(self) -> dict[str, str]:
        """Its components in words."""
        return made_with(self.provenance)

    @property
    def lines_on_models(self) -> list[str]:
        """What a reader must know of its classifier and oracle."""
        return lines_on_models(self.provenance)

    @property
    def related(self) -> str | None:
        """A line if its own classifier and its oracle are related."""
        return related_line(self.provenance)

    @classmethod
    def all_in(cls, root: Path) -> list[Self]:
        """Return the finished splits in a folder, or in a local copy of a repo, by config and split.

        Figures that the provenance lacks are computed from the rows, as far as these are there.
        """
        splits = []
        for (config, split), provenance in read_all(root).items():
            if not provenance.is_finished:
                continue
            paths = SplitPaths(root, config, split)
            summary = summary_of(provenance, SplitFolder.of(paths, provenance))
            judges = JudgementsFolder(paths).judges_of(provenance.files_digest)
            splits.append(cls(paths, provenance, summary, leaderboard(paths, provenance), judges))
        return splits
