"""`perspective[:<language>][@<endpoint>]`: Perspective API's TOXICITY, the grader of the published study.

Key: PERSPECTIVE_API_KEY. An endpoint is a server that speaks the same protocol, such as one in front of a successor's
weights, e.g. `perspective:en@http://localhost:8000/v1alpha1/comments:analyze`; it is asked without a key.

It ends on 31 December 2026 and never said which model answered; the score cache keeps the day of each answer. Export
the cache (`detoxlens export-scores`) while there is something to export: `recorded:FILE` reads it ever after.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from urllib.parse import urlsplit

from detoxlens.common.errors import UserError
from detoxlens.scorers.cache import ScoreCache
from detoxlens.scorers.remote import RemoteScorer, Service

ENDPOINT = "https://commentanalyzer.googleapis.com/v1alpha1/comments:analyze"
KEY_VARIABLE = "PERSPECTIVE_API_KEY"
QUERIES_PER_SECOND = 1.0
"""What a key is given by default."""
OWN_QUERIES_PER_SECOND = 1000.0
"""Of a server of one's own: as fast as it answers."""


def perspective_service(language: str, *, endpoint: str = ENDPOINT) -> Service:
    """Perspective for texts in `language` ("en", ...); "auto" lets the service detect it, and refuse some.

    Raises:
        UserError: `language` is neither.
    """
    if not re.fullmatch(r"auto|[a-z]{2}(-[A-Za-z]+)?", language):
        raise UserError(f"toxicity.scorers: 'perspective:{language}': a language such as en, or auto, stands there.")
    languages = {} if language == "auto" else {"languages": [language]}
    return Service(
        name="perspective" if language == "en" else f"perspective:{language}",
        version="v1alpha1",
        label="TOXICITY",
        activation="service",
        endpoint=endpoint,
        key_variable=KEY_VARIABLE,
        key_header=lambda key: {"X-Goog-Api-Key": key},
        batch_size=1,  # the service takes one comment per query
        body=lambda texts: {
            "comment": {"text": texts[0]},
            "requestedAttributes": {"TOXICITY": {}},
            "doNotStore": True,
            **languages,
        },
        read=lambda answer: [answer["attributeScores"]["TOXICITY"]["summaryScore"]["value"]],
        remedy=(
            "Perspective API gives out no new keys and ends on 31 December 2026; `recorded:FILE` takes scores from "
            "before, `profanity_check` and `hf:...` work without it."
        ),
    )


def perspective(address: str, *, cache: ScoreCache, normalize: bool = True) -> RemoteScorer:
    """The scorer `[<language>][@<endpoint>]`; the key of the service itself is from the environment.

    Raises:
        UserError: the language is none, or the endpoint is no address of a server.
    """
    language, at, endpoint = address.partition("@")
    if not at:
        service = perspective_service(language or "en")
        key, pace = os.environ.get(KEY_VARIABLE, ""), QUERIES_PER_SECOND
    else:
        service, key, pace = own_service(language or "en", endpoint), "", OWN_QUERIES_PER_SECOND
    return RemoteScorer(service, key=key, cache=cache, queries_per_second=pace, normalize=normalize)


def own_service(language: str, endpoint: str) -> Service:
    """A server that speaks Perspective's protocol; its scores are filed under its address.

    Raises:
        UserError: the language is none, or the endpoint is no http(s) address, or holds a password.
    """
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
        shown = f"{parts.scheme}://{parts.hostname}..." if parts.hostname else endpoint
        raise UserError(
            f"toxicity.scorers: 'perspective:{language}@{shown}': behind the @ stands the http(s) address of a server, "
            "without user and password, e.g. http://localhost:8000/v1alpha1/comments:analyze."
        )
    return replace(
        perspective_service(language, endpoint=endpoint),
        name=f"perspective:{language}@{endpoint}",
        needs_key=False,
        remedy="Is the server running? `hf:...` scores with a model's weights without one.",
    )
