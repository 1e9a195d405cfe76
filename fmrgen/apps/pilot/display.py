"""The output of the pilot's commands."""

from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from fmrgen.cli import display
from fmrgen.metrics.intervals import format_estimate
from fmrgen.progress.terminal import format_duration
from fmrgen.report.tables import mask_table

if TYPE_CHECKING:
    from fmrgen.apps.pilot.inspect import Inspection, Trial
    from fmrgen.apps.pilot.masking import Search
    from fmrgen.apps.pilot.sparsify import SparseMask


def print_trial(trial: "Trial") -> None:
    """Print one step size, while others are tried."""
    display.print_note(f"step_size {trial.step_size:g}: {trial}")


def print_inspection(inspection: "Inspection") -> None:
    """Print the results of a pilot, and each warning with its cure."""
    table = Table(title=f"{inspection.images} images", title_justify="left", box=box.SQUARE, show_header=False)
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
        "the whole job, on this device": format_duration(inspection.seconds_of_job),
    }
    for name, value in rows.items():
        table.add_row(name, value)
    display.print_box(table)
    for warning in inspection.warnings:
        display.print_line(f"warning: {warning}")
    if inspection.left_out:
        display.print_line(f"left out, to end in time: {', '.join(inspection.left_out)}; a larger --seconds tries more")


def _format_share(share: float | None) -> str:
    return "n/a" if share is None else f"{share:.0%}"


def _format_slope(slope: float | None) -> str:
    return "n/a" if slope is None else f"{slope:.2f}"


def _search_rows(searched: "Search | None") -> dict[str, str]:
    """Return the rows on steps without gradients; {} without such a search."""
    if searched is None:
        return {}
    return {
        "FMR of guided steps minus steps without gradients": f"{format_estimate(searched.guided_less_searched)}, "
        f"{searched.queries:.0f} questions an image",
        "rows in which these climbed higher": f"{format_estimate(searched.further)} % of {searched.rows}",
    }


def print_sparse_mask(mask: "SparseMask", split: str) -> None:
    """Print the paper's Table 11, for one mask."""
    dimensions = int(mask.mask.sum())
    display.print_table(mask_table(mask.images, mask.sparsity, mask.test_score, dimensions, mask.regularization), split)
    if not mask.tells_apart:
        display.print_line(
            "the test score is that of chance: these latents can't be told apart, so the mask means little"
        )
