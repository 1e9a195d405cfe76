"""The report of a sparse mask."""

from fmrgen.apps.pilot.sparsify import SparseMask
from fmrgen.report.report import Report, Section, Table


def mask_report(mask: SparseMask, split: str) -> Report:
    """Return the paper's Table 11, for one mask."""
    section = Section("mask", split, tables=[mask_table(mask)])
    warnings = []
    if not mask.tells_apart:
        warnings.append("the test score is that of chance: these latents can't be told apart, so the mask means little")
    return Report("mask", f"A sparse mask for {split}", [section], mask, warnings=warnings)


def mask_table(mask: SparseMask) -> Table:
    """Return a mask as a table of one row."""
    header = ["images", "sparsity", "test score", "dimensions that move", "regularization"]
    shares = [f"{mask.sparsity:.2%}", f"{mask.test_score:.2%}"]
    row = [str(mask.images), *shares, str(int(mask.mask.sum())), f"{mask.regularization:.4g}"]
    return Table(header, [row])
