"""The dossier of a release: what splits and results hold as evidence, on one page, with the files and their digests.

Nothing is measured here. A part that nobody has done says so, with the command that does it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from fmrgen import Provenance, Report, Section, Split, Summary, Table, UserError, summarise, verify_files
from fmrgen.apps.interchange.requirements import ARTICLE_15, ISO_24029_3, Requirement
from fmrgen.files import check_inside, json_text, read_json, sha256_of, write_atomically
from fmrgen.internals import report_readers
from fmrgen.jobs.show import split_sheet
from fmrgen.metrics.cautions import cautions
from fmrgen.report.index import INDEX
from fmrgen.report.report import Picture
from fmrgen.report.summary import summary_table
from fmrgen.report.tables import judged_table, judges_lines, judges_table, mistaken_pairs, split_table, warning_lines
from fmrgen.report.write import write
from fmrgen.results.evaluation import Evaluation, read_figures
from fmrgen.split.judgements import judgements_of
from fmrgen.split.open import open_own_split
from fmrgen.storage.made_with import lines_on_models, made_with

_SCHEMA = "fmrgen-dossier/1"
_EVALUATION = "fmrgen-evaluation/"
_COPIED = (".json", ".md", ".html", ".png", ".xml")  # of the files of a report
_SUMS = "SHA256SUMS"
_MOST_PAIRS = 12  # of classes that a classifier takes for others
_DEEP = 2  # folders below the one that is named, in which reports are looked for
_OF_CHANGES = ("evidence", "worse", "hints", "flips", "controls")  # sections of a diff; its page has all
_NOT_DONE = {
    "judges": "not done: no other judge and no person has looked at the images; fmrgen judge, fmrgen audit",
    "failures": "not done: no failure is confirmed by changing images; fmrgen explain",
    "changes": "not done: nothing says what changed since the last release; fmrgen diff",
    "figures": "not done: only the classifiers that the splits were made against are measured; fmrgen evaluate",
}
_LIMITS = (
    "FMR and PA count the failures that these searches found under these oracles; others may exist",
    "the figures hold for images like these; in fmrgen's studies FMR did not predict accuracy on other data",
    "nothing here tests poisoned training data or weights, the extraction of data, or the system around the classifier",
    "this page collects measurements; it is no statement of conformity",
)


class _OwnSplit(NamedTuple):
    """A split, what was recorded of it, its figures, and whether its files are those on record."""

    opened: Split
    provenance: Provenance
    summary: Summary
    columns: Mapping[str, Any]
    faults: list[str]

    @property
    def name(self) -> str:
        return f"{self.opened.config}/{self.opened.split}"


@dataclass(frozen=True)
class _Result:
    """A report that fmrgen has written: its JSON file, what that says, and its schema."""

    path: Path
    tree: dict[str, Any]

    @property
    def schema(self) -> str:
        return str(self.tree.get("schema"))


class _Read(NamedTuple):
    """A report that was read, and its page in the dossier; None if there is none."""

    report: Report
    page: str | None

    @property
    def links(self) -> dict[str, str]:
        return {} if self.page is None else {"The whole page": self.page}


def write_dossier(splits: Sequence[str], folder: str | Path, results: Sequence[str | Path] = ()) -> Report:
    """Write a dossier: a page, `dossier.md`, `dossier.json`, the files behind them, and the digests of all of these.

    Args:
        splits: references, `PATH_OR_REPO[@REVISION][:CONFIG/SPLIT]`, of splits that fmrgen has made.
        folder: to write into; must be empty or not exist.
        results: JSON files of `evaluate`, `diff`, `gate` and `explain`, or folders that hold them.

    Returns:
        The report that the page shows.

    Raises:
        UserError: a split or a result can't be read, or the folder is not empty.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder}: is not empty; choose another folder")
    own = [_own_split(split) for split in splits]
    read = list(chain.from_iterable(_results_in(Path(place)) for place in results))
    evidence = _evidence(own, read)
    report = _report(own, read, {name: hashlib.sha256(content).hexdigest() for name, content in evidence.items()})
    for name, content in evidence.items():
        write_atomically(folder / name, content)
    write(report, folder)
    sums = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != INDEX:
            sums.append(f"{sha256_of(path)}  {path.relative_to(folder).as_posix()}\n")
    write_atomically(folder / _SUMS, "".join(sums).encode())
    return report


def signature(folder: Path) -> str:
    """Return the sha256 of `SHA256SUMS`, which stands for every file of a dossier."""
    return sha256_of(folder / _SUMS)


def _own_split(text: str) -> _OwnSplit:
    opened, provenance = open_own_split(text)
    columns = opened.columns()
    checked = verify_files(text)
    faults = list(checked.wrong)
    if not checked.finished:
        faults.append("the split is not finished")
    return _OwnSplit(opened, provenance, summarise(columns), columns, faults)


def _results_in(place: Path) -> list[_Result]:
    """Return the reports in a file or a folder. Raises UserError if there are none."""
    if place.is_file():
        files = [place]
    else:
        files = []
        for depth in range(_DEEP + 1):
            files += sorted(place.glob("*/" * depth + "*.json"))
    schemas = (_EVALUATION, *report_readers())
    results = []
    for path in files:
        check_inside(path, place if place.is_dir() else place.parent)
        tree = read_json(path)
        if str(tree.get("schema")).startswith(schemas):
            results.append(_Result(path, tree))
    if not results:
        raise UserError(f"{place}: contains no result of fmrgen evaluate, diff, gate or explain")
    return results


def _evidence(splits: Sequence[_OwnSplit], results: Sequence[_Result]) -> dict[str, bytes]:
    """Return the files behind the page, by their places: the provenance of splits, and what reports consist of."""
    files = {}
    for number, split in enumerate(splits, 1):
        name = f"evidence/split-{number}-{split.name.replace('/', '-')}/provenance.json"
        files[name] = json_text(split.provenance.tree).encode()
    for number, result in enumerate(results, 1):
        for path in sorted(result.path.parent.iterdir()):
            if path.suffix in _COPIED and path.name != INDEX and path.is_file() and not path.is_symlink():
                files[f"{_place(number, result)}/{path.name}"] = path.read_bytes()
    return files


def _place(number: int, result: _Result) -> str:
    return f"evidence/result-{number}-{result.path.stem}"


# The page


def _report(splits: Sequence[_OwnSplit], results: Sequence[_Result], digests: Mapping[str, str]) -> Report:
    evaluations = [read_figures(result.path) for result in results if result.schema.startswith(_EVALUATION)]
    others = _read_others(results, digests)
    sections = {
        "tested": _tested(splits, evaluations),
        "images": _images(splits),
        "protocol": _protocol(splits),
        "figures": _figures(splits, evaluations),
        "judges": _judges(splits, evaluations),
        "failures": _failures(splits, others["failures"]),
        "changes": _changes(others["changes"]),
        "limits": _limits(splits, evaluations),
    }
    states = dict.fromkeys(sections, "done")
    if not evaluations:
        states["figures"] = "partly"
    if not any(section.tables for section in sections["judges"].parts):
        states["judges"] = "not done"
    if not others["failures"]:
        states["failures"] = "partly"
    if not others["changes"]:
        states["changes"] = "not done"
    places = {name: str(number) for number, name in enumerate(sections, 1)}
    numbered = []
    for name, section in sections.items():
        numbered.append(replace(section, title=f"{places[name]}. {section.title}"))
    faults = _lines_on_other_splits(splits, results)
    for split in splits:
        faults += [f"{split.name}: {fault}" for fault in split.faults]
    return Report(
        "dossier",
        f"Robustness dossier: {', '.join(split.name for split in splits)}",
        [*numbered, *_maps(states, places), _files(digests)],
        {
            "schema": _SCHEMA,
            "splits": [_data_of(split) for split in splits],
            "sections": states,
            "files": dict(digests),
        },
        conclusions=[_conclusion(splits, [sections[name] for name in sections if states[name] == "not done"])],
        about="What was measured of an image classifier before its release, and how. Percent, with 95 % intervals.",
        warnings=faults,
    )


def _read_others(results: Sequence[_Result], digests: Mapping[str, str]) -> dict[str, list[_Read]]:
    """Return the reports of apps by the section that they belong to."""
    others: dict[str, list[_Read]] = {"changes": [], "failures": []}
    for number, result in enumerate(results, 1):
        for beginning, (part, read) in report_readers().items():
            if result.schema.startswith(beginning):
                report = read(result.path)
                page = f"{_place(number, result)}/{report.page_name or report.name}.html"
                others[part].append(_Read(report, page if page in digests else None))
    return others


def _conclusion(splits: Sequence[_OwnSplit], not_done: Sequence[Section]) -> str:
    images = sum(split.summary.rows for split in splits)
    clauses = [f"{len(splits)} split{'s' if len(splits) > 1 else ''} with {images:,} images"]
    is_intact = not any(split.faults for split in splits)
    clauses.append("all files are those on record" if is_intact else "files differ from those on record")
    if not_done:
        clauses.append(f"not done: {', '.join(section.title.lower() for section in not_done)}")
    return "; ".join(clauses)


def _lines_on_other_splits(splits: Sequence[_OwnSplit], results: Sequence[_Result]) -> list[str]:
    """Return a line for each result that is about other files than the splits have."""
    own = {split.provenance.files_digest for split in splits}
    lines = []
    for number, result in enumerate(results, 1):
        parts = result.tree["splits"] if result.schema.startswith(_EVALUATION) else [result.tree]
        if any(isinstance(part.get("files"), str) and part["files"] not in own for part in parts):
            lines.append(f"{_place(number, result)} is about other files than the splits of this dossier")
    return lines


def _data_of(split: _OwnSplit) -> dict[str, Any]:
    return {
        "split": split.name,
        "repo": split.opened.repo,
        "revision": split.opened.revision,
        "files": split.provenance.files_digest,
        "fingerprint": split.provenance.fingerprint,
        "classifier_sha256": split.provenance.weights_sha256.classifier,
        "summary": asdict(split.summary),
        "faults": split.faults,
    }


def _tested(splits: Sequence[_OwnSplit], evaluations: Sequence[Evaluation]) -> Section:
    rows = []
    for split in splits:
        words = made_with(split.provenance)["classifier"]
        rows.append([words, split.provenance.weights_sha256.classifier or "none", f"{split.name} was made against it"])
    for evaluation in evaluations:
        for classifier in evaluation.classifiers:
            rows.append([classifier.name, classifier.weights_sha256 or "none", "measured on the splits"])
    table = Table(["classifier", "sha256 of its weights", ""], rows, of_text=True)
    return Section("tested", "What was tested", tables=[table])


def _images(splits: Sequence[_OwnSplit]) -> Section:
    rows = []
    for split in splits:
        provenance = split.provenance
        skipped = f", {len(provenance.skipped)} unreadable" if provenance.skipped else ""
        place = str(split.opened.repo) if split.opened.revision else "a folder"
        if split.opened.revision:
            place += f", commit {split.opened.revision}"
        rows.append(
            [
                split.name,
                made_with(provenance)["source"],
                f"{split.summary.rows}{skipped}",
                f"{provenance.image_size} px",
                place,
                provenance.files_digest,
            ]
        )
    header = ["split", "images from", "rows", "side", "published in", "digest of the files"]
    pictures = [
        Picture(
            f"{split.name}: originals with their labels, right of each its perturbed image with the answer",
            partial(split_sheet, split.opened),
            of_photos=True,
        )
        for split in splits
    ]
    return Section("images", "On which images", tables=[Table(header, rows, of_text=True)], pictures=pictures)


def _protocol(splits: Sequence[_OwnSplit]) -> Section:
    parts = []
    for split in splits:
        provenance = split.provenance
        weights = provenance.weights_sha256
        run = provenance.runs[-1] if provenance.runs else None
        words = made_with(provenance)
        facts = {
            "perturbation": words["perturbation"],
            "generator": f"{words['generator']}, sha256 {weights.generator or 'none'}",
            "oracle": f"{words['oracle']}, sha256 {weights.oracle or 'none'}",
            "classifier": f"{words['classifier']}, sha256 {weights.classifier or 'none'}",
            "recipe": f"fingerprint {provenance.fingerprint}, seed {provenance.recipe.perturb.seed}",
        }
        if run is not None:
            versions = ", ".join(f"{name} {number}" for name, number in (run.versions or {}).items())
            facts["made"] = f"{run.started}, on {run.device or 'an unknown device'}, with {versions}"
        if provenance.code_sha256:
            facts["code of others"] = ", ".join(provenance.code_sha256)
        parts.append(Section("protocol of a split", split.name, facts=facts))
    about = "Algorithm 1 of arXiv 2308.10632; the whole recipe is in evidence/…/provenance.json."
    return Section("protocol", "By which protocol", about, parts=parts)


def _figures(splits: Sequence[_OwnSplit], evaluations: Sequence[Evaluation]) -> Section:
    parts = []
    for split in splits:
        title = f"{split.name}, the classifier that it was made against"
        parts.append(Section("figures of a split", title, tables=[summary_table(split.summary)]))
    for evaluation in evaluations:
        for evaluated, results in zip(evaluation.splits, evaluation.matrix, strict=True):
            parts.append(Section("figures", f"Measured on {evaluated.name}", tables=[split_table(results)]))
    lines = [] if evaluations else [_NOT_DONE["figures"]]
    return Section("figures", "Figures and controls", lines=lines, parts=parts)


def _judges(splits: Sequence[_OwnSplit], evaluations: Sequence[Evaluation]) -> Section:
    parts = []
    for evaluation in evaluations:
        for evaluated, results in zip(evaluation.splits, evaluation.matrix, strict=True):
            candidates = [judges_table(evaluated), judged_table(evaluated, results)]
            tables = [table for table in candidates if table is not None]
            if tables:
                parts.append(Section("judges", evaluated.name, tables=tables, lines=judges_lines(evaluated, results)))
    for split in splits if not parts else ():
        judgements, notes = judgements_of(split.opened)
        rows = [[judged.about.judge, judged.about.kind, str(judged.about.rows)] for judged in judgements]
        if rows or notes:
            tables_of_files = [Table(["judge", "what it is", "verdicts"], rows)] if rows else []
            parts.append(Section("judges", split.name, tables=tables_of_files, lines=notes))
    return Section("judges", "Judges and audits", lines=[] if parts else [_NOT_DONE["judges"]], parts=parts)


def _failures(splits: Sequence[_OwnSplit], explanations: Sequence[_Read]) -> Section:
    parts = []
    for split in splits:
        table = _pairs(split)
        if table is not None:
            parts.append(Section("pairs", f"{split.name}: what it takes for what", tables=[table]))
    for read in explanations:
        lines = read.report.conclusions
        parts.append(Section("explained", read.report.title, lines=lines, links=read.links))
    missing = [] if explanations else [_NOT_DONE["failures"]]
    return Section("failures", "Failures by name", lines=missing, parts=parts)


def _pairs(split: _OwnSplit) -> Table | None:
    """Return the most frequent mistakes on valid images, true class and answer; None if there are none."""
    columns = split.columns
    if not {"label", "prediction", "valid"} <= columns.keys():
        return None
    names = split.provenance.labels
    rows = []
    for label, answer, count in mistaken_pairs(columns, _MOST_PAIRS):
        rows.append([names[label], names[answer] if 0 <= answer < len(names) else "no answer", str(count)])
    return Table(["true class", "answer", "images"], rows) if rows else None


def _changes(reports: Sequence[_Read]) -> Section:
    parts = []
    for read in reports:
        lines = list(read.report.conclusions)
        if read.report.badge is not None:
            lines[:1] = [f"{read.report.badge.words}: {lines[0]}"]
        parts.append(Section("verdict", read.report.title, lines=[*lines, *read.report.warnings], links=read.links))
        parts += [section for section in read.report.sections if section.kind in _OF_CHANGES]
    return Section(
        "changes", "Changes since the last release", lines=[] if parts else [_NOT_DONE["changes"]], parts=parts
    )


def _limits(splits: Sequence[_OwnSplit], evaluations: Sequence[Evaluation]) -> Section:
    lines = []
    for split in splits:
        of_split = lines_on_models(split.provenance)
        of_split += cautions(split.summary, steps=split.provenance.judged_steps)
        lines += [f"{split.name}: {line}" for line in of_split]
    for evaluation in evaluations:
        lines += [line for line in warning_lines(evaluation) if line not in lines]
    return Section("limits", "Limits", lines=[*lines, *_LIMITS])


def _maps(states: Mapping[str, str], places: Mapping[str, str]) -> list[Section]:
    titles = {
        "EU AI Act (Regulation 2024/1689), Article 15": ARTICLE_15,
        "ISO/IEC DIS 24029-3, by the headings of the draft of December 2025": ISO_24029_3,
    }
    sections = []
    for title, requirements in titles.items():
        rows = [_answered(requirement, states, places) for requirement in requirements]
        table = Table(["subject", "section", "state"], rows, of_text=True)
        sections.append(Section("map", f"Where it is answered: {title}", tables=[table]))
    return sections


def _answered(requirement: Requirement, states: Mapping[str, str], places: Mapping[str, str]) -> list[str]:
    subject = f"{requirement.number}: {requirement.subject}" if requirement.number else requirement.subject
    if not requirement.sections:
        return [subject, "", "outside fmrgen"]
    answered = {states[name] for name in requirement.sections}
    state = answered.pop() if len(answered) == 1 else "partly"
    if requirement.rest:
        state = f"{'partly' if state == 'done' else state}; {requirement.rest}"
    return [subject, ", ".join(places[name] for name in requirement.sections), state]


def _files(digests: Mapping[str, str]) -> Section:
    table = Table(["file", "sha256"], [[name, digest] for name, digest in digests.items()], of_text=True)
    about = f"{_SUMS} has these digests and those of this page; sha256sum -c {_SUMS} checks them."
    return Section("files", "Files behind this page", about, [table])
