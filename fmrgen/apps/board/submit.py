"""Pull requests on the repos of models with their results on the Hub's benchmarks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import yaml
from huggingface_hub import CommitOperationAdd, Discussion
from huggingface_hub.errors import RemoteEntryNotFoundError
from pydantic import Field, TypeAdapter, ValidationError

from fmrgen.errors import UserError, one_line
from fmrgen.files import check_inside, open_plain
from fmrgen.hub.client import HubClient, RepoError
from fmrgen.publish.eval_results import read_eval_results
from fmrgen.results.evaluation import read_figures

_TITLE = "Robustness (FMR)"  # the start of the title of a pull request
_DESCRIPTION = (
    "Foundation Model-oriented Robustness of this model, measured with fmrgen. The notes of each entry have the "
    "interval and name the split; its source has all figures."
)

State = Literal["new", "opened", "updated", "open", "there", "refused", "left out"]
_ENTRIES: TypeAdapter[dict[str, str]] = TypeAdapter(Annotated[dict[str, str], Field(min_length=1)])


@dataclass(frozen=True)
class Submitted:
    """The outcome of submitting a model's results.

    Attributes:
        classifier: its name in the evaluation.
        model: its repo.
        state: `new` for what a dry run would open, `opened`, `updated` (an earlier pull request of the caller), `open`
            (a pull request has identical files), `there` (the model's repo has them), or, for a `reason`, `refused` by
            the Hub or `left out` as hardly better than chance.
        url: of the pull request, if there is one.
        files: the paths of the results in the repo.
        reason: why nothing was submitted, else None.
    """

    classifier: str
    model: str
    state: State
    url: str | None
    files: list[str]
    reason: str | None = None

    def __str__(self) -> str:
        """Return the outcome in words."""
        if self.reason is not None:
            return self.reason
        words = {
            "new": "would open a pull request",
            "opened": "opened a pull request",
            "updated": "updated your open pull request",
            "open": "a pull request is open",
            "there": "has these results",
        }
        details = [self.url] if self.url else self.files
        return ", ".join([words[self.state], *details])


def submit(
    folder: Path,
    models: Mapping[str, str],
    *,
    dry_run: bool = False,
    on_wait: Callable[[str], None] = lambda line: None,
    on_note: Callable[[str], None] = lambda line: None,
) -> list[Submitted]:
    """Open a pull request with its `.eval_results` on the repo of each model that has none yet.

    Results of a model that is hardly better than chance on the originals are not sent: they do not describe it, and
    almost always its weights, or the order of its classes, are wrong.

    Args:
        folder: of an evaluation with `--eval-results`.
        models: the model repo of each classifier, by the classifier's name.
        dry_run: only report what would be opened.
        on_wait: called with a line when the Hub asks to wait.
        on_note: called with a line that names what is not sent.

    Returns:
        The outcome for each model, including those whose repo does not exist or refuses results.

    Raises:
        UserError: the folder has no such results, a classifier is not in it, or the Hub can't be asked.
    """
    files, at_chance = _files(folder, models)
    if at_chance:
        on_note(
            f"hardly better than chance on the originals, and not sent: {', '.join(at_chance)}; are their weights "
            "loaded, and their classes in the order of the labels?"
        )
    outcomes = []
    for name, model in models.items():
        outcomes.append(_submit(name, model, files[name], dry_run, on_wait))
    return outcomes


def _submit(
    classifier: str, model: str, files: Mapping[str, bytes], dry_run: bool, on_wait: Callable[[str], None]
) -> Submitted:
    if not files:
        return Submitted(classifier, model, "left out", None, [], "left out, as hardly better than chance")
    try:
        return _Model(model, on_wait).propose(classifier, files, dry_run)
    except RepoError as error:
        return Submitted(classifier, model, "refused", None, [*files], str(error).removeprefix(f"{model}: "))


def read_models(path: Path) -> dict[str, str]:
    """Return the model repo of each classifier from a YAML file. Raises UserError if it is invalid."""
    try:
        with open_plain(path) as file:
            return _ENTRIES.validate_python(yaml.safe_load(file.read()))
    except (OSError, yaml.YAMLError, UnicodeDecodeError, ValidationError) as error:
        raise UserError(
            f"{path}: must map the names of classifiers to model repos, as `resnet50: you/resnet50`: {one_line(error)}"
        ) from None


def _files(folder: Path, models: Mapping[str, str]) -> tuple[dict[str, dict[str, bytes]], list[str]]:
    """Return the entries of each classifier by their paths in a model's repo, and in words those at chance."""
    evaluation = read_figures(folder / "evaluation.json")
    classifiers = {classifier.name: classifier for classifier in evaluation.classifiers}
    files: dict[str, dict[str, bytes]] = {}
    at_chance = []
    for name in models:
        if name not in classifiers:
            raise UserError(f"{folder}: has no classifier {name}; choose from {', '.join(classifiers)}")
        check_inside(folder / "eval-results", folder)
        entries = read_eval_results(evaluation, classifiers[name], folder / "eval-results")
        if not entries:
            raise UserError(
                f"{folder}: has no results of {name} to submit; evaluate splits on the Hub with --eval-results"
            )
        files[name] = {}
        for split, path, content in entries:
            if evaluation.result(split.name, name).at_chance:
                at_chance.append(f"{name} on {split.config}/{split.split}")
            else:
                files[name][path] = content
    return files, at_chance


class _Model:
    """The repo of a model, and the pull requests on it."""

    def __init__(self, name: str, on_wait: Callable[[str], None]) -> None:
        self._hub = HubClient(name, "model", "main", on_wait)

    def propose(self, classifier: str, files: Mapping[str, bytes], dry_run: bool) -> Submitted:
        """Open a pull request with the files, unless they are proposed or in the repo already.

        Args:
            classifier: its name in the evaluation.
            files: contents by path in the repo.
            dry_run: only report what would be opened.
        """
        account = self._hub.log_in()
        # Each attempt looks again: a pull request may have been opened though the Hub's answer was lost.
        state, url = self._hub.ask(partial(self._propose, account, files, dry_run), all_of_the_hub=False)
        return Submitted(classifier, self._hub.name, state, url, list(files))

    def _propose(self, account: str, files: Mapping[str, bytes], dry_run: bool) -> tuple[State, str | None]:
        """Return the state that results, and the address of the pull request."""
        if self._has(files, "main"):
            return "there", None
        own: Discussion | None = None
        for pull_request in self._open_pull_requests():
            if self._has(files, str(pull_request.git_reference)):
                return "open", pull_request.url
            if pull_request.author == account and str(pull_request.title).startswith(_TITLE):
                own = pull_request
        if dry_run:
            return "new", None
        noun = "board" if len(files) == 1 else "boards"
        message = f"{_TITLE} on {len(files)} {noun}"
        operations = [CommitOperationAdd(path, content) for path, content in files.items()]
        if own is not None:
            self._hub.send(operations, message, revision=own.git_reference)
            return "updated", own.url
        commit = self._hub.send(operations, message, commit_description=_DESCRIPTION, create_pr=True)
        return "opened", commit.pr_url

    def _open_pull_requests(self) -> list[Discussion]:
        discussions = partial(
            self._hub.api.get_repo_discussions,
            self._hub.name,
            discussion_type="pull_request",
            discussion_status="open",
        )
        return self._hub.ask(lambda: list(discussions()))

    def _has(self, files: Mapping[str, bytes], revision: str) -> bool:
        """Return whether the repo has identical files at a revision."""
        try:
            return self._hub.read(list(files), revision) == files
        except RemoteEntryNotFoundError:  # not LocalEntryNotFoundError, which is an outage
            return False
