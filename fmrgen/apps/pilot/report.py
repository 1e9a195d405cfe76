"""The reports of the pilot."""

from fmrgen.apps.pilot.inspect import Inspection
from fmrgen.apps.pilot.masking import Search
from fmrgen.apps.pilot.sparsify import SparseMask
from fmrgen.errors import option
from fmrgen.metrics.intervals import format_estimate
from fmrgen.progress import terminal as progress
from fmrgen.report.report import Report, Section, Table


def inspection_report(inspection: Inspection) -> Report:
    """Return the report of a pilot, with each warning and its cure."""
    classifier = inspection.classifier_native, inspection.classifier_accuracy, inspection.classifier_reconstructed
    oracle = inspection.oracle_native, inspection.oracle_accuracy, inspection.oracle_reconstructed
    step = inspection.proposed or inspection.own
    step_size = f"{step.step_size:g}"
    if inspection.proposed is None:
        step_size += " (no size tried is good)"
    cost = inspection.cost
    rows = {
        "reconstructions": f"{inspection.psnr:.1f} dB",
        "their LPIPS distance": str(inspection.lpips),
        "their Fréchet distance (rFID)": str(inspection.rfid),
        "classifier accuracy: own size, resized, reconstructed": ", ".join(map(_format_share, classifier)),
        "oracle accuracy: own size, resized, reconstructed": ", ".join(map(_format_share, oracle)),
        "oracle's probability of the label": f"{inspection.oracle_probability:.2f}",
        "latent": f"{inspection.latent_size} dimensions, root mean square {inspection.latent_scale:.3g}",
        "step size": step_size,
        "at this step size": str(step),
        "change of valid images, by wavelength": str(inspection.spectrum or "n/a"),
        "FMR of guided minus random steps, points": format_estimate(inspection.guided.guided_less_random),
        "first steps that raised the loss, %": format_estimate(inspection.guided.first_steps_up),
        "measured / stated slope along the gradient: plain, moved": ", ".join(map(_format_slope, inspection.slopes)),
        **_search_rows(inspection.searched),
        "one image-pass": f"{1000 * inspection.seconds_per_pass:.1f} ms, {cost.whole:.3g} GFLOP "
        f"({cost.generator:.3g} of the generator)",
        "the whole job, on this device": progress.format_duration(inspection.seconds_of_job),
    }
    table = Table(["", ""], [[name, value] for name, value in rows.items()], of_text=True)
    lines = []
    if inspection.left_out:
        lines.append(
            f"left out, to end in time: {', '.join(inspection.left_out)}; a larger {option('seconds')} tries more"
        )
    section = Section("inspection", f"{inspection.images} images", tables=[table], lines=lines)
    warnings = list(inspection.warnings)
    return Report("inspection", "What a few images show of a recipe", [section], inspection, warnings=warnings)


def _format_share(share: float | None) -> str:
    return "n/a" if share is None else f"{share:.0%}"


def _format_slope(slope: float | None) -> str:
    return "n/a" if slope is None else f"{slope:.2f}"


def _search_rows(searched: Search | None) -> dict[str, str]:
    """Return the rows on steps without gradients; {} without such a search."""
    if searched is None:
        return {}
    return {
        "FMR of guided steps minus steps without gradients": f"{format_estimate(searched.guided_less_searched)}, "
        f"{searched.queries:.0f} questions an image",
        "rows in which these climbed higher": f"{format_estimate(searched.further)} % of {searched.rows}",
    }


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
