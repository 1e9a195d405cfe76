"""Asks an endpoint about images: many at once, again if a request fails, and never twice about one image."""

import base64
import hashlib
import io
import json
import logging
import math
import os
import random
import re
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from threading import Event, Lock
from typing import Annotated, Literal
from urllib.parse import quote, quote_plus, unquote_plus, urlsplit

import numpy as np
import requests
import torch
from huggingface_hub import get_token
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import from_json
from requests.adapters import HTTPAdapter
from torch import Tensor, nn
from urllib3 import Retry
from urllib3.exceptions import HTTPError

from fmrgen.classifiers.base import without_colours
from fmrgen.errors import UserError, one_line
from fmrgen.files import cache_folder

# Variables of the environment.
TOKEN = "FMRGEN_ENDPOINT_TOKEN"
QUERY = "FMRGEN_ENDPOINT_QUERY"

_ATTEMPTS = 8
_FIRST_ATTEMPTS = 3  # at an address that has not answered yet
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
_REDIRECTED = 300
_LEAST = 1e-38  # probability of a class without a score: its logarithm is a number
_LOCAL = ("localhost", "127.0.0.1", "::1")
_LONGEST_PAUSE = 60.0  # seconds
_LARGEST_ANSWER = 16 << 20  # bytes: a thousand classes of a hundred images
_MOST_TO_MASK = 10_000  # characters of an error: it is masked before it is cut, since half a key is too much
_MOST_SHOWN = 120  # characters of an error
_HUB = "huggingface.co"  # may see the Hub's token; Spaces and endpoints, which run other people's code, are elsewhere
_SHORTEST_SECRET = 4  # characters: shorter values of a query would be masked inside words
_SENDABLE = re.compile(r"[!$-;=?-~]*")  # what an address and a header can hold
_NUMBERED = re.compile(r"LABEL_(\d+)")  # transformers' names of classes without names

_KEPT_FORMAT = 2  # of the files of kept answers: since then they hold images to ask about again
# Servers round scores, differently in another batch: two scores are the same up to an absolute and a relative part.
_ABSOLUTE_TOLERANCE = 1e-3
_RELATIVE_TOLERANCE = 0.05
_CHECK_EVERY = 600.0  # seconds after which the model is checked again
_log = logging.getLogger(__name__)

Scores = dict[str, float]


@dataclass(frozen=True)
class Endpoint:
    """An endpoint, and how it is asked, as a recipe's section says it."""

    url: str
    top_k: int
    requests: int
    batch: int
    timeout: float
    kept_hours: float
    rate: float | None
    max_queries: int | None
    class_names: Sequence[str] | None
    channels: Literal["rgb", "gray"]


class EndpointClassifier(nn.Module):
    """`forward` takes images [B, 3, H, W] in [0, 1] on the 8-bit grid and returns log-probabilities [B, K]."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__()
        self._endpoint = endpoint
        self._answers = _Answers(endpoint)
        self._places: dict[str, int] = {}

    @property
    def class_names(self) -> list[str] | None:
        """The endpoint's names of its classes; None if it only numbers them."""
        places = self._classes()
        if all(map(_NUMBERED.fullmatch, places)):
            return None
        return list(places)

    def forward(self, images: Tensor) -> Tensor:
        places = self._classes()
        if self._endpoint.channels == "gray":
            images = without_colours(images)
        pixels = (images.detach() * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        answers = self._answers.scores_of(pixels)
        logits = torch.full((len(answers), len(places)), math.log(_LEAST))
        for row, scores in enumerate(answers):
            for label, score in scores.items():
                if label not in places:
                    raise UserError(f"{self._endpoint.url}: answers with a class {label!r} that is not in class_names")
                logits[row, places[label]] = math.log(max(score, _LEAST))
        return logits.to(images.device)

    def check_same_answers(self) -> None:
        """Raise UserError if the model behind the address has changed since it was first asked."""
        self._answers.check()

    def _classes(self) -> dict[str, int]:
        """Return the place of each class among the outputs."""
        if not self._places:
            names = self._endpoint.class_names
            if not names:
                grey = np.full((1, 32, 32, 3), 128, np.uint8)
                names = sorted(self._answers.scores_of(grey)[0], key=_sort_key)
            self._places = {name: place for place, name in enumerate(names)}
        return self._places


class _Answers:
    """The endpoint's scores for images, kept on this machine for some hours: it is not asked twice about an image.

    Three images are an exception, of those that are kept the oldest, the newest and the least certain: at the first
    question, every ten minutes and at the end they are asked about again. If an answer differs, the model behind the
    address was changed, and no answer of the old model is used any more.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._turns = _Turns(endpoint)
        self._address, self._session, self._hide = _connect(endpoint)
        self._kept = _KeptAnswers(endpoint) if endpoint.kept_hours else None
        self._has_answered = False
        self._checked: float | None = None  # when kept answers were last compared with new ones

    def scores_of(self, pixels: np.ndarray) -> list[Scores]:
        """Return the score of each class for images, uint8 [B, H, W, 3]. Raises UserError if the endpoint fails."""
        if self._checked is None or time.monotonic() - self._checked > _CHECK_EVERY:
            self.check()
        files = [_png(image) for image in pixels]
        digests = [hashlib.sha256(file).hexdigest() for file in files]
        unique = dict(zip(digests, files, strict=True))
        answers = {} if self._kept is None else self._kept.read(unique)
        missing = [digest for digest in unique if digest not in answers]
        parts = []
        for start in range(0, len(missing), self._endpoint.batch):
            parts.append({digest: unique[digest] for digest in missing[start : start + self._endpoint.batch]})
        stop = Event()
        with ThreadPoolExecutor(self._endpoint.requests, thread_name_prefix="endpoint") as pool:
            futures = [pool.submit(self._ask_and_keep, part, stop) for part in parts]
            try:
                for future in as_completed(futures):
                    answers |= future.result()
            except BaseException:
                stop.set()
                pool.shutdown(cancel_futures=True)
                raise
        return [answers[digest] for digest in digests]

    def check(self) -> None:
        """Compare a few kept answers with new ones; delete all if they differ.

        Raises UserError if they differ and some were returned in this run already.
        """
        is_first = self._checked is None
        self._checked = time.monotonic()
        if self._kept is None or not (is_first or self._kept.has_new):
            return
        now = time.time()
        count, probes = self._kept.probes()
        differing = 0
        for file, scores in probes:
            [new_scores] = self._ask([file], Event(), counted=0)
            if not _is_same(scores, new_scores):
                differing += 1
        url, repeated = self._endpoint.url, len(probes)
        if not differing:
            if is_first and probes:
                _log.warning(
                    "%s: %s answers of the last %g hours are used again; %d of them were asked for again, and are the "
                    "same",
                    *(url, f"{count:,}", self._endpoint.kept_hours, repeated),
                )
            return
        deleted = self._kept.delete(now)  # answers that another process got from the new model are later, and stay
        if not is_first:
            raise UserError(
                f"{url}: the model behind it was changed while it was asked ({differing} of {repeated} images have "
                "other scores than before); its answers were deleted, run the same command again"
            )
        if deleted:  # by this process; an error, since warnings of all processes but the first are not shown
            _log.error(
                "%s: %s kept answers were deleted: the model behind it has changed (%d of %d images have other scores "
                "now); all images are asked about again",
                *(url, f"{deleted:,}", differing, repeated),
            )

    def _ask_and_keep(self, files: Mapping[str, bytes], stop: Event) -> dict[str, Scores]:
        """Return the scores of the images of one request, PNGs by their digests, and keep them."""
        scores = self._ask(list(files.values()), stop, counted=len(files))
        answers = dict(zip(files, scores, strict=True))
        if self._kept is not None:
            self._kept.add(answers, files)
        return answers

    def _ask(self, images: Sequence[bytes], stop: Event, counted: int) -> list[Scores]:
        """Return the scores of the images of one request, which is repeated if it fails.

        Args:
            images: PNGs.
            stop: set when another request has failed for good.
            counted: how many images count for `max_queries`.

        Raises:
            UserError: the endpoint does not answer as it should.
        """
        url = self._endpoint.url
        inputs = [base64.b64encode(image).decode() for image in images]
        question = {"inputs": inputs if self._endpoint.batch > 1 else inputs[0]}
        body = json.dumps({**question, "parameters": {"top_k": self._endpoint.top_k}}).encode()
        for attempt in range(_ATTEMPTS):
            # Neither this loop nor its pauses are urllib3's: each attempt takes its turn and counts, an answer may
            # break off or be no JSON after its headers have come, and `stop` ends a pause.
            _wait(stop, self._turns.seconds_until(counted))
            pause = 2**attempt * random.uniform(0.25, 0.5)
            try:
                # Redirects are errors: the token and the image are for this address alone.
                with self._session.post(
                    self._address, body, timeout=self._endpoint.timeout, allow_redirects=False, stream=True
                ) as answer:
                    self._has_answered = True
                    status = self._hide(f"answered {answer.status_code} {answer.reason}")
                    if answer.status_code in _TRANSIENT:
                        pause = Retry().get_retry_after(answer.raw) or pause
                        raise ValueError(status)
                    if answer.status_code >= _REDIRECTED:
                        raise UserError(f"{url}: {status}; check the address, and {TOKEN} or {QUERY}")
                    return self._parse(_read(answer, url), len(images))
            except (OSError, ValueError, HTTPError) as error:  # refused, cut off, no JSON
                reason = self._hide(one_line(error, _MOST_TO_MASK))[:_MOST_SHOWN]
            if attempt + 1 == _FIRST_ATTEMPTS and not self._has_answered:
                raise UserError(f"{url}: can't be reached: {reason}; check the address, or start it")
            if attempt + 1 < _ATTEMPTS:
                _wait(stop, min(_LONGEST_PAUSE, pause))
        raise UserError(f"{url}: {reason}, {_ATTEMPTS} times; run the same command again later")

    def _parse(self, body: bytes, count: int) -> list[Scores]:
        """Return the scores of the images of a request.

        Args:
            body: the answer.
            count: the number of images. One that is sent alone is answered alone, or as a list of one.

        Raises:
            ValueError: no JSON, or an error; it may be an answer the next time.
            UserError: not an answer to so many images, nor would it be the next time.
        """
        parsed = from_json(body)
        shown = self._hide(body[:_MOST_TO_MASK].decode(errors="replace"))[:_MOST_SHOWN]
        if isinstance(parsed, dict) and "error" in parsed:
            raise ValueError(f"answered {shown}")
        if self._endpoint.batch == 1 and not (isinstance(parsed, list) and parsed and isinstance(parsed[0], list)):
            parsed = [parsed]
        if not isinstance(parsed, list) or len(parsed) != count:
            raise UserError(f"{self._endpoint.url}: answered {shown} to {count} images; set classifier.batch=1")
        try:
            answers = _ANSWERS.validate_python(parsed)
        except ValidationError:
            raise UserError(
                f"{self._endpoint.url}: answered {shown}, not a list of labels with scores from 0 to 1; it must answer "
                "as the Hub's image-classification endpoints do"
            ) from None
        return [self._scores(entries) for entries in answers]

    def _scores(self, entries: "list[_Entry]") -> Scores:
        """Return the score of each class of an answer. Raises UserError if two have the same name."""
        labels = [self._hide(entry.label) for entry in entries]
        label, times = Counter(labels).most_common(1)[0]
        if times > 1:
            raise UserError(
                f"{self._endpoint.url}: calls several classes {label!r}; give each its own name in the model's id2label"
            )
        return {label: entry.score for label, entry in zip(labels, entries, strict=True)}


class _Entry(BaseModel):
    """A class in an answer."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    label: str
    score: float = Field(ge=0, le=1, strict=True, allow_inf_nan=False)


_ANSWERS = TypeAdapter(list[Annotated[list[_Entry], Field(min_length=1)]])


class _KeptAnswers:
    """Answers of an endpoint in a file of this machine, and the images by which a change of its model is noticed.

    Attributes:
        has_new: whether there are answers since the probes were last read.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.has_new = False
        self._least_certain = math.inf  # the highest score of the image that this process is least sure of
        self._since = time.time() - 3600 * endpoint.kept_hours
        self._lock = Lock()
        name = hashlib.sha256(f"{endpoint.url} {endpoint.top_k} {_KEPT_FORMAT}".encode()).hexdigest()[:24]
        self._file = cache_folder() / "endpoints" / f"{name}.sqlite"
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as database:
            database.execute("create table if not exists answers (image text primary key, at real, scores text)")
            database.execute("create table if not exists probes (role text primary key, image text, file blob)")
            database.execute("delete from answers where at < ?", (self._since,))
            database.execute("delete from probes where image not in (select image from answers)")

    def read(self, digests: Iterable[str]) -> dict[str, Scores]:
        """Return the kept answers among those to images, by their digests."""
        answers = {}
        with self._open() as database:
            for digest in digests:
                query = "select scores from answers where image = ? and at >= ?"
                row = database.execute(query, (digest, self._since)).fetchone()
                if row is not None:
                    answers[digest] = json.loads(row[0])
        return answers

    def add(self, answers: Mapping[str, Scores], files: Mapping[str, bytes]) -> None:
        """Keep answers to images, by their digests, and those of `files` that are asked about again."""
        self.has_new = True
        rows = [(digest, time.time(), json.dumps(scores)) for digest, scores in answers.items()]
        certainties = {digest: max(scores.values()) for digest, scores in answers.items()}
        digest = min(certainties, key=lambda digest: certainties[digest])
        probe = (digest, files[digest])
        with self._open() as database:
            database.executemany("insert or replace into answers values (?, ?, ?)", rows)
            database.execute("insert or ignore into probes values ('oldest', ?, ?)", probe)
            database.execute("insert or replace into probes values ('newest', ?, ?)", probe)
            if certainties[digest] < self._least_certain:
                self._least_certain = certainties[digest]
                database.execute("insert or replace into probes values ('least certain', ?, ?)", probe)

    def probes(self) -> tuple[int, list[tuple[bytes, Scores]]]:
        """Return the number of kept answers, and images to ask about again with the answers to them."""
        self.has_new = False
        query = "select file, scores from probes join answers using (image) where at >= ? group by image"
        with self._open() as database:
            (count,) = database.execute("select count(*) from answers where at >= ?", (self._since,)).fetchone()
            rows = database.execute(query, (self._since,)).fetchall()
        return count, [(file, json.loads(scores)) for file, scores in rows]

    def delete(self, until: float) -> int:
        """Delete the answers until a time, and return their number."""
        with self._open() as database:
            deleted = database.execute("delete from answers where at <= ?", (until,)).rowcount
            database.execute("delete from probes where image not in (select image from answers)")
        return deleted

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Open the file for one transaction. Raises UserError if it is broken."""
        try:
            with self._lock, closing(sqlite3.connect(self._file, timeout=60)) as database, database:
                database.execute("pragma synchronous = normal")  # there are many answers
                yield database
        except (sqlite3.Error, ValueError) as error:
            raise UserError(f"{self._file}: broken or not writable ({one_line(error, 80)}); delete it") from None


class _Turns:
    """Says when the next request may be sent, and counts the images of requests."""

    def __init__(self, endpoint: Endpoint) -> None:
        processes = int(os.environ.get("WORLD_SIZE", "1"))
        rank = int(os.environ.get("RANK", "0"))
        self._endpoint = endpoint
        self._share = math.inf  # of `max_queries`, for this process
        if endpoint.max_queries is not None:
            self._share = (endpoint.max_queries + processes - 1 - rank) // processes
            if self._share < endpoint.batch:
                raise UserError(
                    f"classifier.max_queries: {endpoint.max_queries} is not enough for a request of each process; set "
                    f"{endpoint.batch * processes} or more"
                )
        self._seconds = 0.0 if endpoint.rate is None else processes / endpoint.rate
        self._next = 0.0
        self._asked = 0
        self._lock = Lock()

    def seconds_until(self, images: int) -> float:
        """Return how long to wait before asking about so many images. Raises UserError if they are too many."""
        with self._lock:
            if self._asked + images > self._share:
                raise UserError(
                    f"{self._endpoint.url}: {self._asked:,} images asked about, and classifier.max_queries is "
                    f"{self._endpoint.max_queries:,}; run the same command again to go on, with as many again"
                )
            self._asked += images
            turn = max(self._next, time.monotonic())
            self._next = turn + self._seconds
            return turn - time.monotonic()


def _is_same(before: Scores, now: Scores) -> bool:
    """Return whether two answers are equal but for rounding. A class without a score counts as 0."""
    for label in before.keys() | now.keys():
        old, new = before.get(label, 0.0), now.get(label, 0.0)
        if abs(old - new) > _ABSOLUTE_TOLERANCE + _RELATIVE_TOLERANCE * max(old, new):
            return False
    return True


def _wait(stop: Event, seconds: float) -> None:
    """Wait; raise UserError at once if another request fails meanwhile."""
    if stop.wait(max(0.0, seconds)):
        raise UserError("stopped")


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _read(answer: requests.Response, url: str) -> bytes:
    """Return the body of an answer.

    Raises UserError if it is too large, or packed: some kilobytes can stand for gigabytes.
    """
    encoding = answer.headers.get("Content-Encoding", "identity").lower()
    if encoding != "identity":
        raise UserError(f"{url}: answers in the encoding {encoding[:20]!r}, which was not asked for; turn it off there")
    body: bytes = answer.raw.read(_LARGEST_ANSWER + 1)
    if len(body) > _LARGEST_ANSWER:
        raise UserError(
            f"{url}: an answer has more than {_LARGEST_ANSWER >> 20} MB; set a smaller classifier.top_k or "
            "classifier.batch, if these are scores"
        )
    return body


def _connect(endpoint: Endpoint) -> tuple[str, requests.Session, Callable[[str], str]]:
    """Return the address for requests, a session that sends them, and what masks the secrets in both.

    Raises UserError for a secret that would be sent unencrypted, or that can't be sent.
    """
    url = urlsplit(endpoint.url)
    host = url.hostname or ""
    token, query = _secret(TOKEN, endpoint.url), _secret(QUERY, endpoint.url).lstrip("?&")
    if not token and url.scheme == "https" and (host == _HUB or host.endswith(f".{_HUB}")):
        token = get_token() or ""
    address = endpoint.url
    if query:
        address += f"&{query}" if url.query else f"?{query}"
    session = requests.Session()
    kind = "application/json"
    session.headers.update({"Content-Type": kind, "Accept": kind, "Accept-Encoding": "identity"})
    if token:
        session.headers["Authorization"] = f"Bearer {token}"
    session.auth = lambda request: request  # otherwise a password of .netrc would replace the token
    session.trust_env = host not in _LOCAL  # no proxy for this machine's own addresses
    session.mount(f"{url.scheme}://", HTTPAdapter(pool_maxsize=endpoint.requests))
    return address, session, _mask_of(token, query)


def _secret(name: str, url: str) -> str:
    """Return a secret of the environment for an address, "" if there is none.

    Raises UserError if it would be sent unencrypted, and for characters that can't be sent.
    """
    secret = os.environ.get(name, "").strip()
    address = urlsplit(url)
    if secret and address.scheme != "https" and address.hostname not in _LOCAL:
        raise UserError(f"{url}: {name} would be sent there unencrypted; use https, or unset it")
    if not _SENDABLE.fullmatch(secret):
        raise UserError(f"{name} contains a character that can't be sent; copy it again, or write it as %XX")
    return secret


def _mask_of(token: str, query: str) -> Callable[[str], str]:
    """Return what replaces a token and the keys of a query by an ellipsis, in any spelling."""
    secrets = [token, query]
    for parameter in query.split("&"):
        secrets.append(parameter.partition("=")[2] or parameter)
    spellings: set[str] = set()
    for secret in secrets:
        if len(secret) >= _SHORTEST_SECRET:
            spellings |= _spellings(secret)
    longest_first = sorted(spellings, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")  # the latter matches nothing
    return partial(pattern.sub, "…")


def _spellings(secret: str) -> set[str]:
    """Return a secret as it is, as addresses quote it, and as it appears in the base64 of any text that contains it."""
    spellings = {secret, unquote_plus(secret), quote(secret), quote(secret, safe=""), quote_plus(secret)}
    for text in list(spellings):
        content = text.encode()
        # Three bytes are four characters; `offset` is the place of the secret's first byte among its three.
        for offset, first in ((0, 0), (1, 2), (2, 3)):
            encoded = base64.b64encode(bytes(offset) + content).decode()
            last = (offset + len(content)) * 8 // 6
            inside = encoded[first:last]  # the characters that depend on no other byte
            spellings |= {inside, inside.replace("+", "-").replace("/", "_")}
    return spellings


def _sort_key(name: str) -> tuple[int, str]:
    """Return a key that sorts classes without names by their numbers, others by the alphabet."""
    match = _NUMBERED.fullmatch(name)
    if match is None:
        return -1, name
    return int(match[1]), ""
