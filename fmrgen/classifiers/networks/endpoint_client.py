"""Asking an endpoint about images: many at once, again where it fails, and no answer twice."""

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
from concurrent.futures import ThreadPoolExecutor, as_completed
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

TOKEN = "FMRGEN_ENDPOINT_TOKEN"  # variables of the environment
QUERY = "FMRGEN_ENDPOINT_QUERY"

_ATTEMPTS, _FIRST_ATTEMPTS = 8, 3  # the second at an address where nobody has answered yet
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
_REDIRECTED = 300
_LEAST = 1e-38  # what is taken for the probability of a class without a score: its logarithm is a number
_LOCAL = ("localhost", "127.0.0.1", "::1")
_LONGEST_PAUSE = 60.0  # seconds
_LARGEST_ANSWER = 16 << 20  # bytes, unpacked: a thousand classes of a hundred images
_PIECE = 1 << 16  # bytes of an answer that are read, and unpacked, at once
_GZIP = 16  # added to the window's bits, makes zlib read gzip
_HUB = "huggingface.co"  # may see the Hub's token; where anyone's code runs (Spaces, endpoints) is elsewhere
_SHORTEST_SECRET = 4  # characters: shorter values of a query would be masked inside words
_NUMBERED = re.compile(r"LABEL_(\d+)")  # how transformers calls classes without names

_KEPT_FORMAT = 2  # of the files of kept answers: since then they hold images to ask about again
_SAME_WITHIN = 1e-3, 0.05  # of a score, and of it as a share: servers round, and otherwise in another batch
_CHECK_EVERY = 600.0  # seconds after which the model is looked at again
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
        self._answers, self._channels = answers, channels
        self._named = None if class_names is None else list(class_names)
        self._places: dict[str, int] | None = None

    @property
    def class_names(self) -> list[str] | None:
        """What the endpoint calls its classes; None where it only counts them."""
        places = self._classes()
        return None if all(map(_NUMBERED.fullmatch, places)) else list(places)

    def forward(self, images: Tensor) -> Tensor:
        places = self._classes()
        shown = without_colours(images) if self._channels == "gray" else images
        pixels = (shown.detach() * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        found = self._answers.of(pixels)
        logits = torch.full((len(found), len(places)), math.log(_LEAST))
        for row, scores in enumerate(found):
            for label, score in scores.items():
                if label not in places:
                    raise UserError(f"{self._answers.url}: answers with a class {label!r} that is not in class_names")
                logits[row, places[label]] = math.log(max(score, _LEAST))
        return logits.to(images.device)

    def check_same_answers(self) -> None:
        """Raises UserError where the model behind the address was changed since it was first asked."""
        self._answers.check()

    def _classes(self) -> dict[str, int]:
        """The place of each class among the outputs."""
        if self._places is None:
            names = self._named or sorted(self._answers.of(np.full((1, 32, 32, 3), 128, np.uint8))[0], key=_in_order)
            self._places = {name: place for place, name in enumerate(names)}
        return self._places


@dataclass(frozen=True)
class AskingOptions:
    """How an endpoint is asked; what it says depends on `images` at most, by rounding.

    Attributes:
        requests: sent at once.
        images: in each request; of more than one, `inputs` is a list, and the answer one of lists.
        timeout: seconds to wait for an answer.
        rate: most requests in a second, of all processes of a launch; None: as fast as it answers.
        most: images to ask about, likewise; None: as many as it takes.
    """

    requests: int
    images: int
    timeout: float
    rate: float | None
    most: int | None


class Answers:
    """What an endpoint says of images, kept on this machine for some hours: none is asked about twice.

    But for three images, the oldest, the newest and the least certain of those that are kept: at the first question,
    every ten minutes and at the end they are asked about again. Where an answer is another one now, the model behind
    the address was changed, and no answer of the old one is used any more.
    """

    def __init__(self, url: str, top_k: int, kept_hours: float, options: AskingOptions) -> None:
        self.url, self._top_k, self._options = url, top_k, options
        self._turns = _Turns(url, options, keeps=kept_hours > 0)
        self._sessions: list[requests.Session] = []
        self._answered = False
        self._least_certain: float | None = None  # the highest score of the image that this process is least sure of
        self._has_new = False  # whether there are answers since the last look at the model
        self._checked: float | None = None  # when kept answers were last compared with new ones
        self._since = time.time() - 3600 * kept_hours
        self._file = None
        if kept_hours:
            name = hashlib.sha256(f"{url} {top_k} {_KEPT_FORMAT}".encode()).hexdigest()[:24]
            self._file = cache_folder() / "endpoints" / f"{name}.sqlite"
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._open(self._file) as kept:
                kept.execute("create table if not exists answers (image text primary key, at real, scores text)")
                kept.execute("create table if not exists probes (role text primary key, image text, file blob)")
                kept.execute("delete from answers where at < ?", (self._since,))
                kept.execute("delete from probes where image not in (select image from answers)")

    def of(self, pixels: np.ndarray) -> list[Scores]:
        """The score of each class for images, uint8 [B, H, W, 3]. Raises UserError where the endpoint gives none."""
        if self._checked is None or time.monotonic() - self._checked > _CHECK_EVERY:
            self.check()
        files = [_png(image) for image in pixels]
        digests = [hashlib.sha256(file).hexdigest() for file in files]
        unique = dict(zip(digests, files, strict=True))
        found = self._known(unique)
        missing = [digest for digest in unique if digest not in found]
        size = self._options.images
        parts = [missing[start : start + size] for start in range(0, len(missing), size)]
        if parts:
            stop = Event()
            with ThreadPoolExecutor(self._options.requests, thread_name_prefix="endpoint") as pool:
                asked = {pool.submit(self._ask, [unique[digest] for digest in part], stop): part for part in parts}
                try:
                    for answer in as_completed(asked):
                        new = dict(zip(asked[answer], answer.result(), strict=True))
                        self._keep(new, unique)
                        found |= new
                except BaseException:
                    stop.set()
                    pool.shutdown(wait=True, cancel_futures=True)
                    for answer, part in asked.items():  # what was answered meanwhile
                        if not answer.cancelled() and answer.exception() is None:
                            self._keep(dict(zip(part, answer.result(), strict=True)), unique)
                    raise
        return [found[digest] for digest in digests]

    def check(self) -> None:
        """Compares a few kept answers with new ones; deletes all where they differ.

        Raises UserError where they differ and some were given out in this run already.
        """
        is_first, self._checked = self._checked is None, time.monotonic()
        if self._file is None or not (is_first or self._has_new):
            return
        self._has_new = False
        now = time.time()
        of_now = "select file, scores from probes join answers using (image) where at >= ? group by image"
        with self._open(self._file) as kept:
            count, oldest = kept.execute(
                "select count(*), min(at) from answers where at >= ?", (self._since,)
            ).fetchone()
            probes = kept.execute(of_now, (self._since,)).fetchall()
        if not probes:
            return
        differ = sum(not _is_same(json.loads(scores), self._ask([file], Event(), 0)[0]) for file, scores in probes)
        age = _age(now - oldest)
        if not differ:
            if is_first:
                _log.warning(
                    "%s: %s answers are kept and used again, the oldest is %s old; %d of them were asked for again, "
                    "and are the same",
                    *(self.url, f"{count:,}", age, len(probes)),
                )
            return
        with self._open(self._file) as kept:
            # Not those of another process that has asked the new model meanwhile.
            deleted = kept.execute("delete from answers where at <= ?", (now,)).rowcount
            kept.execute("delete from probes where image not in (select image from answers)")
        if not is_first:
            raise UserError(
                f"{self.url}: the model behind it was changed while it was asked ({differ} of {len(probes)} images "
                "have other scores than before); its answers were deleted, run the same command again"
            )
        if deleted:  # by this process of a launch, whichever it is; warnings are those of the first alone
            _log.error(
                "%s: %s kept answers, the oldest %s old, were deleted: the model behind it has changed (%d of %d "
                "images have other scores now); all images are asked about again",
                *(self.url, f"{deleted:,}", age, differ, len(probes)),
            )

    @contextmanager
    def _open(self, file: Path) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(file, timeout=60)) as kept, kept:
                kept.execute("pragma synchronous = normal")  # there are many answers
                yield kept
        except (sqlite3.Error, ValueError) as error:
            raise UserError(f"{file}: broken or not writable ({one_line(error, 80)}); delete it") from None

    def _known(self, digests: Iterable[str]) -> dict[str, Scores]:
        """Of images what is kept."""
        if self._file is None:
            return {}
        question = "select scores from answers where image = ? and at >= ?"
        with self._open(self._file) as kept:
            rows = {digest: kept.execute(question, (digest, self._since)).fetchone() for digest in digests}
            return {digest: json.loads(row[0]) for digest, row in rows.items() if row is not None}

    def _keep(self, scores: Mapping[str, Scores], files: Mapping[str, bytes]) -> None:
        """Keeps answers to images, by their digests, and of `files` those that `check` will ask about again."""
        if self._file is None:
            return
        self._has_new = True
        rows = [(digest, time.time(), json.dumps(of)) for digest, of in scores.items()]
        digest, least_certain = min(scores.items(), key=lambda answer: max(answer[1].values()))
        certainty = max(least_certain.values())
        with self._open(self._file) as kept:
            kept.executemany("insert or replace into answers values (?, ?, ?)", rows)
            probe = (digest, files[digest])
            kept.execute("insert or ignore into probes values ('oldest', ?, ?)", probe)
            kept.execute("insert or replace into probes values ('newest', ?, ?)", probe)
            if self._least_certain is None or certainty < self._least_certain:
                self._least_certain = certainty
                kept.execute("insert or replace into probes values ('least certain', ?, ?)", probe)

    def _ask(self, images: Sequence[bytes], stop: Event, counted: int | None = None) -> list[Scores]:
        """The answers to a request. So many images count for `max_queries`, by default all."""
        inputs = [base64.b64encode(image).decode() for image in images]
        question = {"inputs": inputs if self._options.images > 1 else inputs[0], "parameters": {"top_k": self._top_k}}
        token, query = _token(self.url), _query(self.url)
        headers = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "gzip"}
        headers |= {"Authorization": f"Bearer {token}"} if token else {}
        address = f"{self.url}{'&' if urlsplit(self.url).query else '?'}{query}" if query else self.url
        masked = _Mask(token, query)
        body = json.dumps(question).encode()
        for attempt in range(1, _ATTEMPTS + 1):
            _wait(stop, self._turns.seconds_until(len(images) if counted is None else counted))
            pause = min(_LONGEST_PAUSE, 0.5 * 2 ** (attempt - 1) * random.uniform(0.5, 1))
            try:
                with self._post(address, body, headers) as answer:
                    self._answered = True
                    said = masked(f"answered {answer.status_code} {answer.reason}")
                    is_answer = answer.status_code < _REDIRECTED
                    if not is_answer and answer.status_code not in _TRANSIENT:
                        raise UserError(f"{self.url}: {said}; check the address, and {TOKEN} or {QUERY}")
                    asked = answer.headers.get("Retry-After", "")
                    pause = min(_LONGEST_PAUSE, float(asked)) if asked.isdecimal() else pause
                    parsed = _parsed(_body(answer, self._options.timeout, self.url)) if is_answer else None
            except requests.ConnectionError as error:  # masked before it is cut: half a key is too much
                said = f"can't be reached: {masked(one_line(error, 10_000))[:120]}"
                if not self._answered and attempt == _FIRST_ATTEMPTS:
                    raise UserError(f"{self.url}: {said}; check the address, or start it") from None
            except (OSError, ValueError, HTTPError, zlib.error) as error:  # cut off, or no JSON
                said = masked(one_line(error, 10_000))[:120]
            else:
                if parsed is not None and (not isinstance(parsed, dict) or "error" not in parsed):
                    return _scores_of_all(parsed, self.url, len(images), self._options.images > 1, masked)
                said = said if parsed is None else f"answered {masked.shown(parsed)}"
            if attempt < _ATTEMPTS:
                _wait(stop, pause)
        kept = "" if self._file is None else ", its answers so far are kept"
        raise UserError(f"{self.url}: {said}, {_ATTEMPTS} times; run the same command again later{kept}")

    @contextmanager
    def _post(self, address: str, body: bytes, headers: dict[str, str]) -> Iterator[requests.Response]:
        """The answer, over a connection that an earlier one has left open, if there is one."""
        session = self._sessions.pop() if self._sessions else requests.Session()
        session.auth = lambda request: request  # else a password of .netrc would stand for the token
        session.trust_env = urlsplit(self.url).hostname not in _LOCAL  # no proxy sees what goes to this machine
        # Redirects are errors: the token and the image are for this address alone.
        with session.post(
            address, body, headers=headers, timeout=self._options.timeout, allow_redirects=False, stream=True
        ) as answer:
            yield answer
        self._sessions.append(session)


class _Turns:
    """When the next request may be sent, and whether one may."""

    def __init__(self, url: str, options: AskingOptions, keeps: bool) -> None:
        processes, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
        self._url, self._most, self._keeps = url, options.most, keeps
        self._share = None if options.most is None else (options.most + processes - 1 - rank) // processes
        if self._share is not None and self._share < options.images:
            raise UserError(
                f"classifier.max_queries: {options.most} is not enough for a request of each process; set "
                f"{options.images * processes} or more"
            )
        self._seconds = 0.0 if options.rate is None else processes / options.rate
        self._next, self._asked, self._lock = 0.0, 0, Lock()

    def seconds_until(self, images: int) -> float:
        """How long to wait before so many images may be asked about. Raises UserError where they would be too many."""
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
    """Whether two answers are those of one model, but for rounding; what is not named has next to no score."""
    absolute, relative = _SAME_WITHIN
    for label in before.keys() | now.keys():
        old, new = before.get(label, 0.0), now.get(label, 0.0)
        if abs(old - new) > absolute + relative * max(old, new):
            return False
    return True


def _age(seconds: float) -> str:
    """`12 s`, `3 min`, `2 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.0f} h"


def _wait(stop: Event, seconds: float) -> None:
    """Waits, but raises UserError at once where another request has failed."""
    if stop.wait(max(0.0, seconds)):
        raise UserError("stopped")


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _body(answer: requests.Response, seconds: float, url: str) -> str:
    """What is answered, where all of it comes in time: a time-out is for a silence, and an answer may drip for ever.

    It is unpacked piece by piece, since some kilobytes can stand for gigabytes. Raises UserError where it is too large.
    """
    encoding = answer.headers.get("Content-Encoding", "identity").lower()
    if encoding not in ("identity", "gzip"):
        raise UserError(f"{url}: answers in the encoding {encoding[:20]!r}, which was not asked for; turn it off there")
    unpacking = zlib.decompressobj(zlib.MAX_WBITS | _GZIP) if encoding == "gzip" else None
    end, content = time.monotonic() + seconds, bytearray()
    while received := answer.raw.read1(_PIECE, decode_content=False):
        while received:
            if unpacking is None:
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
    """The JSON of a text, or the text itself where it is nested more deeply than anybody can read."""
    try:
        return json.loads(text)
    except RecursionError:
        return text


def _token(url: str) -> str | None:
    """The token for the endpoint: the one in the environment for it, and the Hub's for the Hub itself alone.

    Raises UserError where everyone on the way would see it, and for a token that no header can hold.
    """
    address = urlsplit(url)
    host, is_safe = address.hostname or "", address.scheme == "https"
    own = os.environ.get(TOKEN, "").strip()
    if own and not is_safe and host not in _LOCAL:
        raise UserError(f"{url}: {TOKEN} would be sent there unencrypted; use https, or unset it")
    token = own or (get_token() if is_safe and (host == _HUB or host.endswith(f".{_HUB}")) else None)
    if token and not (token.isascii() and token.isprintable()):
        name = TOKEN if own else "the Hub's token"
        raise UserError(f"{name} contains a character that no token has; copy it again")
    return token or None


def _query(url: str) -> str | None:
    """What the environment adds to the address, as `name=value`: keys, which are sent and stored nowhere.

    Raises UserError where everyone on the way would see it, and for what no address can hold.
    """
    query = os.environ.get(QUERY, "").strip().lstrip("?&")
    address = urlsplit(url)
    if query and address.scheme != "https" and address.hostname not in _LOCAL:
        raise UserError(f"{url}: {QUERY} would be sent there unencrypted; use https, or unset it")
    if query and not re.fullmatch(r"[!$-;=?-~]+", query):
        raise UserError(f"{QUERY} contains a character that no address has; write it as %XX")
    return query or None


class _Mask:
    """Puts an ellipsis for what opens an endpoint, however a text spells it: as it is, quoted, or in base64."""

    def __init__(self, token: str | None, query: str | None) -> None:
        parameters = [] if query is None else query.split("&")
        values = [parameter.partition("=")[2] or parameter for parameter in parameters]
        secrets = [token or "", query or "", *values]
        spellings = {spelling for secret in secrets for spelling in _spellings(secret)}
        longest_first = sorted(spellings, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if spellings else None

    def __call__(self, text: str) -> str:
        return text if self._pattern is None else self._pattern.sub("…", text)

    def shown(self, body: Any) -> str:
        """The beginning of an answer, for a message."""
        try:
            return self(str(body))[:80]
        except RecursionError:  # lists in lists in lists
            return "lists nested too deeply"


@lru_cache(16)
def _spellings(secret: str) -> frozenset[str]:
    """A secret as it is, as addresses quote it, and as it stands in the base64 of whatever text it is part of."""
    if len(secret) < _SHORTEST_SECRET:
        return frozenset()
    plain = {secret, unquote_plus(secret), quote(secret), quote(secret, safe=""), quote_plus(secret)}
    spellings = set(plain)
    for text in plain:
        content = text.encode()
        for offset in range(3):  # of its first byte in a group of three, which are four characters
            encoded = base64.b64encode(bytes(offset) + content).decode()
            first = (0, 2, 3)[offset]  # the first character and the last that no other byte has a part in
            last = (offset + len(content)) * 8 // 6
            inside = encoded[first:last]
            spellings |= {inside, inside.replace("+", "-").replace("/", "_")}
    return frozenset(spellings)


def _scores_of_all(body: Any, url: str, count: int, is_list: bool, masked: _Mask) -> list[Scores]:
    """The scores of the images of a request; one that was sent alone is answered alone, or as a list of one."""
    if not is_list:
        body = [body[0] if isinstance(body, list) and len(body) == 1 and isinstance(body[0], list) else body]
    if not isinstance(body, list) or len(body) != count:
        raise UserError(f"{url}: answered {masked.shown(body)} to {count} images; set classifier.batch=1")
    return [_scores(of_image, url, masked) for of_image in body]


def _scores(body: Any, url: str, masked: _Mask) -> Scores:
    """The scores of an answer. Raises UserError for another one, which asking again does not change."""
    scores: Scores = {}
    is_valid = isinstance(body, list) and bool(body)
    for entry in body if isinstance(body, list) else ():
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


def _in_order(name: str) -> tuple[int, str]:
    """Classes without names by their numbers, others by the alphabet."""
    numbered = _NUMBERED.fullmatch(name)
    return (int(numbered[1]), "") if numbered else (-1, name)
