"""Asking an endpoint about images: many at once, again where it fails, and no answer twice."""

import base64
import hashlib
import io
import json
import math
import os
import random
import re
import sqlite3
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.client import HTTPException, HTTPResponse
from typing import Any, Literal
from urllib.parse import urlsplit

import numpy as np
import torch
from huggingface_hub import get_token
from PIL import Image
from torch import Tensor, nn

from fmrgen.classifiers.base import without_colours
from fmrgen.errors import UserError, one_line
from fmrgen.files import cache_folder

TOKEN = "FMRGEN_ENDPOINT_TOKEN"  # variable of the environment

_ATTEMPTS, _FIRST_ATTEMPTS = 8, 3  # the second at an address where nobody has answered yet
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
_LONGEST_PAUSE = 60.0  # seconds
_HUB = "huggingface.co"  # may see the Hub's token; where anyone's code runs (Spaces, endpoints) is elsewhere
_NUMBERED = re.compile(r"LABEL_(\d+)")  # how transformers calls classes without names

Scores = dict[str, float]


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Redirects are errors: the token and the image are for this address alone."""

    def redirect_request(self, *_: Any) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirects)


class EndpointClassifier(nn.Module):
    """`forward` takes images [B, 3, H, W] in [0, 1] on the 8-bit grid and returns log-probabilities [B, K]."""

    def __init__(
        self,
        answers: "Answers",
        requests: int,
        class_names: Sequence[str] | None = None,
        channels: Literal["rgb", "gray"] = "rgb",
    ) -> None:
        super().__init__()
        self._answers, self._requests, self._channels = answers, requests, channels
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
        with ThreadPoolExecutor(self._requests, thread_name_prefix="endpoint") as pool:
            found = list(pool.map(self._answers.of, pixels))
        logits = torch.full((len(found), len(places)), -math.inf)
        for row, scores in enumerate(found):
            for label, score in scores.items():
                if label not in places:
                    raise UserError(f"{self._answers.url}: answers with a class {label!r} that is not in class_names")
                logits[row, places[label]] = math.log(score) if score > 0 else -math.inf
        return logits.to(images.device)

    def _classes(self) -> dict[str, int]:
        """The place of each class among the outputs."""
        if self._places is None:
            names = self._named or sorted(self._answers.of(np.full((32, 32, 3), 128, np.uint8)), key=_in_order)
            self._places = {name: place for place, name in enumerate(names)}
        return self._places


class Answers:
    """What an endpoint says of images, kept on this machine for some hours."""

    def __init__(self, url: str, top_k: int, kept_hours: float, timeout: float) -> None:
        self.url, self._top_k, self._timeout, self._answered = url, top_k, timeout, False
        self._since = time.time() - 3600 * kept_hours
        self._file = None
        if kept_hours:
            name = hashlib.sha256(f"{url} {top_k}".encode()).hexdigest()[:24]
            self._file = cache_folder() / "endpoints" / f"{name}.sqlite"
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._kept() as kept:
                kept.execute("create table if not exists answers (image text primary key, at real, scores text)")
                kept.execute("delete from answers where at < ?", (self._since,))

    def of(self, pixels: np.ndarray) -> Scores:
        """The score of each class for an image, uint8 [H, W, 3]. Raises UserError where the endpoint gives none."""
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        image = file.getvalue()
        digest = hashlib.sha256(image).hexdigest()
        if (known := self._known(digest)) is not None:
            return known
        scores = self._ask(image)
        if self._file is not None:
            with self._kept() as kept:
                row = (digest, time.time(), json.dumps(scores))
                kept.execute("insert or replace into answers values (?, ?, ?)", row)
        return scores

    @contextmanager
    def _kept(self) -> Iterator[sqlite3.Connection]:
        assert self._file is not None
        try:
            with closing(sqlite3.connect(self._file, timeout=60)) as kept, kept:
                yield kept
        except (sqlite3.Error, ValueError) as error:
            raise UserError(f"{self._file}: broken or not writable ({one_line(error, 80)}); delete it") from None

    def _known(self, digest: str) -> Scores | None:
        if self._file is None:
            return None
        with self._kept() as kept:
            row = kept.execute(
                "select scores from answers where image = ? and at >= ?", (digest, self._since)
            ).fetchone()
            found: Scores | None = None if row is None else json.loads(row[0])
        return found

    def _ask(self, image: bytes) -> Scores:
        question = {"inputs": base64.b64encode(image).decode(), "parameters": {"top_k": self._top_k}}
        token = _token(self.url)
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        headers |= {"Authorization": f"Bearer {token}"} if token else {}

        def without_token(text: str) -> str:
            return text.replace(token, "…") if token else text

        body = json.dumps(question).encode()
        for attempt in range(1, _ATTEMPTS + 1):
            request = urllib.request.Request(self.url, body, headers)
            pause = min(_LONGEST_PAUSE, 0.5 * 2 ** (attempt - 1) * random.uniform(0.5, 1))
            try:
                with _opener.open(request, timeout=self._timeout) as answer:
                    parsed = _parsed(without_token(_body(answer, self._timeout)))
                    self._answered = True
            except urllib.error.HTTPError as error:
                said, self._answered = without_token(f"{error.code} {error.reason}"), True
                if error.code not in _TRANSIENT:
                    raise UserError(f"{self.url}: answered {said}; check the address, and {TOKEN}") from None
                asked = error.headers.get("Retry-After", "")
                pause = min(_LONGEST_PAUSE, float(asked)) if asked.isdecimal() else pause
            except urllib.error.URLError as error:
                said = f"can't be reached: {' '.join(str(error.reason).split())[:120]}"
                if not self._answered and attempt == _FIRST_ATTEMPTS:
                    raise UserError(f"{self.url}: {said}; check the address, or start it") from None
            except (OSError, ValueError, HTTPException) as error:  # cut off, or no JSON
                said = without_token(one_line(error, 10_000))[:120]
            else:
                if not isinstance(parsed, dict) or "error" not in parsed:
                    return _scores(parsed, self.url)
                said = f"answered {str(parsed)[:80]}"
            if attempt < _ATTEMPTS:
                time.sleep(pause)
        raise UserError(
            f"{self.url}: {said}, {_ATTEMPTS} times; run the same command again later, its answers so far are kept"
        )


def _body(answer: HTTPResponse, seconds: float) -> str:
    """What is answered, where all of it comes in time: a time-out is for a silence, and an answer may drip for ever."""
    end, parts = time.monotonic() + seconds, [b""]
    while part := answer.read1(65536):
        parts.append(part)
        if time.monotonic() > end:
            raise TimeoutError(f"its answer is not complete after {seconds:g} s")
    return b"".join(parts).decode()


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
    if own and not is_safe and host not in ("localhost", "127.0.0.1", "::1"):
        raise UserError(f"{url}: {TOKEN} would be sent there unencrypted; use https, or unset it")
    token = own or (get_token() if is_safe and (host == _HUB or host.endswith(f".{_HUB}")) else None)
    if token and not (token.isascii() and token.isprintable()):
        name = TOKEN if own else "the Hub's token"
        raise UserError(f"{name} contains a character that no token has; copy it again")
    return token or None


def _scores(body: Any, url: str) -> Scores:
    """The scores of an answer. Raises UserError for another one, which asking again does not change."""
    body = body[0] if isinstance(body, list) and len(body) == 1 and isinstance(body[0], list) else body
    entries = body if isinstance(body, list) else []
    known = {
        str(entry["label"]): float(entry["score"])
        for entry in entries
        if isinstance(entry, dict) and isinstance(entry.get("score"), int | float) and "label" in entry
    }
    labels = Counter(str(entry["label"]) for entry in entries if isinstance(entry, dict) and "label" in entry)
    if twice := [label for label, times in labels.items() if times > 1]:
        raise UserError(f"{url}: calls several classes {twice[0]!r}; give each its own name in the model's id2label")
    if not known or len(known) != len(entries) or not all(0 <= score <= 1 for score in known.values()):
        raise UserError(
            f"{url}: answered {str(body)[:80]}, not a list of labels with scores from 0 to 1; it must answer as "
            "the Hub's image-classification endpoints do"
        )
    return known


def _in_order(name: str) -> tuple[int, str]:
    """Classes without names by their numbers, others by the alphabet."""
    numbered = _NUMBERED.fullmatch(name)
    return (int(numbered[1]), "") if numbered else (-1, name)
