"""Classifiers over a stream of images: decoded once for all of them, shared over the processes, gathered by row."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from fmrgen.distributed.launch import Sharing
from fmrgen.distributed.prefetch import read_ahead
from fmrgen.engine.images import to_batch
from fmrgen.errors import UserError
from fmrgen.recipe.build import component_errors

_DECODERS = 8  # threads, where there are as many cores

MOST_PIXELS = 1 << 25  # of the images that are decoded, or classified, together; each takes 30 bytes on its way

Decoded = TypeVar("Decoded")
Pixels = np.ndarray  # uint8 RGB [H, W, 3]
LazyPixels = Pixels | Callable[[], Pixels]  # an image, or what decodes it when it is its turn


class Batch(NamedTuple):
    """Images that are classified together: `decode` gives B images for each name, `rows` [B] says whose they are."""

    rows: np.ndarray
    decode: Callable[[], dict[str, list[LazyPixels]]]


class Predicted(NamedTuple):
    """What a classifier predicts for images, by row."""

    prediction: np.ndarray  # the class of the highest logit, int32 [N]; -1 where that is not finite
    confidence: np.ndarray  # its probability, float32 [N]; NaN where there is no prediction
    margin: np.ndarray  # the true class's logit less the highest other one, float32 [N]; NaN without a prediction


_Share = tuple[np.ndarray, Predicted]  # rows [n], and the answers for them


def classify(
    batches: Iterator[Batch],
    classifiers: Mapping[str, nn.Module],
    labels: Callable[[np.ndarray], np.ndarray],
    processes: Sharing,
    device: torch.device,
    on_rows: Callable[[int], None] = lambda rows: None,
    together: int | None = None,
) -> dict[str, dict[str, Predicted]]:
    """Return the predictions of each classifier for every kind of images, by the names of both; every process gets all.

    All processes draw all `batches`, and each decodes and classifies its own: batch i is made up the same however many
    processes there are, and so are the last bits of its logits.

    The classifiers make logits [B, K] of images [B, 3, H, W] in [0, 1]; `labels` gives the true classes [n] of
    rows [n]. `on_rows` is called with the number of rows as they go by. A classifier gets at most `together` images at
    once; by default those of a batch that are of one size. Raises UserError for whatever `decode` or a classifier
    throws.
    """

    def classify_own() -> dict[tuple[str, str], _Share]:
        """Return this process's rows and predictions, by classifier and by the name of the images."""
        rows: dict[str, list[np.ndarray]] = {}
        columns: dict[tuple[str, str], list[list[Tensor]]] = {}
        for batch_rows, decoded in decode_own(batches, processes, device):
            if decoded is not None:
                truth = torch.from_numpy(labels(batch_rows)).to(device)
                for images_name, images in decoded.result().items():
                    rows.setdefault(images_name, []).append(batch_rows)
                    for name, predictions in _classify_batch(images, truth, classifiers, device, together).items():
                        columns.setdefault((name, images_name), []).append(predictions)
            on_rows(len(batch_rows))
        shares = {}
        for (name, images_name), parts in columns.items():
            arrays = [torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True)]
            shares[name, images_name] = np.concatenate(rows[images_name]), Predicted(*arrays)
        return shares

    return _by_row(processes.gather(processes.together(classify_own)))


def decode_own(
    batches: Iterator[tuple[np.ndarray, Callable[[], Decoded]]], processes: Sharing, device: torch.device
) -> Iterator[tuple[np.ndarray, Future[Decoded] | None]]:
    """Yield the rows of every batch in turn, and of this process's own what `decode` returns, read some batches ahead.

    Batch i belongs to process i, modulo their number: it is made up the same however many there are.
    """
    workers = _DECODERS
    if device.type == "cpu":  # where classifiers need the cores too
        workers = max(1, min(_DECODERS, torch.get_num_threads() // 2))
    waiting: deque[Any] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        for number, (rows, decode) in enumerate(read_ahead(batches, 2)):
            is_own = number % processes.size == processes.rank
            waiting.append((rows, pool.submit(decode) if is_own else None))
            if len(waiting) > workers:
                yield waiting.popleft()
        yield from waiting


def _parts_that_fit(images: list[LazyPixels], together: int) -> Iterator[tuple[Sequence[int], Sequence[Pixels]]]:
    """Yield the images in parts of one size, so many `together` and no more than `MOST_PIXELS`, with their places in
    the list."""
    by_shape: dict[tuple[int, ...], list[tuple[int, Pixels]]] = {}
    pixels_decoded = 0
    for place, image in enumerate(images):
        pixels = image if isinstance(image, np.ndarray) else image()
        by_shape.setdefault(pixels.shape, []).append((place, pixels))
        pixels_decoded += pixels.shape[0] * pixels.shape[1]
        if place + 1 < len(images) and pixels_decoded < MOST_PIXELS:
            continue
        for same_size in by_shape.values():
            for start in range(0, len(same_size), together):
                places, part = zip(*same_size[start : start + together], strict=True)
                yield places, part
        by_shape, pixels_decoded = {}, 0


def _classify_batch(
    images: list[LazyPixels],
    labels: Tensor,
    classifiers: Mapping[str, nn.Module],
    device: torch.device,
    together: int | None,
) -> dict[str, list[Tensor]]:
    """Return the columns of `Predicted`, [B, …], of each classifier; images of one size go through it together."""
    parts: dict[str, list[Tensor]] = {name: [] for name in classifiers}
    order: list[int] = []  # places of the images, as they were classified
    with torch.inference_mode():
        for places, same_size in _parts_that_fit(images, together or len(images)):
            batch = to_batch(np.stack(same_size), device)
            order += places
            for name, classifier in classifiers.items():
                parts[name].append(_logits_of(name, classifier, batch))
        classified = torch.tensor(order, device=device)
        back, predictions = classified.argsort(), {}
        for name, logits in parts.items():
            predictions[name] = [column[back] for column in predicted_of(torch.cat(logits), labels[classified])]
        return predictions


def _logits_of(name: str, classifier: nn.Module, batch: Tensor) -> Tensor:
    """Return a classifier's logits [B, K] for images [B, 3, H, W]. Raises UserError for whatever it throws."""
    with component_errors(f"classifier {name}", batch):
        logits: Tensor = classifier(batch.clone())  # it may write into what it gets
    if len(logits) != len(batch):
        raise UserError(f"classifier {name}: returns {len(logits)} rows of logits for {len(batch)} images")
    return logits if logits.is_floating_point() else logits.float()


def predicted_of(logits: Tensor, labels: Tensor) -> list[Tensor]:
    """Return the columns of `Predicted`, of logits [B, K] for images of `labels` [B]."""
    # The highest is NaN where any is; -inf is how classes are left out, and no reason to doubt the rest.
    is_finite = logits.amax(1).isfinite()
    prediction = torch.where(is_finite, logits.argmax(1), -1)
    confidence = logits.float().softmax(1).amax(1)
    true = logits.gather(1, labels.unsqueeze(1))
    margin = (true - logits.scatter(1, labels.unsqueeze(1), -torch.inf).amax(1, keepdim=True)).squeeze(1)
    return [
        prediction.to(torch.int32),
        confidence.where(is_finite, torch.nan),
        margin.float().where(is_finite, torch.nan),
    ]


def _by_row(shares: list[dict[tuple[str, str], _Share]]) -> dict[str, dict[str, Predicted]]:
    """Return the processes' shares put together by row, whichever process had which."""
    together: dict[tuple[str, str], list[_Share]] = {}
    for own in shares:
        for key, share in own.items():
            together.setdefault(key, []).append(share)
    predictions: dict[str, dict[str, Predicted]] = {}
    for (name, images_name), parts in sorted(together.items(), key=lambda entry: entry[0][1]):
        rows = np.concatenate([part_rows for part_rows, _ in parts])
        if not np.array_equal(np.sort(rows), np.arange(len(rows))):
            raise RuntimeError(f"{images_name}: a row was classified twice, or not at all")
        order, columns = np.argsort(rows), zip(*(predicted for _, predicted in parts), strict=True)
        in_order = [np.concatenate(column)[order] for column in columns]
        predictions.setdefault(name, {})[images_name] = Predicted(*in_order)
    return predictions
