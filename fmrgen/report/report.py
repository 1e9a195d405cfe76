"""A report: what a command has to say, in sections.

A terminal, Markdown, JSON, JUnit and a page show one report in this order and in these words: each is a function of a
`Report` in a module of its own beside this one, and nothing else builds any of them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from fmrgen.metrics.intervals import Estimate

if TYPE_CHECKING:
    from fmrgen.report.gallery import Gallery
    from fmrgen.report.plot import Plot

Shown = Literal["everywhere", "in files", "on the page", "in a comment"]
Outcome = Literal["passed", "failure", "skipped", "error"]
Tone = Literal["good", "bad", "unclear", "plain"]


@dataclass(frozen=True)
class Table:
    """Cells of text.

    Attributes:
        header: of the columns.
        rows: the first cell names the row.
        of_text: whether cells are read as text, from the left, and not as figures.
        first_columns: names of those that are shown before the reader asks for all, besides the first column; all if
            empty.
        filters: for each row the part of the page's address, after #, that makes its gallery show the row's images;
            empty if the page has none.
    """

    header: list[str]
    rows: list[list[str]]
    of_text: bool = False
    first_columns: Sequence[str] = ()
    filters: Sequence[str] = ()


@dataclass(frozen=True)
class Picture:
    """A picture of a section.

    Attributes:
        caption: below it.
        draw: draws it when a file needs it.
        name: of its files, without the end; empty for one that only the page has, inside.
        of_photos: whether its colours are those of images, so that a dark page does not invert them.
    """

    caption: str
    draw: "Callable[[], Plot]"
    name: str = ""
    of_photos: bool = False


@dataclass(frozen=True)
class Section:
    """A part of a report: a title, and below it the other parts that are not empty, in this order.

    Attributes:
        kind: of section, the same in every report.
        title: above it.
        about: a sentence that says how to read it.
        tables: one below the other.
        lines: on what they show.
        facts: texts by the name of what they describe.
        pictures: on the page and, if they have files, in Markdown.
        links: on the page, addresses by their texts.
        parts: sections below it.
        shown: everywhere, in files (Markdown and the page), on the page alone, or in the comment on a pull request.
        folded: on a page the section opens when its title is clicked.
        most_rows: of each table that a terminal and Markdown show; the page shows all.
    """

    kind: str
    title: str
    about: str = ""
    tables: list[Table] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    facts: Mapping[str, str] = field(default_factory=dict)
    pictures: list[Picture] = field(default_factory=list)
    links: Mapping[str, str] = field(default_factory=dict)
    parts: "list[Section]" = field(default_factory=list)
    shown: Shown = "everywhere"
    folded: bool = False
    most_rows: int | None = None

    @property
    def is_empty(self) -> bool:
        """Whether it has nothing to show."""
        has_rows = any(table.rows for table in self.tables)
        return not (has_rows or self.lines or self.facts or self.pictures or self.links or self.parts)


@dataclass(frozen=True)
class Badge:
    """The answer of a report, on a badge at the top of its page.

    Attributes:
        words: two or three of them.
        tone: the badge's colour; plain for a report that decides nothing.
    """

    words: str
    tone: Tone = "plain"


@dataclass(frozen=True)
class KeyFigure:
    """One of the two or three figures at the top of a page, with a bar of its interval.

    Attributes:
        name: what it is.
        estimate: in `unit`.
        unit: after the figure.
        low: the left end of the bar.
        high: its right end.
    """

    name: str
    estimate: Estimate
    unit: str = "%"
    low: float = 0.0
    high: float = 100.0

    @property
    def text(self) -> str:
        """The figure with its unit."""
        return f"{self.estimate.value:z.1f} {self.unit}"

    @property
    def interval(self) -> str:
        """The ends of the interval; empty if there are none."""
        if self.estimate.low is None or self.estimate.high is None:
            return ""
        return f"[{self.estimate.low:z.1f}, {self.estimate.high:z.1f}]"


@dataclass(frozen=True)
class Check:
    """A test that a report stands for, in a file of JUnit.

    Attributes:
        suite: the test's suite.
        name: of the test: what has to hold.
        outcome: of the test.
    """

    suite: str
    name: str
    outcome: Outcome


@dataclass(frozen=True)
class Report:
    """What a command has to say.

    Attributes:
        name: of its files: `NAME.json`, `NAME.md` and `NAME.html`.
        title: of the page.
        sections: in their order.
        data: the same for programs, what `files.json_text` takes.
        conclusions: sentences that answer the question; the last lines of a terminal, and the first of a file.
        about: a sentence below the title that says how to read the report.
        warnings: above everything.
        check: the test of a file of JUnit; None if the report decides nothing.
        meanings: of the headers of columns, shown where one points at them on the page.
        galleries: returns those of splits, which stand below the sections of the page.
        badge: the answer in a word or two; None if the report answers no question.
        figures: the two or three that a reader should take away.
        next_steps: sentences that say what to do now.
        page_name: of the page, if it differs from `name`.
        allow_nan: whether figures in `data` may be NaN, which is null in the file; else that is an error.
    """

    name: str
    title: str
    sections: list[Section]
    data: Any
    conclusions: list[str] = field(default_factory=list)
    about: str = ""
    warnings: list[str] = field(default_factory=list)
    check: Check | None = None
    meanings: Mapping[str, str] = field(default_factory=dict)
    galleries: "Callable[[], Sequence[Gallery]] | None" = None
    badge: Badge | None = None
    figures: Sequence[KeyFigure] = ()
    next_steps: Sequence[str] = ()
    page_name: str = ""
    allow_nan: bool = False

    def all_sections(self) -> Iterator[Section]:
        """Yield the sections, then those below them."""
        waiting = list(self.sections)
        while waiting:
            section = waiting.pop(0)
            yield section
            waiting += section.parts


def sentence(text: str) -> str:
    """Return a line as a sentence."""
    stop = "" if text.endswith("?") else "."
    return f"{text[:1].upper()}{text[1:]}{stop}"
