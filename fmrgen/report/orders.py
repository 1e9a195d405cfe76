"""Whether generators agree, as a table, a plot and JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from fmrgen.files import write_atomically
from fmrgen.metrics.intervals import format_coefficient, interval_ends
from fmrgen.report.plot import MOST_PERCENT, Plot, PlotFormat, colours, drawing, grid_of_figures, shortened
from fmrgen.report.tables import Table
from fmrgen.results.orders import Agreement, OrderOfTwo

_IN_A_COLUMN = 20  # of the legend
_APART = 0.5  # of the place of a generator, over which its classifiers lie side by side


def agreement_table(found: Agreement) -> Table:
    """A row for each classifier: its FMR under each generator, with its rank among them."""
    columns = [
        [f"{rank}: {value}" for value, rank in zip(values, ranks, strict=True)]
        for values, ranks in zip(found.fmr, found.ranks(), strict=True)
    ]
    rows = [list(row) for row in zip(found.classifiers, *columns, strict=True)]
    return Table(["classifier", *found.generators], rows)


def concordance_table(found: Agreement) -> Table:
    """Kendall's tau of each pair of generators and W of all, with their intervals, and whether their order is one."""
    rows = [[f"{pair.first} – {pair.second}", "tau", format_coefficient(pair.tau)] for pair in found.pairs]
    of_all = [["all", "W", format_coefficient(found.concordance)], ["all have one order", "", found.verdict]]
    return Table(["rankings", "Kendall's", ""], [*rows, *of_all])


def agreement_lines(found: Agreement) -> list[str]:
    """Tau of each pair of generators, W of all, and what the intervals are."""
    lines = [f"{pair.first} – {pair.second}: Kendall's tau {format_coefficient(pair.tau)}" for pair in found.pairs]
    return [
        *lines,
        f"Kendall's W of all {len(found.generators)} rankings: {format_coefficient(found.concordance)}",
        "1 means the same order; intervals cover all orders that these images leave possible, with 95 % confidence",
        orders_line(found),
    ]


def orders_line(found: Agreement) -> str:
    """How many pairs of classifiers keep their order under all, and which change places, beyond chance."""
    turned = [
        f"{order.first} is above {order.second} under {', '.join(order.above)} and below under {', '.join(order.below)}"
        for order in found.orders
        if order.turns
    ]
    kept = [_ordered(order) for order in found.kept]
    undecided = len(found.orders) - len(kept) - len(turned)
    return (
        f"of {len(found.orders)} pairs of classifiers {len(kept)} keep their order under all {len(found.generators)}"
        + (f" ({', '.join(kept)})" if kept else "")
        + f", {len(turned)} change places"
        + (f" ({'; '.join(turned)})" if turned else "")
        + f"; not told apart under all by these {found.rows} images: {undecided}"
    )


def _ordered(order: OrderOfTwo) -> str:
    names = (order.first, order.second) if order.above else (order.second, order.first)
    return " over ".join(names)


def write_agreement(found: Agreement, folder: Path, plot_formats: Sequence[PlotFormat] = ()) -> list[Path]:
    """Writes `agreement.json` and the plot, a PNG and in `plot_formats`, into `folder`; returns their paths."""
    text = json.dumps(asdict(found), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(folder / "agreement.json", text.encode())
    return [folder / "agreement.json", *agreement_plot(found).save_all(folder, "agreement", plot_formats)]


def agreement_plot(found: Agreement) -> Plot:
    """FMR under each generator, a line for each classifier: where rankings agree, lines do not cross.

    The legend has them by falling FMR under the first generator.
    """
    with drawing():
        figure = Plot(figsize=(1.8 + 1.2 * len(found.generators), 4.2))
        axes = figure.subplots()
        count = len(found.classifiers)
        order = sorted(range(count), key=lambda number: -found.fmr[0][number].value)
        for number, (place_of, colour) in enumerate(zip(order, colours(count), strict=True)):
            values = [of_generator[place_of] for of_generator in found.fmr]
            places = [place + _APART * (number - (count - 1) / 2) / count for place in range(len(values))]
            for place, value in zip(places, values, strict=True):
                axes.plot([place, place], interval_ends(value), color=colour, linewidth=1)
            shown = [value.value for value in values]
            label = shortened(found.classifiers[place_of])
            axes.plot(places, shown, color=colour, marker="o", markersize=4, linewidth=0.8, alpha=0.9, label=label)
        axes.set_xticks(range(len(found.generators)), found.generators)
        axes.set_ylabel("FMR, %")
        grid_of_figures(axes, MOST_PERCENT)
        axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1), ncols=-(-count // _IN_A_COLUMN))
        axes.set_title(f"Kendall's W {format_coefficient(found.concordance)}")
    return figure
