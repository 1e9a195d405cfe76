"""What the pilot's commands print."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from fmrgen.metrics.intervals import format_estimate
from fmrgen.progress.terminal import format_duration
from fmrgen.report.tables import mask_table

if TYPE_CHECKING:
    from fmrgen.apps.pilot.inspect import Inspection, Trial
    from fmrgen.apps.pilot.masking import Search
    from fmrgen.apps.pilot.sparsify import SparseMask

from fmrgen.cli import display


def print_trial(trial: "Trial") -> None:
    """One step size, while others are tried."""
    display.print_note(f"step_size {trial.step_size:g}: {trial}")


def print_inspection(found: "Inspection") -> None:
    """What a pilot found, and each warning with its cure."""
    table = Table(title=f"{found.images} images", title_justify="left", box=box.SQUARE, show_header=False)
    step = found.proposed or found.own

    def of(native: float | None, resized: float, reconstructed: float) -> str:
        return f"{'n/a' if native is None else f'{native:.0%}'}, {resized:.0%}, {reconstructed:.0%}"

    for name, value in {
        "reconstructions": f"{found.psnr:.1f} dB",
        "their LPIPS distance": str(found.lpips),
        "their Fréchet distance (rFID)": str(found.rfid),
        "classifier accuracy: own size, resized, reconstructed": of(
            found.classifier_native, found.classifier_accuracy, found.classifier_reconstructed
        ),
        "oracle accuracy: own size, resized, reconstructed": of(
            found.oracle_native, found.oracle_accuracy, found.oracle_reconstructed
        ),
        "oracle's probability of the label": f"{found.oracle_probability:.2f}",
        "latent": f"{found.latent_size} dimensions, root mean square {found.latent_scale:.3g}",
        "step size": f"{step.step_size:g}" + ("" if found.proposed else " (no size tried is good)"),
        "at this step size": str(step),
        "change of valid images, by wavelength": str(found.spectrum or "n/a"),
        "FMR of guided minus random steps, points": format_estimate(found.guided.guided_less_random),
        "first steps that raised the loss, %": format_estimate(found.guided.first_steps_up),
        "measured / stated slope along the gradient: plain, moved": ", ".join(
            "n/a" if slope is None else f"{slope:.2f}" for slope in found.slopes
        ),
        **_searched(found.searched),
        "one image-pass": f"{1000 * found.seconds_per_pass:.1f} ms, {found.cost.whole:.3g} GFLOP "
        f"({found.cost.generator:.3g} of the generator)",
        "the whole job, on this device": format_duration(found.seconds_of_job),
    }.items():
        table.add_row(name, value)
    display.print_box(table)
    for warning in found.warnings:
        display.print_line(f"warning: {warning}")
    if found.left_out:
        display.print_line(f"left out, to end in time: {', '.join(found.left_out)}; a larger --seconds tries more")


def _searched(searched: "Search | None") -> dict[str, str]:
    if searched is None:
        return {}
    return {
        "FMR of guided steps minus steps without gradients": f"{format_estimate(searched.guided_less_searched)}, "
        f"{searched.queries:.0f} questions an image",
        "rows in which these climbed higher": f"{format_estimate(searched.further)} % of {searched.rows}",
    }


def print_sparse_mask(found: "SparseMask", split: str) -> None:
    """The paper's Table 11, for one mask."""
    dimensions = int(found.mask.sum())
    display.print_table(
        mask_table(found.images, found.sparsity, found.test_score, dimensions, found.regularization), split
    )
    if not found.tells_apart:
        display.print_line(
            "the test score is that of chance: these latents can't be told apart, so the mask means little"
        )
