"""P(toxic) of texts from a sequence classifier with its own tokenizer, e.g. facebook/roberta-hate-speech-dynabench.

Which output is the toxic one, and whether outputs compete (softmax) or not (sigmoid), is read from the model's config;
what the config leaves open is asked for, never guessed. Whether texts can share a batch is tried at loading: those of a
decoder without a padding token cannot.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from detoxlens.common.errors import UserError
from detoxlens.common.tokens import begin_ids, end_ids, plain_ids
from detoxlens.models.capabilities import REFUSALS
from detoxlens.models.checkpoint import check_weights
from detoxlens.models.hub import first_line, hub_refusal, loading
from detoxlens.models.labels import Activation, activation_of, toxic_label_index
from detoxlens.models.loading import weights_sha256

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

PROBE_TEXTS = ("Good morning.", "Good morning, the ferry across the river is late again today.")
"""One is padded beside the other."""
TOLERANCE = 1e-4
"""Of a probability, between a text alone and the same text beside a longer one."""
CHECKPOINT_FILES = ["*.safetensors", "*.json", "*.txt", "*.model", "*.py"]


@dataclass(frozen=True)
class TextClassifier:
    """A loaded classifier; made by `TextClassifier.load`."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    label: str
    """Name of the toxic label in the model's config."""
    label_index: int
    activation: Activation
    version: str
    """First 16 hex digits of the weights' sha256."""
    max_length: int
    """Longest input in the classifier's own tokens, special tokens included; what is longer is cut."""
    batch_size: int
    """Texts in one forward pass; 1 where a text's score would depend on the texts beside it."""
    known: dict[tuple[str, ...], Tensor] | None = None
    """Logits of the texts that were asked about together, kept for its other labels (`of_label`); None keeps none."""

    @classmethod
    def load(
        cls,
        source: str,
        *,
        revision: str | None = None,
        label: str | None = None,
        activation: Activation | None = None,
        device: str = "cpu",
        batch_size: int = 32,
        trust_remote_code: bool = False,
    ) -> TextClassifier:
        """Loads from a folder, or from the hub.

        Args:
            source: folder, or hub id.
            revision: branch, tag or commit of a hub model.
            label: the toxic label, where the config's names do not tell.
            activation: softmax if the labels exclude one another, sigmoid if a text can have several, where the config
                does not tell.
            device: e.g. "cpu" or "cuda:0".
            batch_size: texts in one forward pass.
            trust_remote_code: run the model's own Python code.

        Raises:
            UserError: weights, tokenizer or classification head missing, the toxic label or the activation left open,
                or the classifier cannot read a text.
        """
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        folder = _folder(source, revision)
        if not any((folder / name).exists() for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt")):
            raise UserError(f"The classifier {source} has no tokenizer (tokenizer.json); save it beside the weights.")
        version = weights_sha256(folder)[:16]
        with loading("The classifier", source=source, revision=revision):
            model, report = AutoModelForSequenceClassification.from_pretrained(
                folder,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=trust_remote_code,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # named by check_weights
            )
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
        if report["missing_keys"]:
            missing = ", ".join(sorted(report["missing_keys"]))
            raise UserError(
                f"{source} is not a trained text classifier: its weights lack {missing}. Name a sequence-classifying "
                "model."
            )
        check_weights(model, report, name=source)
        labels = model.config.id2label
        index = toxic_label_index(labels, label, source=source)
        classifier = cls(
            model=model.to(device).eval(),
            tokenizer=tokenizer,
            label=labels[index],
            label_index=index,
            activation=activation or activation_of(model.config.problem_type, labels, index, source=source),
            version=version,
            max_length=min(tokenizer.model_max_length, _num_positions(model)),
            batch_size=batch_size,
        )
        return classifier.examined(source)

    def of_label(self, label: str | None, activation: Activation | None, *, source: str) -> TextClassifier:
        """The same network asked about another label; what one of the two has read the other does not read again.

        Raises:
            UserError: as `load`.
        """
        labels = self.model.config.id2label
        index = toxic_label_index(labels, label, source=source)
        activation = activation or activation_of(self.model.config.problem_type, labels, index, source=source)
        return dataclasses.replace(self, label=labels[index], label_index=index, activation=activation)

    def examined(self, source: str) -> TextClassifier:
        """Itself, or one that reads its texts one at a time.

        Raises:
            UserError: it cannot read a text at all.
        """
        alone = dataclasses.replace(self, batch_size=1)
        try:
            expected = alone.prob(PROBE_TEXTS)
        except REFUSALS as e:
            raise UserError(
                f"The classifier {source} cannot read a text ({type(e).__name__}: {first_line(e)}). Name a "
                "sequence-classifying model with the tokenizer that it was trained with."
            ) from e
        try:
            together = self.prob(PROBE_TEXTS)
        except REFUSALS as e:
            reason = f"cannot pad a batch ({first_line(e)})"
        else:
            off = max(abs(a - b) for a, b in zip(expected, together, strict=True))
            if off <= TOLERANCE or math.isnan(sum(expected)):
                return self
            reason = "gives a text another score beside a longer one"
        log.warning("%s %s: texts are read one at a time (slower, the same scores)", source, reason)
        return alone

    def prob(self, texts: Sequence[str]) -> list[float]:
        """P(toxic label) of each text, 0..1, in the order given; NaN where the model gives none."""
        return self._read(texts, self._probs)

    def log_odds(self, texts: Sequence[str]) -> list[float]:
        """log P(toxic label) / (1 - P) of each text, nats, without the rounding of a probability near 0 or 1."""
        return self._read(texts, self._log_odds)

    def _probs(self, logits: Tensor) -> Tensor:
        """(rows, labels) -> (rows)."""
        given = logits.softmax(-1) if self.activation == "softmax" else logits.sigmoid()
        return given[:, self.label_index]

    def _log_odds(self, logits: Tensor) -> Tensor:
        """(rows, labels) -> (rows)."""
        toxic = logits[:, self.label_index]
        if self.activation == "sigmoid":
            return toxic
        others = [i for i in range(logits.shape[1]) if i != self.label_index]
        return toxic - logits[:, others].logsumexp(-1)

    def _read(self, texts: Sequence[str], measure: Callable[[Tensor], Tensor]) -> list[float]:
        """What `measure` makes of each text's logits, in the order given."""
        if not texts:
            return []
        if self.known is None:
            return measure(self._logits(texts)).tolist()
        if (asked := tuple(texts)) not in self.known:
            self.known[asked] = self._logits(texts)
        return measure(self.known[asked]).tolist()

    def _logits(self, texts: Sequence[str]) -> Tensor:
        """(texts, labels), in the order given."""
        import torch

        encoded = [self._ids(text, most=self.max_length) for text in texts]
        order = sorted(range(len(encoded)), key=lambda i: (-len(encoded[i]), i))
        parts = []
        for start in range(0, len(order), self.batch_size):
            batch = self._padded([encoded[i] for i in order[start : start + self.batch_size]])
            with torch.inference_mode():
                parts.append(self.model(**batch.to(self.model.device)).logits)
        return torch.cat(parts)[torch.tensor(order).argsort()]

    def _padded(self, rows: list[list[int]]) -> BatchEncoding:
        from transformers import BatchEncoding

        if len(rows) == 1:  # needs no padding token
            row = {"input_ids": rows, "attention_mask": [[1] * len(rows[0])]}
            return BatchEncoding(row, tensor_type="pt")
        return self.tokenizer.pad({"input_ids": rows}, return_tensors="pt")

    def truncates(self, text: str) -> bool:
        """Is the text longer than the classifier reads?"""
        return len(self._ids(text)) > self.max_length

    def _ids(self, text: str, most: int | None = None) -> list[int]:
        """The text's first ids and the special tokens around it; what spells a special token is text like any other."""
        begin, end = begin_ids(self.tokenizer), end_ids(self.tokenizer)
        ids = plain_ids(self.tokenizer, text)
        room = len(ids) if most is None else max(0, most - len(begin) - len(end))
        return [*begin, *ids[:room], *end]


def weights_version(source: str, revision: str | None = None) -> str:
    """First 16 hex digits of the sha256 of a classifier's weights, in a folder or on the hub; loads nothing."""
    return weights_sha256(_folder(source, revision))[:16]


def _num_positions(model: PreTrainedModel) -> int:
    """Tokens that the position embeddings hold (RoBERTa's first ones, up to the padding index, hold none).

    512, as BERT, where the config is silent; what is cut is reported as truncated.
    """
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            return module.num_embeddings - module.padding_idx - 1
    return getattr(model.config.get_text_config(), "max_position_embeddings", None) or 512


def _folder(source: str, revision: str | None) -> Path:
    """The folder that `source` is, or that a hub model's checkpoint is fetched into."""
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=CHECKPOINT_FILES))
    except HFValidationError:
        raise UserError(f"The classifier {source!r} is neither an existing folder nor a hub id (owner/name).") from None
    except Exception as e:  # without a network the hub client raises its HTTP library's own errors, now httpx's
        refusal = hub_refusal(e, what="The classifier", source=source, revision=revision)
        raise refusal or UserError(
            f"The classifier {source} could not be fetched from the hub ({type(e).__name__}). Try again, or name a "
            "folder that holds it."
        ) from None
