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
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Event, Lock
from typing import Any, Literal
from urllib.parse import quote, quote_plus, unquote_plus, urlsplit

import numpy as np
import requests
import torch
from huggingface_hub import get_token
from PIL import Image
from torch import Tensor, nn
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
_LARGEST_ANSWER = 16 << 20  # bytes, unpacked: a thousand classes of a hundred images
_PIECE = 1 << 16  # bytes of an answer that are read, and unpacked, at once
_GZIP = 16  # added to the window's bits, makes zlib read gzip
_MOST_TO_MASK = 10_000  # characters of an error: it is masked before it is cut, since half a key is too much
_MOST_SHOWN = 120  # characters of an error
_HUB = "huggingface.co"  # may see the Hub's token; Spaces and endpoints, which run other people's code, are elsewhere
_SHORTEST_SECRET = 4  # characters: shorter values of a query would be masked inside words
_NUMBERED = re.compile(r"LABEL_(\d+)")  # transformers' names of classes without names

_KEPT_FORMAT = 2  # of the files of stored answers: since then they hold images to ask about again
# Servers round scores, differently in another batch: two scores are the same up to an absolute and a relative part.
_ABSOLUTE_TOLERANCE = 1e-3
_RELATIVE_TOLERANCE = 0.05
_CHECK_EVERY = 600.0  # seconds after which the model is checked again
_log = logging.getLogger(__name__)

Scores = dict[str, float]


class EndpointClassifier(nn.Module):
    """`forward` takes images [B, 3, H, W] in [0, 1] on the 8-bit grid and returns log-probabilities [B, K]."""

    def __init__(
        self,
        answers: "Answers",
        class_names: Sequence[str] | None = None,
        channels: Literal["rgb", "gray"] = "rgb",
    ) -> None:
        super().__init__()
        self._answers = answers
        self._channels = channels
        self._named = None if class_names is None else list(class_names)
        self._places: dict[str, int] | None = None

    @property
    def class_names(self) -> list[str] | None:
        """The endpoint's names of its classes; None if it only numbers them."""
        places = self._classes()
        if all(map(_NUMBERED.fullmatch, places)):
            return None
        return list(places)

    def forward(self, images: Tensor) -> Tensor:
        places = self._classes()
        if self._channels == "gray":
            images = without_colours(images)
        pixels = (images.detach() * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        answers = self._answers.scores_of(pixels)
        logits = torch.full((len(answers), len(places)), math.log(_LEAST))
        for row, scores in enumerate(answers):
            for label, score in scores.items():
                if label not in places:
                    raise UserError(f"{self._answers.url}: answers with a class {label!r} that is not in class_names")
                logits[row, places[label]] = math.log(max(score, _LEAST))
        return logits.to(images.device)

    def check_same_answers(self) -> None:
        """Raise UserError if the model behind the address has changed since it was first asked."""
        self._answers.check()

    def _classes(self) -> dict[str, int]:
        """Return the place of each class among the outputs."""
        if self._places is None:
            names = self._named
            if not names:
                grey = np.full((1, 32, 32, 3), 128, np.uint8)
                names = sorted(self._answers.scores_of(grey)[0], key=_sort_key)
            self._places = {name: place for place, name in enumerate(names)}
        return self._places


@dataclass(frozen=True)
class AskingOptions:
    """How an endpoint is asked. Its answers depend on `images` at most, by rounding.

    Attributes:
        requests: how many to send at once.
        images: how many in each request; if more than one, `inputs` is a list, and the answer a list of lists.
        timeout: seconds to wait for an answer.
        rate: most requests in a second, of all processes of a launch; None: as fast as it answers.
        most: images to ask about, of all processes of a launch; None: no limit.
    """

    requests: int
    images: int
    timeout: float
    rate: float | None
    most: int | None


class Answers:
    """The endpoint's scores for images, stored on this machine for some hours: it is not asked twice about an image.

    Three images are an exception, of those that are stored the oldest, the newest and the least certain: at the first
    question, every ten minutes and at the end they are asked about again. If an answer differs, the model behind the
    address was changed, and no answer of the old model is used any more.
    """

    def __init__(self, url: str, top_k: int, kept_hours: float, options: AskingOptions) -> None:
        self.url = url
        self._top_k = top_k
        self._options = options
        self._turns = _Turns(url, options, keeps=kept_hours > 0)
        self._sessions: list[requests.Session] = []
        self._answered = False
        self._least_certain: float | None = None  # the highest score of the image that this process is least sure of
        self._has_new = False  # whether there are answers since the last check of the model
        self._checked: float | None = None  # when stored answers were last compared with new ones
        self._since = time.time() - 3600 * kept_hours
        self._file = None
        if kept_hours:
            name = hashlib.sha256(f"{url} {top_k} {_KEPT_FORMAT}".encode()).hexdigest()[:24]
            self._file = cache_folder() / "endpoints" / f"{name}.sqlite"
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._open(self._file) as database:
                database.execute("create table if not exists answers (image text primary key, at real, scores text)")
                database.execute("create table if not exists probes (role text primary key, image text, file blob)")
                database.execute("delete from answers where at < ?", (self._since,))
                database.execute("delete from probes where image not in (select image from answers)")

    def scores_of(self, pixels: np.ndarray) -> list[Scores]:
        """Return the score of each class for images, uint8 [B, H, W, 3]. Raises UserError if the endpoint fails."""
        if self._checked is None or time.monotonic() - self._checked > _CHECK_EVERY:
            self.check()
        files = [_png(image) for image in pixels]
        digests = [hashlib.sha256(file).hexdigest() for file in files]
        unique = dict(zip(digests, files, strict=True))
        answers = self._stored(unique)
        missing = [digest for digest in unique if digest not in answers]
        if missing:
            answers |= self._ask_in_parts(missing, unique)
        return [answers[digest] for digest in digests]

    def _ask_in_parts(self, missing: Sequence[str], files: Mapping[str, bytes]) -> dict[str, Scores]:
        """Return, and store, the scores of images, asked about in many requests at once.

        Args:
            missing: the digests of the images.
            files: digest → PNG.

        Raises:
            UserError: a request failed; answers that came meanwhile are stored.
        """
        size = self._options.images
        answers: dict[str, Scores] = {}
        parts: dict[Future[list[Scores]], Sequence[str]] = {}
        stop = Event()
        with ThreadPoolExecutor(self._options.requests, thread_name_prefix="endpoint") as pool:
            for start in range(0, len(missing), size):
                part = missing[start : start + size]
                request = pool.submit(self._ask, [files[digest] for digest in part], stop)
                parts[request] = part
            try:
                for request in as_completed(parts):
                    new = dict(zip(parts[request], request.result(), strict=True))
                    self._store(new, files)
                    answers |= new
            except BaseException:
                stop.set()
                pool.shutdown(wait=True, cancel_futures=True)
                for request, part in parts.items():  # what was answered meanwhile
                    if not request.cancelled() and request.exception() is None:
                        self._store(dict(zip(part, request.result(), strict=True)), files)
                raise
        return answers

    def check(self) -> None:
        """Compare a few stored answers with new ones; delete all if they differ.

        Raises UserError if they differ and some were returned in this run already.
        """
        is_first = self._checked is None
        self._checked = time.monotonic()
        if self._file is None or not (is_first or self._has_new):
            return
        self._has_new = False
        now = time.time()
        probes_query = "select file, scores from probes join answers using (image) where at >= ? group by image"
        with self._open(self._file) as database:
            count, oldest = database.execute(
                "select count(*), min(at) from answers where at >= ?", (self._since,)
            ).fetchone()
            probes = database.execute(probes_query, (self._since,)).fetchall()
        if not probes:
            return
        differing = 0
        for file, scores in probes:
            [new_scores] = self._ask([file], Event(), 0)
            if not _is_same(json.loads(scores), new_scores):
                differing += 1
        age = _age(now - oldest)
        if not differing:
            if is_first:
                _log.warning(
                    "%s: %s answers are kept and used again, the oldest is %s old; %d of them were asked for again, "
                    "and are the same",
                    *(self.url, f"{count:,}", age, len(probes)),
                )
            return
        with self._open(self._file) as database:
            # Answers that another process got from the new model meanwhile are later, and stay.
            deleted = database.execute("delete from answers where at <= ?", (now,)).rowcount
            database.execute("delete from probes where image not in (select image from answers)")
        if not is_first:
            raise UserError(
                f"{self.url}: the model behind it was changed while it was asked ({differing} of {len(probes)} images "
                "have other scores than before); its answers were deleted, run the same command again"
            )
        if deleted:  # by this process; an error, since warnings of all processes but the first are not shown
            _log.error(
                "%s: %s kept answers, the oldest %s old, were deleted: the model behind it has changed (%d of %d "
                "images have other scores now); all images are asked about again",
                *(self.url, f"{deleted:,}", age, differing, len(probes)),
            )

    @contextmanager
    def _open(self, file: Path) -> Iterator[sqlite3.Connection]:
        """Open the database of stored answers for one transaction. Raises UserError if it is broken."""
        try:
            with closing(sqlite3.connect(file, timeout=60)) as database, database:
                database.execute("pragma synchronous = normal")  # there are many answers
                yield database
        except (sqlite3.Error, ValueError) as error:
            raise UserError(f"{file}: broken or not writable ({one_line(error, 80)}); delete it") from None

    def _stored(self, digests: Iterable[str]) -> dict[str, Scores]:
        """Return the stored answers of images, by their digests."""
        if self._file is None:
            return {}
        answers = {}
        with self._open(self._file) as database:
            for digest in digests:
                row = database.execute(
                    "select scores from answers where image = ? and at >= ?", (digest, self._since)
                ).fetchone()
                if row is not None:
                    answers[digest] = json.loads(row[0])
        return answers

    def _store(self, answers: Mapping[str, Scores], files: Mapping[str, bytes]) -> None:
        """Store answers to images, by their digests, and those of `files` that `check` will ask about again."""
        if self._file is None:
            return
        self._has_new = True
        rows = [(digest, time.time(), json.dumps(scores)) for digest, scores in answers.items()]
        certainties = {digest: max(scores.values()) for digest, scores in answers.items()}
        digest = min(certainties, key=lambda digest: certainties[digest])
        certainty = certainties[digest]
        with self._open(self._file) as database:
            database.executemany("insert or replace into answers values (?, ?, ?)", rows)
            probe = (digest, files[digest])
            database.execute("insert or ignore into probes values ('oldest', ?, ?)", probe)
            database.execute("insert or replace into probes values ('newest', ?, ?)", probe)
            if self._least_certain is None or certainty < self._least_certain:
                self._least_certain = certainty
                database.execute("insert or replace into probes values ('least certain', ?, ?)", probe)

    def _ask(self, images: Sequence[bytes], stop: Event, counted: int | None = None) -> list[Scores]:
        """Return the scores of the images of one request, which is repeated if it fails.

        Args:
            images: PNGs.
            stop: set when another request has failed for good.
            counted: how many images count for `max_queries`; None: all.

        Raises:
            UserError: the endpoint does not answer as it should.
        """
        address, headers, masked = self._destination()
        body = self._body_of(images)
        for attempt in range(1, _ATTEMPTS + 1):
            _wait(stop, self._turns.seconds_until(len(images) if counted is None else counted))
            pause = min(_LONGEST_PAUSE, 0.5 * 2 ** (attempt - 1) * random.uniform(0.5, 1))
            parsed = None
            try:
                with self._post(address, body, headers) as answer:
                    self._answered = True
                    reason = masked(f"answered {answer.status_code} {answer.reason}")
                    is_answer = answer.status_code < _REDIRECTED
                    if not is_answer and answer.status_code not in _TRANSIENT:
                        raise UserError(f"{self.url}: {reason}; check the address, and {TOKEN} or {QUERY}")
                    pause = _retry_after(answer, pause)
                    if is_answer:
                        parsed = _parsed(_body(answer, self._options.timeout, self.url))
            except requests.ConnectionError as error:
                reason = f"can't be reached: {masked(one_line(error, _MOST_TO_MASK))[:_MOST_SHOWN]}"
                if not self._answered and attempt == _FIRST_ATTEMPTS:
                    raise UserError(f"{self.url}: {reason}; check the address, or start it") from None
            except (OSError, ValueError, HTTPError, zlib.error) as error:  # cut off, or no JSON
                reason = masked(one_line(error, _MOST_TO_MASK))[:_MOST_SHOWN]
            else:
                if parsed is not None and not _is_error(parsed):
                    return _scores_of_all(parsed, self.url, len(images), self._options.images > 1, masked)
                if parsed is not None:
                    reason = f"answered {masked.shown(parsed)}"
            if attempt < _ATTEMPTS:
                _wait(stop, pause)
        advice = "run the same command again later"
        if self._file is not None:
            advice += ", its answers so far are kept"
        raise UserError(f"{self.url}: {reason}, {_ATTEMPTS} times; {advice}")

    def _destination(self) -> tuple[str, dict[str, str], "_Mask"]:
        """Return the address and the headers of a request, and the mask of the secrets in them."""
        token, query = _token(self.url), _query(self.url)
        address = self.url
        if query:
            address += "&" if urlsplit(self.url).query else "?"
            address += query
        headers = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "gzip"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        return address, headers, _Mask(token, query)

    def _body_of(self, images: Sequence[bytes]) -> bytes:
        """Return the body of a request about images."""
        inputs = [base64.b64encode(image).decode() for image in images]
        question = {"inputs": inputs if self._options.images > 1 else inputs[0], "parameters": {"top_k": self._top_k}}
        return json.dumps(question).encode()

    @contextmanager
    def _post(self, address: str, body: bytes, headers: dict[str, str]) -> Iterator[requests.Response]:
        """Send a request, over a connection that an earlier one has left open if there is one; yield the response."""
        session = self._sessions.pop() if self._sessions else requests.Session()
        session.auth = lambda request: request  # otherwise a password of .netrc would replace the token
        session.trust_env = urlsplit(self.url).hostname not in _LOCAL  # no proxy for this machine's own addresses
        # Redirects are errors: the token and the image are for this address alone.
        with session.post(
            address, body, headers=headers, timeout=self._options.timeout, allow_redirects=False, stream=True
        ) as answer:
            yield answer
        self._sessions.append(session)


class _Turns:
    """Says when the next request may be sent, and counts the images of requests."""

    def __init__(self, url: str, options: AskingOptions, keeps: bool) -> None:
        processes = int(os.environ.get("WORLD_SIZE", "1"))
        rank = int(os.environ.get("RANK", "0"))
        self._url = url
        self._most = options.most
        self._keeps = keeps
        self._share: int | None = None  # of `most`, for this process
        if options.most is not None:
            self._share = (options.most + processes - 1 - rank) // processes
            if self._share < options.images:
                raise UserError(
                    f"classifier.max_queries: {options.most} is not enough for a request of each process; set "
                    f"{options.images * processes} or more"
                )
        self._seconds = 0.0 if options.rate is None else processes / options.rate
        self._next = 0.0
        self._asked = 0
        self._lock = Lock()

    def seconds_until(self, images: int) -> float:
        """Return how long to wait before asking about so many images. Raises UserError if they are too many."""
        with self._lock:
            if self._share is not None and self._asked + images > self._share:
                raise UserError(
                    f"{self._url}: {self._asked:,} images asked about, and classifier.max_queries is {self._most:,}; "
                    + ("what was answered is kept: " if self._keeps else "")
                    + "run the same command again to go on, with as many again"
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


def _age(seconds: float) -> str:
    """Return a duration in words: `12 s`, `3 min`, `2 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"


def _wait(stop: Event, seconds: float) -> None:
    """Wait; raise UserError at once if another request fails meanwhile."""
    if stop.wait(max(0.0, seconds)):
        raise UserError("stopped")


def _retry_after(answer: requests.Response, default: float) -> float:
    """Return the seconds to wait that an answer asks for; `default` if it asks for none."""
    seconds = answer.headers.get("Retry-After", "")
    if not seconds.isdecimal():
        return default
    return min(_LONGEST_PAUSE, float(seconds))


def _is_error(parsed: Any) -> bool:
    return isinstance(parsed, dict) and "error" in parsed


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _body(answer: requests.Response, seconds: float, url: str) -> str:
    """Return the text of an answer.

    It is unpacked piece by piece, since some kilobytes can stand for gigabytes.

    Args:
        answer: a response whose body was not read yet.
        seconds: for all of it: the time-out of a connection is for each piece, and they may drip in for ever.
        url: the address, for errors.

    Raises:
        UserError: it is too large, or in an encoding that was not asked for.
        TimeoutError: it is not complete in time.
    """
    encoding = answer.headers.get("Content-Encoding", "identity").lower()
    if encoding not in ("identity", "gzip"):
        raise UserError(f"{url}: answers in the encoding {encoding[:20]!r}, which was not asked for; turn it off there")
    unpacking = zlib.decompressobj(zlib.MAX_WBITS | _GZIP)
    end = time.monotonic() + seconds
    content = bytearray()
    while received := answer.raw.read1(_PIECE, decode_content=False):
        while received:
            if encoding == "identity":
                piece, received = received, b""
            else:
                piece = unpacking.decompress(received, _PIECE)
                received = unpacking.unconsumed_tail
            content += piece
            if len(content) > _LARGEST_ANSWER:
                raise UserError(
                    f"{url}: an answer has more than {_LARGEST_ANSWER >> 20} MB; set a smaller classifier.top_k or "
                    "classifier.batch, if these are scores"
                )
        if time.monotonic() > end:
            raise TimeoutError(f"its answer is not complete after {seconds:g} s")
    return content.decode()


def _parsed(text: str) -> Any:
    """Return the JSON of a text; the text itself if it is nested too deeply to be read."""
    try:
        return json.loads(text)
    except RecursionError:
        return text


def _token(url: str) -> str | None:
    """Return the token to send: the environment's token for endpoints, or for the Hub itself, and only for it, its own.

    Raises UserError if it would be sent unencrypted, and for a token that no header can hold.
    """
    address = urlsplit(url)
    host = address.hostname or ""
    is_encrypted = address.scheme == "https"
    endpoint_token = os.environ.get(TOKEN, "").strip()
    if endpoint_token and not is_encrypted and host not in _LOCAL:
        raise UserError(f"{url}: {TOKEN} would be sent there unencrypted; use https, or unset it")
    token: str | None = endpoint_token
    if not token and is_encrypted and (host == _HUB or host.endswith(f".{_HUB}")):
        token = get_token()
    if token and not (token.isascii() and token.isprintable()):
        name = TOKEN if endpoint_token else "the Hub's token"
        raise UserError(f"{name} contains a character that no token has; copy it again")
    return token or None


def _query(url: str) -> str | None:
    """Return the environment's addition to the address, as `name=value`: keys, which are sent but not stored.

    Raises UserError if it would be sent unencrypted, and for characters that no address can hold.
    """
    query = os.environ.get(QUERY, "").strip().lstrip("?&")
    address = urlsplit(url)
    if query and address.scheme != "https" and address.hostname not in _LOCAL:
        raise UserError(f"{url}: {QUERY} would be sent there unencrypted; use https, or unset it")
    if query and not re.fullmatch(r"[!$-;=?-~]+", query):
        raise UserError(f"{QUERY} contains a character that no address has; write it as %XX")
    return query or None


class _Mask:
    """Replaces a token and the keys of a query by an ellipsis, in any spelling: as they are, quoted, or in base64."""

    def __init__(self, token: str | None, query: str | None) -> None:
        secrets = [token or "", query or ""]
        for parameter in (query or "").split("&"):
            secrets.append(parameter.partition("=")[2] or parameter)
        spellings: set[str] = set()
        for secret in secrets:
            spellings |= _spellings(secret)
        longest_first = sorted(spellings, key=len, reverse=True)
        self._pattern: re.Pattern[str] | None = None
        if spellings:
            self._pattern = re.compile("|".join(map(re.escape, longest_first)))

    def __call__(self, text: str) -> str:
        if self._pattern is None:
            return text
        return self._pattern.sub("…", text)

    def shown(self, body: Any) -> str:
        """Return the beginning of an answer, for a message."""
        try:
            return self(str(body))[:80]
        except RecursionError:  # lists in lists in lists
            return "lists nested too deeply"


@lru_cache(16)
def _spellings(secret: str) -> frozenset[str]:
    """Return a secret as it is, as addresses quote it, and as it appears in the base64 of any text that contains it."""
    if len(secret) < _SHORTEST_SECRET:
        return frozenset()
    plain = {secret, unquote_plus(secret), quote(secret), quote(secret, safe=""), quote_plus(secret)}
    spellings = set(plain)
    for text in plain:
        content = text.encode()
        # Three bytes are four characters; `offset` is the place of the secret's first byte among its three.
        for offset, first in ((0, 0), (1, 2), (2, 3)):
            encoded = base64.b64encode(bytes(offset) + content).decode()
            last = (offset + len(content)) * 8 // 6
            inside = encoded[first:last]  # the characters that depend on no other byte
            spellings |= {inside, inside.replace("+", "-").replace("/", "_")}
    return frozenset(spellings)


def _scores_of_all(body: Any, url: str, count: int, is_list: bool, masked: _Mask) -> list[Scores]:
    """Return the scores of the images of a request.

    Args:
        body: the parsed answer.
        url: the address, for errors.
        count: the number of images.
        is_list: whether images were sent as a list; one sent alone is answered alone, or as a list of one.
        masked: hides secrets in errors.

    Raises:
        UserError: it is not an answer to so many images.
    """
    is_list_of_one = isinstance(body, list) and len(body) == 1 and isinstance(body[0], list)
    if not is_list and not is_list_of_one:
        body = [body]
    if not isinstance(body, list) or len(body) != count:
        raise UserError(f"{url}: answered {masked.shown(body)} to {count} images; set classifier.batch=1")
    return [_scores(answer, url, masked) for answer in body]


def _scores(body: Any, url: str, masked: _Mask) -> Scores:
    """Return the scores of an answer about one image.

    Raises UserError for any other answer, which would be the same if it were asked again.
    """
    scores: Scores = {}
    is_valid = isinstance(body, list) and bool(body)
    for entry in body if is_valid else ():
        if not isinstance(entry, dict) or "label" not in entry:
            is_valid = False
            continue
        label, score = masked(str(entry["label"])), entry.get("score")
        if label in scores:
            raise UserError(f"{url}: calls several classes {label!r}; give each its own name in the model's id2label")
        # Compared before it is a float, which a number of 400 digits can't be.
        if isinstance(score, int | float) and 0 <= score <= 1:
            scores[label] = float(score)
        else:
            is_valid = False
    if not is_valid:
        raise UserError(
            f"{url}: answered {masked.shown(body)}, not a list of labels with scores from 0 to 1; it must answer as "
            "the Hub's image-classification endpoints do"
        )
    return scores


def _sort_key(name: str) -> tuple[int, str]:
    """Return a key that sorts classes without names by their numbers, others by the alphabet."""
    match = _NUMBERED.fullmatch(name)
    if match is None:
        return -1, name
    return int(match[1]), ""
