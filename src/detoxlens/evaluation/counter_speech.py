"""Is a reply counter-speech? Logistic regression on words and word pairs, as a JSON file that can be read.

    features   each word, each pair of neighbours, and the first two again as such: "^ no", "^ no most"
    x          1 / sqrt(number of the text's known features) for each that it has: length alone says nothing
    P          1 / (1 + exp(-(bias + w . x)))

It learns counter-narratives against what is none: the hater turns that they answer, which name the same groups, and
plain answers. So a group's name says nothing, and what is learnt is how somebody objects.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

MAX_FEATURES = 20_000
MIN_TEXTS = 2
"""A feature stands in at least so many of the texts that it is learnt from."""
INVERSE_PENALTY = 10.0
"""C of the L2 penalty."""
DIGITS = 6
"""Of the weights in the file: what is summed up in another order gives the same file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterSpeech:
    """CounterSpeech(bias=-1.2, weights={"^ no": 3.1, "unfair": 2.7})"""

    bias: float
    weights: Mapping[str, float]

    @property
    def version(self) -> str:
        """First 16 hex digits of the weights' sha256."""
        return hashlib.sha256(json.dumps([self.bias, dict(self.weights)]).encode()).hexdigest()[:16]

    def prob(self, reply: str) -> float:
        """P(counter-speech), 0..1."""
        known = [self.weights[name] for name in sorted(features(reply)) if name in self.weights]
        logit = self.bias + (math.fsum(known) / math.sqrt(len(known)) if known else 0.0)
        return 1 / (1 + math.exp(-logit)) if logit > -700 else 0.0


def features(text: str) -> set[str]:
    """{"no", "most", "no most", "^ no", "^ no most"} of "No, most"."""
    words = re.findall(r"[^\W_]+(?:'[^\W_]+)*|[?!]", text.lower().replace("\u2019", "'"))
    pairs = [f"{a} {b}" for a, b in itertools.pairwise(words)]
    return {*words, *pairs, *(f"^ {first}" for first in (*words[:1], *pairs[:1]))}


def fit(counter_speech: Sequence[str], others: Iterable[Sequence[str]]) -> CounterSpeech:
    """Learns the one against the others, which have half of the weight together, each kind of them the same share.

    Args:
        counter_speech: counter-narratives.
        others: kinds of texts that are none, e.g. hater turns, plain answers; empty ones are left out.
    """
    import numpy as np
    from scipy.sparse import csr_matrix
    from sklearn.linear_model import LogisticRegression

    kinds = [kind for kind in others if kind]
    assert counter_speech and kinds, "nothing to tell apart"
    found = [features(text) for kind in (counter_speech, *kinds) for text in kind]
    counts = Counter(name for names in found for name in names)
    chosen = sorted((n for n, count in counts.items() if count >= MIN_TEXTS), key=lambda n: (-counts[n], n))
    columns = {name: i for i, name in enumerate(sorted(chosen[:MAX_FEATURES]))}
    rows = [[columns[name] for name in sorted(names) if name in columns] for names in found]
    values = np.concatenate([np.full(len(row), 1 / math.sqrt(len(row))) for row in rows if row])
    starts = np.cumsum([0, *map(len, rows)])
    x = csr_matrix((values, np.concatenate([np.array(row, dtype=np.int64) for row in rows]), starts))
    x.resize(len(rows), len(columns))
    y = np.arange(len(rows)) < len(counter_speech)
    weight = np.concatenate(
        [np.ones(len(counter_speech))]
        + [np.full(len(kind), len(counter_speech) / len(kinds) / len(kind)) for kind in kinds]
    )
    learnt = LogisticRegression(C=INVERSE_PENALTY, max_iter=500, tol=1e-8).fit(x, y, sample_weight=weight)
    return CounterSpeech(
        bias=round(float(learnt.intercept_[0]), DIGITS),
        weights={name: round(float(learnt.coef_[0, i]), DIGITS) for name, i in columns.items()},
    )
