"""Scorers behind an HTTP service: at a steady rate, with retries, and a cache on disk.

A query holds `Service.batch_size` texts. One that fails for reasons of its texts is asked again text by text.

What is tried again: 429, 5xx, timeouts, dropped connections, answers that are no JSON. The wait doubles from a second
to a minute, with jitter ("full jitter", aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter), or is what
the service's Retry-After asks. What stops the run: a refused key, a quota that stays exhausted, a service that cannot
be reached, or that fails several texts in a row; what was scored until then is in the cache. What fails one text alone:
everything else.

The key travels in a header, never in an address, and is cut out of every message.
"""

from __future__ import annotations

import http.client
import json
import math
import random
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from detoxlens.common.errors import UserError
from detoxlens.common.scoring import Keys, ScoredText, Source
from detoxlens.common.text import as_read, is_blank
from detoxlens.jobs.progress import progress
from detoxlens.scorers.cache import ScoreCache

MAX_WAIT_SECONDS = 60.0
MAX_ERROR_LENGTH = 300
MAX_FAILED_IN_A_ROW = 3
"""Queries that may use up their attempts one after another before the service is taken to be down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What one service wants and gives."""

    name: str
    version: str
    label: str
    activation: str
    endpoint: str
    key_variable: str
    """Environment variable that holds the key."""
    key_header: Callable[[str], Mapping[str, str]]
    """Key -> the header it travels in."""
    batch_size: int
    """Texts per query."""
    body: Callable[[Sequence[str]], Any]
    """At most `batch_size` texts -> the query's JSON."""
    read: Callable[[Any], list[float]]
    """The answer's JSON -> toxicities, 0..1, in the order asked; KeyError, IndexError, TypeError where it has none."""
    remedy: str
    """What to do when the service is no option: the end of every message that stops the run."""
    needs_key: bool = True
    """False for a server of one's own, which is never sent the key of another."""


Verdict = tuple[ScoredText, bool]
"""The verdict, and whether asking again would give the same one."""


class _Transient(Exception):
    """Worth another try."""

    def __init__(self, message: str, *, kind: str, wait_seconds: float | None = None) -> None:
        super().__init__(message)
        self.kind, self.wait_seconds = kind, wait_seconds


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another address."""

    def redirect_request(self, *_: Any) -> None:
        return None


class RemoteScorer:
    """A `Service` as a scorer."""

    source: Source = "service"

    def __init__(
        self,
        service: Service,
        *,
        key: str,
        cache: ScoreCache,
        queries_per_second: float = 1.0,
        timeout_seconds: float = 20.0,
        max_attempts: int = 8,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        normalize: bool = True,
    ) -> None:
        """Checks the key's form; asks nothing yet.

        Args:
            service: whom to ask, and how.
            key: the service's key; empty is allowed as long as the cache knows every text.
            cache: where verdicts are kept.
            queries_per_second: upper bound, retries included.
            timeout_seconds: of one query.
            max_attempts: per query.
            sleep: waits for so many seconds.
            clock: seconds, rising.
            normalize: ask about the letters that a reader takes each text for (`common.text.as_read`).

        Raises:
            UserError: the key has characters that no key has.
        """
        self.name, self.version = service.name, service.version
        self.label, self.activation = service.label, service.activation
        self._service, self._key, self._cache = service, key.strip(), cache
        if not (self._key.isascii() and self._key.isprintable() and " " not in self._key):
            raise UserError(
                f"{service.key_variable} holds white space or characters that no key has; set it to the key alone."
            )
        self._interval_seconds, self._timeout_seconds = 1 / queries_per_second, timeout_seconds
        self._max_attempts, self._sleep, self._clock = max_attempts, sleep, clock
        self._normalize = normalize
        self._next_query = -math.inf
        self._failed_in_a_row = 0
        self._jitter = random.Random()  # must differ between processes, and no number depends on it
        self._opener = urllib.request.build_opener(_NoRedirect())

    def divide_pace(self, num_processes: int) -> None:
        """Asks so much less often that `num_processes` of them together keep the pace that the one key is given."""
        self._interval_seconds *= num_processes

    def known(self, texts: Sequence[str]) -> dict[str, ScoredText]:
        """The verdicts that the cache holds, by text."""
        asked = self._asked(texts)
        found = self._cache.read(self.name, self.version, list(dict.fromkeys(asked.values())))
        return {text: found[question] for text, question in asked.items() if question in found}

    def score(self, texts: Sequence[str], keys: Keys | None = None) -> list[ScoredText]:
        """One verdict per text, in their order; equal texts are asked for once.

        Raises:
            UserError: the key is missing or refused, the quota is exhausted, or the service cannot be reached.
        """
        asked = self._asked(texts)
        unique = list(dict.fromkeys(asked.values()))
        known = self._cache.read(self.name, self.version, unique)
        todo = [text for text in unique if text not in known]
        if todo and not self._key and self._service.needs_key:
            raise UserError(
                f"toxicity.scorers: {self.name} needs a key in the environment variable {self._service.key_variable} "
                f"for {len(todo)} text(s) that {self._cache.path} does not hold. {self._service.remedy}"
            )
        if todo:
            with progress(f"ask {self.name}", total=len(unique), num_done=len(known), unit="texts") as bar:
                size, num_kept = self._service.batch_size, len(known)
                for start in range(0, len(todo), size):
                    part = todo[start : start + size]
                    verdicts = self._ask(part, num_known=num_kept)
                    if len(part) > 1:
                        verdicts = [
                            self._ask([text], num_known=num_kept)[0] if verdict[0].status == "failed" else verdict
                            for text, verdict in zip(part, verdicts, strict=True)
                        ]
                    for text, (verdict, lasting) in zip(part, verdicts, strict=True):
                        known[text] = verdict
                        num_kept += lasting
                        if lasting:
                            self._cache.write(self.name, self.version, text, verdict)
                    bar.advance(len(part))
        empty = ScoredText(None, "empty", False, "")
        return [known.get(asked.get(text, text), empty) for text in texts]

    def _asked(self, texts: Sequence[str]) -> dict[str, str]:
        """Each text that is not empty, once, in order, and what the service is asked about it."""
        return {text: as_read(text) if self._normalize else text for text in unique_texts(texts)}

    def _ask(self, texts: Sequence[str], *, num_known: int) -> list[Verdict]:
        """A verdict per text, in their order."""
        for attempt in range(self._max_attempts):
            self._wait_for_turn()
            try:
                verdicts = self._query(texts, num_known)
                self._failed_in_a_row = 0
                return verdicts
            except _Transient as e:
                problem = e
            if attempt + 1 < self._max_attempts:
                backoff = min(MAX_WAIT_SECONDS, 2.0**attempt)
                self._sleep(backoff * self._jitter.random() if problem.wait_seconds is None else problem.wait_seconds)
        self._failed_in_a_row += 1
        if problem.kind != "text":
            raise self._stop(f"{problem} after {self._max_attempts} attempts", num_known)
        if self._failed_in_a_row == MAX_FAILED_IN_A_ROW:
            raise self._stop(
                f"{problem} after {self._max_attempts} attempts, {MAX_FAILED_IN_A_ROW} times in a row", num_known
            )
        return [(_failed(f"{problem} after {self._max_attempts} attempts"), False)] * len(texts)

    def _wait_for_turn(self) -> None:
        if (wait := self._next_query - self._clock()) > 0:
            self._sleep(wait)
        self._next_query = max(self._next_query, self._clock()) + self._interval_seconds

    def _query(self, texts: Sequence[str], num_known: int) -> list[Verdict]:
        service = self._service
        request = urllib.request.Request(
            service.endpoint,
            data=json.dumps(service.body(texts)).encode(),
            headers={"Content-Type": "application/json", **(service.key_header(self._key) if self._key else {})},
        )
        try:
            with self._opener.open(request, timeout=self._timeout_seconds) as reply:
                raw = reply.read()
        except urllib.error.HTTPError as e:
            with e:
                return [self._refused(e, num_known)] * len(texts)
        except TimeoutError:
            raise _Transient(f"no answer within {self._timeout_seconds:g} s", kind="text") from None
        except (OSError, http.client.HTTPException) as e:
            if isinstance(getattr(e, "reason", None), TimeoutError):
                raise _Transient(f"no answer within {self._timeout_seconds:g} s", kind="text") from None
            raise _Transient(self._clean(f"cannot be reached ({e})"), kind="service") from None
        return self._read(raw, len(texts))

    def _read(self, raw: bytes, num_texts: int) -> list[Verdict]:
        try:
            toxicities = [float(value) for value in self._service.read(json.loads(raw))]
        except (ValueError, KeyError, IndexError, TypeError):
            said = self._clean(raw.decode("utf-8", "replace"))[:120]
            raise _Transient(f"no score in the answer {said!r}", kind="text") from None
        if len(toxicities) != num_texts:
            raise _Transient(f"{len(toxicities)} scores for {num_texts} texts", kind="text")
        return [
            (
                ScoredText(toxicity, "ok", False, "")
                if 0 <= toxicity <= 1
                else _failed(f"the service gave {toxicity}, which is no probability"),
                True,
            )
            for toxicity in toxicities
        ]

    def _refused(self, error: urllib.error.HTTPError, num_known: int) -> Verdict:
        said = self._clean(f"HTTP {error.code}: {_message(error)}")
        if error.code == 429:
            raise _Transient(said, kind="quota", wait_seconds=_retry_after(error))
        if error.code >= 500 or error.code == 408:
            raise _Transient(said, kind="text", wait_seconds=_retry_after(error))
        about_key = error.code == 400 and "api key" in said.lower()
        if about_key or error.code in (401, 403):
            raise self._stop(f"refused the key in {self._service.key_variable} ({said})", num_known)
        if error.code in (404, 410) or 300 <= error.code < 400:
            raise self._stop(f"is not at {self._service.endpoint} ({said})", num_known)
        return _failed(said), True

    def _stop(self, problem: str, num_known: int) -> UserError:
        return UserError(
            f"toxicity.scorers: {self.name}: {problem}. {num_known} text(s) are scored and kept in "
            f"{self._cache.path}; the same command resumes from there. {self._service.remedy}"
        )

    def _clean(self, message: str) -> str:
        """One line without the key."""
        message = " ".join(message.split())
        return (message.replace(self._key, "<key>") if self._key else message)[:MAX_ERROR_LENGTH]


def unique_texts(texts: Sequence[str]) -> list[str]:
    """What there is to ask about: each text that is not empty, once, in order."""
    return list(dict.fromkeys(text for text in texts if not is_blank(text)))


def _failed(error: str) -> ScoredText:
    return ScoredText(None, "failed", False, error)


def _message(error: urllib.error.HTTPError) -> str:
    """What an error's body says: {"error": {"message": ...}} of both services, else its beginning."""
    try:
        raw = error.read()
    except (OSError, http.client.HTTPException):
        return "(no body)"
    try:
        return str(json.loads(raw)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return raw.decode("utf-8", "replace")


def _retry_after(error: urllib.error.HTTPError) -> float | None:
    """Seconds the service asks to wait, at most a minute; None where it says nothing we can read."""
    asked = error.headers.get("Retry-After", "")
    return min(MAX_WAIT_SECONDS, float(asked)) if asked.isascii() and asked.isdigit() else None
