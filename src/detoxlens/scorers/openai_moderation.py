"""`openai_moderation[:<model>]`: OpenAI's moderation model, the larger of P(harassment) and P(hate).

Key: OPENAI_API_KEY. A dated model name (the default is one) is a version; `omni-moderation-latest` is not.
"""

from __future__ import annotations

import os

from detoxlens.scorers.cache import ScoreCache
from detoxlens.scorers.remote import RemoteScorer, Service

ENDPOINT = "https://api.openai.com/v1/moderations"
KEY_VARIABLE = "OPENAI_API_KEY"
MODEL = "omni-moderation-2024-09-26"
CATEGORIES = ("harassment", "hate")
QUERIES_PER_SECOND = 1.0
BATCH_SIZE = 32
"""Texts per query; the service answers in their order."""


def openai_moderation_service(model: str, *, endpoint: str = ENDPOINT) -> Service:
    """The service, asked with `model`."""
    return Service(
        name="openai_moderation" if model == MODEL else f"openai_moderation:{model}",
        version=model,
        label=f"max({', '.join(CATEGORIES)})",
        activation="service",
        endpoint=endpoint,
        key_variable=KEY_VARIABLE,
        key_header=lambda key: {"Authorization": f"Bearer {key}"},
        batch_size=BATCH_SIZE,
        body=lambda texts: {"model": model, "input": list(texts)},
        read=lambda answer: [
            max(result["category_scores"][category] for category in CATEGORIES) for result in answer["results"]
        ],
        remedy="`profanity_check` and `hf:...` work without a service; `recorded:FILE` takes scores made elsewhere.",
    )


def openai_moderation(model: str, *, cache: ScoreCache, normalize: bool = True) -> RemoteScorer:
    """The scorer, with the key from the environment."""
    service = openai_moderation_service(model or MODEL)
    key = os.environ.get(KEY_VARIABLE, "")
    return RemoteScorer(service, key=key, cache=cache, queries_per_second=QUERIES_PER_SECOND, normalize=normalize)
