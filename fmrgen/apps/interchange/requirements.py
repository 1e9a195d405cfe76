"""What laws and standards ask of robustness, by number and subject, and which sections of a dossier answer it.

Subjects are in words of our own; the texts are with their publishers.
"""

from typing import NamedTuple


class Requirement(NamedTuple):
    """A part of a law or a standard.

    Attributes:
        number: of the part; empty where the text gives none yet.
        subject: in a few words.
        sections: of the dossier that answer it; none if fmrgen has nothing to say of it.
        rest: what of it is not fmrgen's to answer.
    """

    number: str
    subject: str
    sections: tuple[str, ...] = ()
    rest: str = ""


ARTICLE_15 = (
    Requirement(
        "15(1)",
        "accuracy, robustness and cybersecurity over the life cycle",
        ("figures", "changes"),
        "no cybersecurity",
    ),
    Requirement("15(2)", "benchmarks and ways of measuring", ("images", "protocol")),
    Requirement("15(3)", "accuracy and its metrics, for the instructions for use", ("figures", "limits")),
    Requirement(
        "15(4)",
        "errors, faults and inconsistencies",
        ("failures", "changes"),
        "no redundancy, no feedback loops of systems that go on learning",
    ),
    Requirement(
        "15(5)",
        "attempts of third parties",
        ("figures", "failures"),
        "adversarial examples only; no poisoning, no extraction",
    ),
)
ISO_24029_3 = (
    Requirement("", "Robustness assessment during the life cycle", ("changes",)),
    Requirement("", "In-domain robustness assessment", ("figures",)),
    Requirement("", "Specification of expected behaviour", ("protocol", "judges")),
    Requirement("", "Robustness assessment based on performance drops", ("figures",)),
    Requirement("", "Targeted assessment of the system's response to a perturbation", ("failures",)),
    Requirement("", "Assessment through separability metrics"),
    Requirement("", "Assessment through statistical reliability engineering"),
    Requirement("", "Robustness assessment through curvature analysis"),
    Requirement("", "Selection of datasets representative of a robustness dimension", ("images",)),
    Requirement("", "Acquisition of data for robustness assessment", ("images", "protocol")),
    Requirement("", "Measuring adversarial robustness", ("figures", "protocol")),
)
