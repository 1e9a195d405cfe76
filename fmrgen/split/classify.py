"""Classifiers over a stream of images: decoded once for all of them, shared over the processes, gathered by row."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from fmrgen.distributed.launch import Sharing, together
from fmrgen.distributed.prefetch import read_ahead
from fmrgen.engine.images import to_batch
from fmrgen.errors import UserError, one_line
from fmrgen.metrics.rows import as_label

TOP = 5
NO_ANSWER = -1  # the prediction where the highest logit is not finite

_DECODERS = 8  # threads, where there are as many cores
BATCHES_AHEAD = 2  # batches that are read ahead of those being decoded

MOST_PIXELS = 1 << 25  # of the images that are decoded, or classified, together; each takes 30 bytes on its way

Decoded = TypeVar("Decoded")
Pixels = np.ndarray  # uint8 RGB [H, W, 3]
LazyPixels = Pixels | Callable[[], Pixels]  # an image, or what decodes it when it is its turn


class Batch(NamedTuple):
    """Images that are classified together: `decode` gives B images for each name, `rows` [B] says whose they are."""

    rows: np.ndarray
    decode: Callable[[], dict[str, list[LazyPixels]]]


@dataclass(frozen=True)
class Answers:
    """What a classifier says of images, by row.

    Attributes:
        prediction: the class of the highest logit, int32 [N]; -1 where that is not finite.
        top_classes: of the highest logits, falling, int32 [N, k], k at most five; -1 where there is no prediction.
        top_probabilities: theirs, float32 [N, k]; NaN where there is no prediction.
        margin: the true class's logit less the highest other one, float32 [N]; NaN where there is no prediction.
    """

    prediction: np.ndarray
    top_classes: np.ndarray
    top_probabilities: np.ndarray
    margin: np.ndarray

    def in_order(self, rows: np.ndarray) -> "Answers":
        """The answers in rising order of `rows` [N], whose they are."""
        order = np.argsort(rows)
        return Answers(*(getattr(self, column.name)[order] for column in fields(self)))


@dataclass(frozen=True)
class KeptAnswers:
    """What figures need of answers, and a thousand classifiers have room for.

    Attributes:
        prediction: as in `Answers`, int32 [N].
        confidence: the probability of that, float32 [N].
        in_top5: whether the label is among the five likeliest classes, bool [N]; None of no more than five classes.
    """

    prediction: np.ndarray
    confidence: np.ndarray
    in_top5: np.ndarray | None

    @classmethod
    def of(
        cls, answers: Answers, labels: np.ndarray, classes: int, accepted: np.ndarray | None = None
    ) -> "KeptAnswers":
        """Those of answers to images of `labels` [N], of so many classes; what else is `accepted` counts as the
        label."""
        among = None
        if classes > TOP:
            likeliest = [as_label(column, labels, accepted) for column in answers.top_classes.T]
            among = (np.stack(likeliest, axis=1) == labels[:, None]).any(1)
        return cls(as_label(answers.prediction, labels, accepted), answers.top_probabilities[:, 0].copy(), among)


Predictions = dict[str, dict[str, Answers]]  # classifier → name of the images → by row


def classify(
    batches: Iterator[Batch],
    classifiers: Mapping[str, nn.Module],
    labels: Callable[[np.ndarray], np.ndarray],
    processes: Sharing,
    device: torch.device,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> Predictions:
    """What each classifier says of every image, by row.

    All processes draw all `batches`, and each decodes and classifies its own: batch i is made up the same however many
    processes there are, and so are the last bits of its logits. Every process gets all answers. `labels` gives the
    true classes [n] of rows [n]. `on_rows(n)` is called as rows go by. Raises UserError for what `decode` or a
    classifier throws.
    """
    mine = together(processes, partial(_ask_about_own, batches, classifiers, labels, processes, device, on_rows))
    return _by_row(processes.gather(mine))


def _ask_about_own(
    batches: Iterator[Batch],
    classifiers: Mapping[str, nn.Module],
    labels: Callable[[np.ndarray], np.ndarray],
    processes: Sharing,
    device: torch.device,
    on_rows: Callable[[int], None],
) -> dict[str, dict[str, tuple[np.ndarray, Answers]]]:
    """The rows of this process, and what is said of them."""
    found: dict[str, dict[str, list[list[Tensor]]]] = {name: {} for name in classifiers}
    rows: dict[str, list[np.ndarray]] = {}
    for batch_rows, decoded in read_ahead(decode_own(batches, processes, device), BATCHES_AHEAD):
        if decoded is not None:
            truth = torch.from_numpy(labels(batch_rows)).to(device)
            for images_name, images in decoded.result().items():
                rows.setdefault(images_name, []).append(batch_rows)
                for name, said in _ask(images, truth, classifiers, device).items():
                    found[name].setdefault(images_name, []).append(said)
        on_rows(len(batch_rows))
    return {
        name: {
            images_name: (
                np.concatenate(rows[images_name]),
                Answers(*(torch.cat(parts).cpu().numpy() for parts in zip(*said, strict=True))),
            )
            for images_name, said in of_classifier.items()
        }
        for name, of_classifier in found.items()
    }


def decode_own(
    batches: Iterable[tuple[np.ndarray, Callable[[], Decoded]]], processes: Sharing, device: torch.device
) -> Iterator[tuple[np.ndarray, Future[Decoded] | None]]:
    """The rows of every batch in turn, with what its `decode` makes of this process's own, some batches ahead.

    Batch i is process i's, modulo their number: it is made up the same however many there are.
    """
    workers = max(1, min(_DECODERS, torch.get_num_threads() // 2)) if device.type == "cpu" else _DECODERS
    waiting: deque[Any] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        for number, (rows, decode) in enumerate(batches):
            own = number % processes.size == processes.rank
            waiting.append((rows, pool.submit(decode) if own else None))
            if len(waiting) > workers:
                yield waiting.popleft()
        yield from waiting


def _that_fit(images: list[LazyPixels]) -> Iterator[tuple[list[int], list[Pixels]]]:
    """The images in parts of one size and no more than `MOST_PIXELS`, with their places in the list."""
    places: list[int] = []
    decoded: list[Pixels] = []
    taken = 0
    for place, image in enumerate(images):
        places.append(place)
        decoded.append(image if isinstance(image, np.ndarray) else image())
        taken += decoded[-1].shape[0] * decoded[-1].shape[1]
        if place + 1 == len(images) or taken >= MOST_PIXELS:
            for shape in dict.fromkeys(pixels.shape for pixels in decoded):
                alike = [i for i, pixels in enumerate(decoded) if pixels.shape == shape]
                yield [places[i] for i in alike], [decoded[i] for i in alike]
            places, decoded, taken = [], [], 0


def _ask(
    images: list[LazyPixels], labels: Tensor, classifiers: Mapping[str, nn.Module], device: torch.device
) -> dict[str, list[Tensor]]:
    """What each classifier says of the images, the columns of `Answers` [B, …]; images of one size go together."""
    parts: dict[str, list[list[Tensor]]] = {name: [] for name in classifiers}
    asked: list[int] = []
    with torch.inference_mode():
        for places, alike in _that_fit(images):
            batch = to_batch(np.stack(alike), device)
            asked += places
            for name, classifier in classifiers.items():
                size = "×".join(map(str, batch.shape))
                try:
                    logits = classifier(batch.clone())  # it may write into what it gets
                except UserError:
                    raise
                except (Exception, SystemExit) as error:  # anyone's code may stand there
                    what = f"classifier {name}: fails on images [{size}]"
                    raise UserError(f"{what}: {type(error).__name__}: {one_line(error)}") from error
                if len(logits) != len(batch):
                    raise UserError(f"classifier {name}: returns {len(logits)} rows of logits for images [{size}]")
                logits = logits if logits.is_floating_point() else logits.float()
                parts[name].append(answers_of(logits, labels[places]))
        back = torch.tensor(asked, device=device).argsort()
        return {
            name: [torch.cat(column)[back] for column in zip(*of_one, strict=True)] for name, of_one in parts.items()
        }


def answers_of(logits: Tensor, labels: Tensor) -> list[Tensor]:
    """Return the columns of `Answers`, of logits [B, K] for images of `labels` [B]."""
    # The highest is NaN where any is; -inf is how classes are left out, and no reason to doubt the rest.
    known = logits.amax(1).isfinite()
    prediction = torch.where(known, logits.argmax(1), NO_ANSWER)
    classes = logits.topk(min(TOP, logits.shape[1]), 1).indices
    probabilities = logits.float().softmax(1).gather(1, classes)
    true = logits.gather(1, labels.unsqueeze(1))
    margin = (true - logits.scatter(1, labels.unsqueeze(1), -torch.inf).amax(1, keepdim=True)).squeeze(1)
    return [
        prediction.to(torch.int32),
        classes.where(known.unsqueeze(1), NO_ANSWER).to(torch.int32),
        probabilities.where(known.unsqueeze(1), torch.nan),
        margin.float().where(known, torch.nan),
    ]


def _by_row(loaded: list[dict[str, dict[str, tuple[np.ndarray, Answers]]]]) -> Predictions:
    """The processes' shares put together by row, whichever process had which."""
    together: Predictions = {}
    for name in loaded[0]:
        together[name] = {}
        for images_name in sorted({images_name for one in loaded for images_name in one[name]}):
            shares = [one[name][images_name] for one in loaded if images_name in one[name]]
            rows = np.concatenate([rows for rows, _ in shares])
            if not np.array_equal(np.sort(rows), np.arange(len(rows))):
                raise RuntimeError(f"{images_name}: a row was classified twice, or not at all")
            columns = (np.concatenate([getattr(of, column.name) for _, of in shares]) for column in fields(Answers))
            together[name][images_name] = Answers(*columns).in_order(rows)
    return together
