"""Results on the pages of models: `.eval_results/*.yaml` in a model's repo, proposed by a pull request."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from huggingface_hub import CommitOperationAdd, EvalResultEntry, constants, eval_result_entries_to_yaml
from huggingface_hub.errors import RemoteEntryNotFoundError

from fmrgen.errors import UserError
from fmrgen.files import to_yaml
from fmrgen.hub.client import HubClient
from fmrgen.publish.benchmark import task_id
from fmrgen.publish.card import citation_tag
from fmrgen.results.evaluation import EvaluatedSplit, Result, read_figures

_FOLDER = ".eval_results"  # in a model's repo
_TITLE = "Robustness (FMR)"  # the start of the title of a pull request


class Proposed(NamedTuple):
    """A model's results on the Hub."""

    model: str  # its repo
    state: Literal["opened", "updated", "there"]  # updated: an earlier pull request of the caller; there: nothing to do
    url: str | None  # of the pull request; None if the repo itself has the results
    files: list[str]  # their paths in the repo

    def __str__(self) -> str:
        """Return the outcome in words."""
        words = {"opened": "opened", "updated": "updated", "there": "has these results already:"}
        return f"{self.model}: {words[self.state]} {self.url or ', '.join(self.files)}"


def push_results(folder: Path, model: str, classifier: str) -> Proposed:
    """Propose a classifier's results to its model's repo; the model page and the split's benchmark then show them.

    The results are FMR on each split of the evaluation that is on the Hub. Run again, it updates its pull request.

    `folder` is that of `fmrgen evaluate --output`, `model` is the model's repo, `OWNER/NAME`, and `classifier` is its
    name in the evaluation. Raises UserError if the folder has no such results, they describe no trained network
    (accuracy of chance), or the Hub refuses.
    """
    entries = _entries(folder, classifier)
    hub = HubClient(model, "model")
    account = hub.log_in()
    # Each attempt looks again: a pull request may have been opened though the Hub's response was lost.
    return hub.ask(partial(_propose, hub, account, entries), all_of_the_hub=False)


def _entries(folder: Path, classifier: str) -> dict[str, bytes]:
    """Return a classifier's entries by their paths in a model's repo."""
    evaluation = read_figures(folder / "evaluation.json")
    names = [measured.name for measured in evaluation.classifiers]
    if classifier not in names:
        raise UserError(f"{folder}: has no classifier {classifier}; choose from {', '.join(names)}")
    entries = {}
    for split in evaluation.splits:
        result = evaluation.result(split.name, classifier)
        if split.revision is None or split.files is None or result.total.fmr is None:
            continue
        if result.total.at_chance:
            raise UserError(
                f"{classifier}: is hardly better than chance on the originals of {split.name}; are its weights loaded, "
                "and its classes in the order of the labels?"
            )
        # Each board has a file of its own, so that the results on other boards stay.
        board = f"{str(split.repo).replace('/', '--')}--{task_id(str(split.config), str(split.split))}"
        entries[f"{_FOLDER}/{board}.yaml"] = to_yaml(eval_result_entries_to_yaml([_entry(split, result)])).encode()
    if not entries:
        raise UserError(f"{folder}: has no FMR of {classifier} on a split of the Hub; evaluate OWNER/NAME:CONFIG/SPLIT")
    return entries


def _entry(split: EvaluatedSplit, result: Result) -> EvalResultEntry:
    """Return the entry of a result, undated, so that equal results are equal files."""
    total = result.total
    assert total.fmr is not None
    notes = [
        f"FMR {total.fmr} %",
        f"SA {total.standard_accuracy}",
        f"PA {total.perturbed_accuracy}",
        f"{total.rows} images",
        f"generated against {'this' if result.conditioned else 'another'} model",
        f"split {citation_tag(str(split.config), str(split.split), str(split.fingerprint), str(split.files))}",
    ]
    return EvalResultEntry(
        dataset_id=str(split.repo),
        task_id=task_id(str(split.config), str(split.split)),
        value=round(total.fmr.value, 2),
        dataset_revision=split.revision,
        source_url=f"{constants.ENDPOINT}/datasets/{split.repo}/tree/{split.revision}",
        source_name="fmrgen",
        notes="; ".join(notes),
    )


def _propose(hub: HubClient, account: str, contents: Mapping[str, bytes]) -> Proposed:
    files = list(contents)
    if _has(hub, contents, "main"):
        return Proposed(hub.name, "there", None, files)
    operations = [CommitOperationAdd(path, content) for path, content in contents.items()]
    discussions = partial(
        hub.api.get_repo_discussions, hub.name, discussion_type="pull_request", discussion_status="open"
    )
    for pull_request in hub.ask(lambda: list(discussions())):
        reference = str(pull_request.git_reference)
        if _has(hub, contents, reference):
            return Proposed(hub.name, "there", pull_request.url, files)
        if pull_request.author == account and str(pull_request.title).startswith(_TITLE):
            hub.send(operations, _TITLE, revision=reference)
            return Proposed(hub.name, "updated", pull_request.url, files)
    commit = hub.send(operations, _TITLE, create_pr=True)
    return Proposed(hub.name, "opened", commit.pr_url, files)


def _has(hub: HubClient, contents: Mapping[str, bytes], revision: str) -> bool:
    """Return whether the repo has identical files at a revision."""
    try:
        return hub.read(list(contents), revision) == contents
    except RemoteEntryNotFoundError:  # not LocalEntryNotFoundError, which is an outage
        return False
