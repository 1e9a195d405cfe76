"""The report of the agreement of generators."""

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial

from fmrgen.report.plot import Plot, colours, drawing, grid_of_figures, shortened
from fmrgen.report.report import Badge, Picture, Report, Section, Table
from fmrgen.results.orders import Agreement, OrderOfTwo

_IN_A_COLUMN = 20  # of the legend
_GROUP_WIDTH = 0.5  # the classifiers of a generator lie side by side over half the distance to the next one


def agreement_report(agreement: Agreement, links: Mapping[str, str] | None = None) -> Report:
    """Return the report of how far rankings of the same classifiers agree.

    Args:
        agreement: of the rankings.
        links: the addresses of their own pages, by the rankings' names.
    """
    plot = Picture("FMR of each classifier under each generator", partial(_plot, agreement), "agreement")
    section = Section(
        "agreement",
        f"Rank and FMR, {agreement.rows} images",
        tables=[_agreement_table(agreement)],
        lines=_agreement_lines(agreement),
        pictures=[plot],
        links=links or {},
    )
    title = f"Do {len(agreement.generators)} rankings of {len(agreement.classifiers)} classifiers agree?"
    stable, orders = len(agreement.kept), len(agreement.orders)
    badge = Badge(f"{stable} of {orders} pairs keep their order", "good" if stable == orders else "unclear")
    conclusions = [_orders_line(agreement)]
    return Report("agreement", title, [section], asdict(agreement), conclusions=conclusions, badge=badge)


def _agreement_table(agreement: Agreement) -> Table:
    """Return a row for each classifier: its FMR under each generator, with its rank among them."""
    ranks = agreement.ranks()
    rows = []
    for number, classifier in enumerate(agreement.classifiers):
        row = [classifier]
        for generator in range(len(agreement.generators)):
            row.append(f"{ranks[generator][number]}: {agreement.fmr[generator][number]}")
        rows.append(row)
    return Table(["classifier", *agreement.generators], rows)


def _agreement_lines(agreement: Agreement) -> list[str]:
    """Return lines with the rank correlation of each pair of generators, and the orders that are certain."""
    lines = []
    for pair in agreement.pairs:
        lines.append(
            f"{pair.first} – {pair.second}: Kendall's tau {pair.kendall:z.2f} (p = {pair.p_value:.2g}), Spearman's rho "
            f"{pair.spearman:z.2f}"
        )
    return [
        *lines,
        f"1 means the same order; p is the chance of a tau at least as far from 0 if the {len(agreement.classifiers)} "
        "classifiers were ordered by lot",
        f"all have one order: {agreement.verdict}",
    ]


def _orders_line(agreement: Agreement) -> str:
    """Return a line that says how many pairs of classifiers keep their order under all generators, and which change
    places, beyond chance."""
    turned = []
    for order in agreement.orders:
        if order.turns:
            above, below = ", ".join(order.above), ", ".join(order.below)
            turned.append(f"{order.first} is above {order.second} under {above} and below under {below}")
    stable = [_ordered(order) for order in agreement.kept]
    undecided = len(agreement.orders) - len(stable) - len(turned)
    line = (
        f"of {len(agreement.orders)} pairs of classifiers {len(stable)} keep their order under all "
        f"{len(agreement.generators)}"
    )
    if stable:
        line += f" ({', '.join(stable)})"
    line += f", {len(turned)} change places"
    if turned:
        line += f" ({'; '.join(turned)})"
    return f"{line}; not told apart under all by these {agreement.rows} images: {undecided}"


def _ordered(order: OrderOfTwo) -> str:
    if order.above:
        return f"{order.first} over {order.second}"
    return f"{order.second} over {order.first}"


def _plot(agreement: Agreement) -> Plot:
    """Return a plot of FMR under each generator, a line for each classifier: where rankings agree, lines do not cross.

    The legend has them by falling FMR under the first generator.
    """
    with drawing():
        figure = Plot(figsize=(1.8 + 1.2 * len(agreement.generators), 4.2))
        axes = figure.subplots()
        count = len(agreement.classifiers)
        order = sorted(range(count), key=lambda classifier: -agreement.fmr[0][classifier].value)
        for number, (classifier, colour) in enumerate(zip(order, colours(count), strict=True)):
            shift = _GROUP_WIDTH * (number - (count - 1) / 2) / count
            places, values = [], []
            for generator, estimates in enumerate(agreement.fmr):
                place = generator + shift
                axes.plot([place, place], estimates[classifier].ends, color=colour, linewidth=1)
                places.append(place)
                values.append(estimates[classifier].value)
            label = shortened(agreement.classifiers[classifier])
            axes.plot(places, values, color=colour, marker="o", markersize=4, linewidth=0.8, alpha=0.9, label=label)
        axes.set_xticks(range(len(agreement.generators)), agreement.generators)
        axes.set_ylabel("FMR, %")
        grid_of_figures(axes)
        columns = -(-count // _IN_A_COLUMN)  # rounded up
        axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1), ncols=columns)
    return figure
