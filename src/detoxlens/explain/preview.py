"""`detoxlens preview`: prompts as a model reads them, before any hour is spent on them: text, tokens, ids, regions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from detoxlens.common.artifacts import Layout, read_model_ref, read_rows
from detoxlens.common.errors import UserError
from detoxlens.common.records import Prompt
from detoxlens.params.load import Params
from detoxlens.params.models import ChatTemplate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from detoxlens.data.templates import EncodedPrompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """Preview(pieces=("<human>:", " Hi", "\\n<bot>:"), prompt=EncodedPrompt(ids=(12, 7, 30), regions=(...)))"""

    pieces: tuple[str, ...]
    """The text of each token."""
    prompt: EncodedPrompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Previews:
    """What a model of params.yaml reads."""

    shown: tuple[Preview, ...]
    warning: str | None
    """Where params.yaml writes another template than the tokenizer's own; else None."""


def preview(root: Path, params: Params, model: str, *, prompts: Sequence[str] = (), count: int = 3) -> Previews:
    """The first `count` evaluation prompts, or those given, as `generate` gives them to the model.

    Raises:
        UserError: the model is not declared or not there yet, or the template cannot write a prompt.
    """
    from detoxlens.attribution.pieces import pieces_of
    from detoxlens.data.templates import encode_prompt
    from detoxlens.models.loading import load_tokenizer

    layout, spec = Layout(root), params.model(model)
    folder = layout.adapter(model, "it")
    if not (folder / "model_ref.json").exists():
        raise UserError(f"{folder} has no model_ref.json yet; `dvc repro base@{model}` makes it.")
    tokenizer = load_tokenizer(root, read_model_ref(folder), trust_remote_code=spec.trust_remote_code)
    texts = list(prompts) or [row.text for row in read_rows(layout.prompts, Prompt)[:count]]
    encoded = [encode_prompt(tokenizer, spec.template, [text], evaluation=True) for text in texts]
    shown = tuple(Preview(pieces=pieces_of(tokenizer, prompt.ids), prompt=prompt) for prompt in encoded)
    return Previews(shown=shown, warning=_difference(tokenizer, spec.template, texts[0], encoded[0], model))


def _difference(
    tokenizer: PreTrainedTokenizerFast, template: object, text: str, written: EncodedPrompt, model: str
) -> str | None:
    from detoxlens.data.templates import encode_prompt

    if isinstance(template, ChatTemplate) or not tokenizer.chat_template:
        return None
    own = encode_prompt(tokenizer, ChatTemplate(), [text])
    if own.ids == written.ids:
        return None
    return (
        f"models.{model}.template is not the tokenizer's own chat template, with which this model was probably "
        f"trained; `template: chat` takes that one. It would write: {tokenizer.decode(own.ids)!r}"
    )
