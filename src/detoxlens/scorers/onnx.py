"""`onnx:<file>#<class>[+<class>...]`: a text classifier as an ONNX graph that takes strings, e.g. skl2onnx's:
`onnx:package:hatesonar/hatesonar/model/model.onnx#0+1` (Davidson et al. 2017: 0 hate speech, 1 offensive language).

Toxicity is the sum of the named classes' probabilities: such a file says which classes there are, not what they mean.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detoxlens.common.errors import UserError
from detoxlens.common.scoring import Keys, ScoredText, Source
from detoxlens.models.packaged import PACKAGE, find_in_distribution
from detoxlens.scorers.base import score_each

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_ADDRESS = re.compile(r"(?P<source>[^#]+)#(?P<classes>[^+]+(\+[^+]+)*)")
BATCH_SIZE = 256
"""Texts in one call."""
LOCALE = "C.UTF-8"
"""Lower-cases as en_US.UTF-8 does, StringNormalizer's default, which many machines do not have."""


class OnnxClassifier:
    """A string-to-probabilities graph as a scorer."""

    activation = "onnx"
    source: Source = "package"

    def __init__(self, address: str, *, root: Path, normalize: bool = True) -> None:
        """Loads `<file>#<class>[+<class>...]`.

        Args:
            address: what follows `onnx:`; the file may be package:<distribution>/<file>.
            root: other files are relative to it.
            normalize: see `score_each`.

        Raises:
            UserError: the address is not of that form; onnxruntime or the file is missing; the graph takes something
                else than texts, gives no probabilities, or has no such class.
        """
        match = _ADDRESS.fullmatch(address)
        if match is None:
            raise UserError(f"toxicity.scorers: 'onnx:{address}' is not of the form onnx:<file>#<class>[+<class>...].")
        source = match["source"]
        path = find_in_distribution(source, key="toxicity.scorers") if source.startswith(PACKAGE) else root / source
        if not path.is_file():
            raise UserError(f"toxicity.scorers: 'onnx:{address}': {path} is no file.")
        raw = path.read_bytes()
        self.name, self.normalize = f"onnx:{address}", normalize
        self.version = hashlib.sha256(raw).hexdigest()[:16]
        self.label = match["classes"]
        self._session = _session(raw, path)
        self._input = _text_input(self._session, path)
        self._classes = match["classes"].split("+")
        self._check_classes(path)

    def score(self, texts: Sequence[str], keys: Keys | None = None) -> list[ScoredText]:
        """One verdict per text, in their order; texts of any length are read whole."""
        return score_each(texts, prob=self._prob, truncates=lambda text: False, normalize=self.normalize)

    def _prob(self, texts: Sequence[str]) -> list[float]:
        rows = [
            row for start in range(0, len(texts), BATCH_SIZE) for row in self._probs(texts[start : start + BATCH_SIZE])
        ]
        return [sum(row[name] for name in self._classes) for row in rows]

    def _probs(self, texts: Sequence[str]) -> list[dict[str, float]]:
        """Class -> probability, per text."""
        import numpy as np

        shape = (len(texts), 1) if len(self._input.shape) == 2 else (len(texts),)
        outputs = self._session.run(None, {self._input.name: np.array(texts, dtype=object).reshape(shape)})
        return _rows(outputs[-1])

    def _check_classes(self, path: Path) -> None:
        """Raises UserError where a class that was asked for is not among those of an example text's probabilities."""
        try:
            known = list(self._probs(["text"])[0])
        except (TypeError, AttributeError, IndexError, ValueError):
            raise UserError(f"toxicity.scorers: the last output of {path} gives no probability per class.") from None
        for name in self._classes:
            if name not in known:
                raise UserError(f"toxicity.scorers: {path} has no class {name!r}; its classes: {', '.join(known)}.")


def _rows(output: Any) -> list[dict[str, float]]:
    """skl2onnx's two forms: a list of {class: probability}, or an array (texts, classes) whose classes are numbers."""
    return [
        {str(name): float(p) for name, p in (row.items() if isinstance(row, dict) else enumerate(row))}
        for row in output
    ]


def _session(raw: bytes, path: Path) -> InferenceSession:
    """The loaded graph, its lower-casing in `LOCALE`."""
    try:
        import onnx
        import onnxruntime
    except ImportError as e:
        raise UserError(f"toxicity.scorers: onnx: needs `pip install 'detoxlens[onnx]'` ({e}).") from None
    from google.protobuf.message import DecodeError

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised as well
    options.intra_op_num_threads = 1
    try:
        graph = onnx.load_from_string(raw)
        for node in graph.graph.node:
            if node.op_type == "StringNormalizer":
                kept = [attribute for attribute in node.attribute if attribute.name != "locale"]
                del node.attribute[:]
                node.attribute.extend([*kept, onnx.helper.make_attribute("locale", LOCALE)])
        return onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except (DecodeError, RuntimeError, ValueError) as e:  # onnxruntime's own errors are RuntimeErrors
        reason = str(e).strip().partition("\n")[0]
        raise UserError(f"toxicity.scorers: {path} cannot be loaded as an ONNX graph: {reason}.") from None


def _text_input(session: InferenceSession, path: Path) -> Any:
    """The graph's only input, of strings."""
    inputs = session.get_inputs()
    if len(inputs) != 1 or inputs[0].type != "tensor(string)":
        kinds = ", ".join(f"{i.name}: {i.type}" for i in inputs)
        raise UserError(f"toxicity.scorers: {path} takes {kinds}; a scorer's graph takes one tensor(string).")
    return inputs[0]
