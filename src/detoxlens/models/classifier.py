"""P(toxic) of texts from a sequence classifier with its own tokenizer, e.g. facebook/roberta-hate-speech-dynabench.

Which output is the toxic one, and whether outputs compete (softmax) or not (sigmoid), is read from the model's config;
what the config leaves open is asked for, never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from detoxlens.common.errors import UserError, did_you_mean
from detoxlens.models.hub import hub_refusal
from detoxlens.models.loading import weights_sha256

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Activation = Literal["softmax", "sigmoid"]
TOXIC_LABELS = frozenset({"toxic", "toxicity", "hate", "hateful", "hatespeech", "offensive", "abusive"})
"""Labels that mean toxic, in lower case without spaces, `-` and `_`."""
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

    @classmethod
    def load(
        cls,
        source: str,
        *,
        revision: str | None = None,
        label: str | None = None,
        device: str = "cpu",
        batch_size: int = 32,
        trust_remote_code: bool = False,
    ) -> TextClassifier:
        """Loads from a folder, or from the hub.

        Args:
            source: folder, or hub id.
            revision: branch, tag or commit of a hub model.
            label: the toxic label, where the config's names do not tell.
            device: e.g. "cpu" or "cuda:0".
            batch_size: texts in one forward pass.
            trust_remote_code: run the model's own Python code.

        Raises:
            UserError: weights, tokenizer or classification head missing, or the toxic label is ambiguous.
        """
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        folder = _folder(source, revision)
        if not any((folder / name).exists() for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt")):
            raise UserError(f"The classifier {source} has no tokenizer (tokenizer.json); save it beside the weights.")
        version = weights_sha256(folder)[:16]
        try:
            model, loaded = AutoModelForSequenceClassification.from_pretrained(
                folder,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=trust_remote_code,
                output_loading_info=True,
            )
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
        except (OSError, ValueError) as e:
            raise UserError(f"The classifier {source} could not be loaded: {str(e).strip().splitlines()[0]}") from e
        if loaded["missing_keys"]:
            missing = ", ".join(sorted(loaded["missing_keys"]))
            raise UserError(
                f"{source} is not a trained text classifier: its weights lack {missing}. Name a sequence-classifying "
                "model."
            )
        index = toxic_label_index(model.config.id2label, label, source=source)
        return cls(
            model=model.to(device).eval(),
            tokenizer=tokenizer,
            label=model.config.id2label[index],
            label_index=index,
            activation=activation_of(model.config.problem_type, model.config.num_labels, source=source),
            version=version,
            max_length=min(tokenizer.model_max_length, _num_positions(model)),
            batch_size=batch_size,
        )

    def prob(self, texts: Sequence[str]) -> list[float]:
        """P(toxic label) of each text, 0..1, in the order given; NaN where the model gives none."""
        import torch

        encoded = self.tokenizer(list(texts), truncation=True, max_length=self.max_length)["input_ids"] if texts else []
        order = sorted(range(len(encoded)), key=lambda i: (-len(encoded[i]), i))
        probs = [0.0] * len(encoded)
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            batch = self.tokenizer.pad({"input_ids": [encoded[i] for i in rows]}, return_tensors="pt")
            with torch.inference_mode():
                logits = self.model(**batch.to(self.model.device)).logits  # (rows, labels)
            given = logits.softmax(-1) if self.activation == "softmax" else logits.sigmoid()
            for i, value in zip(rows, given[:, self.label_index].tolist(), strict=True):
                probs[i] = value
        return probs

    def truncates(self, text: str) -> bool:
        """Is the text longer than the classifier reads?"""
        return len(self.tokenizer(text, verbose=False)["input_ids"]) > self.max_length


def weights_version(source: str, revision: str | None = None) -> str:
    """First 16 hex digits of the sha256 of a classifier's weights, in a folder or on the hub; loads nothing."""
    return weights_sha256(_folder(source, revision))[:16]


def toxic_label_index(id2label: Mapping[int, str], label: str | None = None, *, source: str = "the classifier") -> int:
    """Index of `label`, or of the only label that means toxic: {0: "nothate", 1: "hate"} -> 1.

    Raises:
        UserError: no label, or several, mean toxic; or `label` is none of them.
    """
    names = ", ".join(repr(name) for name in id2label.values())
    if label is not None:
        if label not in id2label.values():
            raise UserError(
                f"{source} has no label {label!r}.{did_you_mean(label, id2label.values())} Its labels: {names}."
            )
        return next(i for i, name in id2label.items() if name == label)
    toxic = [i for i, name in id2label.items() if _plain(name) in TOXIC_LABELS]
    if len(toxic) != 1:
        found = "none of which is" if not toxic else "more than one of which is"
        raise UserError(
            f"{source} has the labels {names}, {found} known to mean toxic. Name the toxic one: for the "
            f"reward as reward_model.label, for a scorer as `hf:{source}#<label>`."
        )
    return toxic[0]


def activation_of(problem_type: str | None, num_labels: int, *, source: str = "the classifier") -> Activation:
    """sigmoid for a multi-label or one-output model, softmax for labels that exclude each other.

    Raises:
        UserError: a regression model, whose output is no probability.
    """
    if problem_type == "regression":
        raise UserError(f"{source} is a regression model (problem_type in its config); its output is no probability.")
    return "sigmoid" if problem_type == "multi_label_classification" or num_labels == 1 else "softmax"


def _plain(name: str) -> str:
    return "".join(c for c in name.casefold() if c not in " -_")


def _num_positions(model: PreTrainedModel) -> int:
    """Tokens that the position embeddings hold (RoBERTa's first ones, up to the padding index, hold none).

    512, as BERT, where the config is silent; what is cut is reported as truncated.
    """
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            return module.num_embeddings - module.padding_idx - 1
    return getattr(model.config, "max_position_embeddings", None) or 512


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
        told = hub_refusal(e, what="The classifier", source=source, revision=revision)
        raise told or UserError(
            f"The classifier {source} could not be fetched from the hub ({type(e).__name__}). Try again, or name a "
            "folder that holds it."
        ) from None
