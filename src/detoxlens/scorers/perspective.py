"""`perspective[:<language>]`: Perspective API's TOXICITY, the grader of the published study. Key: PERSPECTIVE_API_KEY.

It ends on 31 December 2026 and never said which model answered; the score cache keeps the day of each answer. Export
the cache (`detoxlens export-scores`) while there is something to export: `recorded:FILE` reads it ever after.
"""

from __future__ import annotations

import os
import re

from detoxlens.common.errors import UserError
from detoxlens.scorers.cache import ScoreCache
from detoxlens.scorers.remote import RemoteScorer, Service

ENDPOINT = "https://commentanalyzer.googleapis.com/v1alpha1/comments:analyze"
KEY_VARIABLE = "PERSPECTIVE_API_KEY"
QUERIES_PER_SECOND = 1.0
"""What a key is given by default."""


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


def perspective(language: str, *, cache: ScoreCache, normalize: bool = True) -> RemoteScorer:
    """The scorer, with the key from the environment."""
    service = perspective_service(language or "en")
    key = os.environ.get(KEY_VARIABLE, "")
    return RemoteScorer(service, key=key, cache=cache, queries_per_second=QUERIES_PER_SECOND, normalize=normalize)
