"""The sections of each split in the report of an evaluation."""

from collections import Counter

from fmrgen.metrics.intervals import format_estimate
from fmrgen.metrics.summary import MAIN_METRICS, METRICS, OF_CLASSES
from fmrgen.report.gallery import gallery_filter
from fmrgen.report.report import Section, sentence
from fmrgen.report.tables import cells_of, marked, measured, neighbour_lines, ranked, related_line, table_of
from fmrgen.results.evaluation import EvaluatedSplit, Evaluation, Result
from fmrgen.results.judges import JudgeFigures, chance_line

MOST_UNFOLDED = 6  # splits of an evaluation, classifiers of a split
_RELATED = "‡"  # marks a judge that is no second opinion
_MADE_FOR_NONE = (
    "the split was generated against none of these classifiers, so its images are to fool another one: a difference "
    "holds for these images, and does not show what a classifier broke elsewhere (fmrgen diff does)"
)


def split_sections(evaluation: Evaluation) -> list[Section]:
    """Return a section for each split, and one of what all were made with."""
    made_with = [split.made_with or {} for split in evaluation.splits]
    shared = set.intersection(*(set(facts.items()) for facts in made_with)) if made_with else set()
    comparisons = {comparison.split: comparison for comparison in evaluation.comparisons}
    is_folded = len(evaluation.splits) > MOST_UNFOLDED
    of_classifiers = [metric for metric in METRICS if metric.of == "classifier"]
    sections = []
    for split, row, facts in zip(evaluation.splits, evaluation.matrix, made_with, strict=True):
        comparison = comparisons.get(split.name)
        results, lines = row, []
        if comparison is not None:
            results = ranked(row, comparison)
            lines = neighbour_lines(comparison.measure, comparison.ranking, comparison.differences)
        lines += [f"FMR of {result.classifier} is {result.bound}" for result in results if result.bound]
        if lines and not any(result.conditioned for result in row):
            lines.append(_MADE_FOR_NONE)
        metrics = measured(of_classifiers, results)
        rows = [(marked(result), cells_of(result.total, metrics)) for result in results]
        table = table_of("classifier", rows, first_columns=[metric.name for metric in MAIN_METRICS])
        own_facts = dict(fact for fact in facts.items() if fact not in shared)
        parts = [
            *_judges(split, results),
            _attacks(split),
            *_groups(results),
            Section("made with", "Made with", facts=own_facts, shown="in files"),
            *_mistakes(evaluation, split, results),
            *_classes(split, results),
        ]
        parts = [part for part in parts if not part.is_empty]
        about = sentence(_facts(split, row))
        sections.append(Section("split", split.name, about, [table], lines, parts=parts, folded=is_folded))
    if is_folded:
        sections = [Section("splits", f"{len(sections)} splits", parts=sections)]
    if shared:
        title = "All splits were generated with" if len(evaluation.splits) > 1 else "The split was generated with"
        common_facts = dict(fact for fact in made_with[0].items() if fact in shared)
        sections.append(Section("made with", title, facts=common_facts, shown="in files"))
    return sections


def _facts(split: EvaluatedSplit, results: list[Result]) -> str:
    """Return a line of the figures of the split that do not depend on the classifier."""
    total = results[0].total
    facts = [f"{total.rows} rows, {total.valid_rows} valid"]
    for metric in METRICS:
        if metric.of == "split" and metric.field not in ("stuck", "by_budget") and total[metric]:
            facts.append(f"{metric.name} {format_estimate(total[metric])}")
    if split.stop_reasons:
        counts = [f"{reason} {rows}" for reason, rows in split.stop_reasons.items()]
        facts.append(f"rows by how they ended: {', '.join(counts)}")
    return "; ".join(facts)


def _judges(split: EvaluatedSplit, results: list[Result]) -> list[Section]:
    """Return the figures of the judges other than the split's oracle, and FMR under each: of each classifier over the
    images in which the judge sees the label."""
    if not split.judges:
        return []
    judges, judged = [], []
    for judge in split.judges:
        cells = {"looked at": f"{judge.looked_at:,}", "sees the label": format_estimate(judge.preserved)}
        judges.append((_judge_name(judge), cells | {"in originals": format_estimate(judge.originals_right)}))
    for result in results:
        cells = {"the split's oracle": format_estimate(result.total.fmr)}
        for judge in split.judges:
            cells[_judge_name(judge)] = format_estimate(result.judged.get(judge.judge))
        judged.append((marked(result), cells))
    if not any(result.judged for result in results):
        judged = []
    lines = judges_lines(split, results)
    return [
        Section("judges", "Other judges of its images", tables=[table_of("judge", judges)], lines=lines),
        Section("judged", "FMR under each judge", tables=[table_of("FMR", judged)]),
    ]


def _judge_name(judge: JudgeFigures) -> str:
    """Return the name, with a mark if the judge is no second opinion, which `judges_lines` explains."""
    return f"{judge.judge} {_RELATED}" if judge.shares_weights_with else judge.judge


def judges_lines(split: EvaluatedSplit, results: list[Result]) -> list[str]:
    """Return lines on which judges are no second opinion, or guess, and whether they rank the classifiers as the oracle
    does."""
    related, guesses, rankings = [], [], []
    for judge in split.judges:
        if judge.shares_weights_with:
            related.append(f"{_RELATED} {related_line(judge.judge, judge.shares_weights_with)}")
        guesses.append(chance_line(judge.judge, judge.originals_right, len(split.class_names)))
        fmr: list[tuple[float, float]] = []
        for result in results:
            judged = result.judged.get(judge.judge)
            if result.total.fmr and not result.total.at_chance and judged:
                fmr.append((result.total.fmr.value, judged.value))
        if len(fmr) >= 3:  # of fewer, tau says nothing
            from scipy.stats import kendalltau  # a second's import, which most reports do without

            tau = kendalltau(*zip(*fmr, strict=True)).statistic
            rankings.append(f"{judge.judge} and the oracle: Kendall's tau {tau:.2f} over {len(fmr)} classifiers")
    return [*related, *filter(None, guesses), *rankings]


def _attacks(split: EvaluatedSplit) -> Section:
    """Return the split's own classifier after each attack, the first row after the first attack alone."""
    rows = []
    for number, after in enumerate(split.attacks, start=1):
        fooled = {"the last of them": after.attack, "rows fooled first by it": str(after.fooled)}
        rows.append((str(number), fooled | {"FMR after it": format_estimate(after.fmr)}))
    about = "Of each image the worst that the oracle accepted counts, over all attacks and their steps."
    return Section("attacks", "FMR after each attack", about, [table_of("attacks", rows)])


def _groups(results: list[Result]) -> list[Section]:
    """Return the classifiers' first figures of each group of rows by a column, group by group."""
    first_metrics = [metric for metric in METRICS if metric.compared or metric.field == "validation_rate"]
    metrics = measured(first_metrics, results)
    sections = []
    for column, groups in results[0].groups.items():
        rows = []
        for name in groups:
            for result in results:
                summary = result.groups[column][name]
                cells = {"classifier": marked(result), "rows": str(summary.rows), **cells_of(summary, metrics)}
                rows.append((name, cells))
        sections.append(Section("groups", f"By {column}", tables=[table_of(column, rows)]))
    return sections


def _mistakes(evaluation: Evaluation, split: EvaluatedSplit, results: list[Result]) -> list[Section]:
    """Return the most frequent mistakes on valid rows of the split's own classifier, or of the only one."""
    sections = []
    for result in results:
        if evaluation.predictions is None or not (result.conditioned or len(results) == 1):
            continue
        columns = evaluation.predictions_of(split.name, result.classifier)
        is_wrong = columns["valid"].astype(bool) & (columns["prediction"] != columns["label"])
        mistakes = zip(columns["label"][is_wrong].tolist(), columns["prediction"][is_wrong].tolist(), strict=True)
        rows, filters = [], []
        for (label, prediction), count in Counter(mistakes).most_common(24):
            name = split.class_names[prediction] if prediction >= 0 else "no prediction"
            rows.append((f"{split.class_names[label]} → {name}", {"rows": str(count)}))
            filters.append(
                gallery_filter(split=split.name, network=result.classifier, label=label, prediction=prediction)
            )
        table = table_of("true → predicted", rows, filters=filters)
        title = f"What {result.classifier} takes the images for"
        sections.append(Section("pairs", title, tables=[table], shown="on the page", folded=True))
    return sections


def _classes(split: EvaluatedSplit, results: list[Result]) -> list[Section]:
    """Return each classifier's figures by class (paper Tables 13 and 14), the totals last."""
    of_classifiers = [metric for metric in OF_CLASSES if metric.of == "classifier"]
    sections = []
    for result in results[:24]:
        metrics = measured(of_classifiers, [result])
        rows, filters = [], []
        for label, (name, summary) in enumerate(zip(split.class_names, result.classes, strict=True)):
            rows.append((name, {"rows": str(summary.rows), **cells_of(summary, metrics)}))
            filters.append(gallery_filter(split=split.name, network=result.classifier, label=label))
        rows.append(("all", {"rows": str(result.total.rows), **cells_of(result.total, metrics)}))
        filters.append(gallery_filter(split=split.name, network=result.classifier))
        table = table_of("class", rows, filters=filters)
        title = f"{result.classifier} by class"
        sections.append(Section("classes", title, tables=[table], shown="on the page", folded=True))
    if len(sections) <= MOST_UNFOLDED:
        return sections
    title, about = f"Each of {len(sections)} classifiers by class", ""
    if len(sections) < len(results):
        title = f"The first {len(sections)} classifiers by class"
        about = f"The others of the {len(results)} are in evaluation.json."
    return [Section("classes", title, about, parts=sections, shown="on the page", folded=True)]
