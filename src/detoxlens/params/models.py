"""Params section `models`: where each model comes from, how a chat is written for it, and its overrides."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator

from detoxlens.params.section import Section


class TemplateConfig(Section):
    """How a chat is written for a model: user.format(text) + bot + reply.format(text) + end, turn by turn."""

    user: str
    """Contains {text}; the human's turn up to where the bot begins."""
    bot: str
    """What the bot's turn begins with; a generation prompt ends here."""
    reply: str
    """Contains {text}; the bot's own words."""
    end: str
    """Between a reply's end-of-sequence token and the next user turn."""
    eval_user: str | None = None
    """The human's turn at evaluation where it differs (the authors quoted the prompt there)."""
    eos_after_reply: bool = True
    """Does the tokenizer's end-of-sequence token follow each reply?"""
    system: str | None = None
    """A system message; None is none."""
    system_turn: str = "{text}\n"
    """Contains {text}; how a system message is written, before the first human turn."""


class ChatTemplate(Section):
    """The chat template of the model's own tokenizer: `template: chat`, or `template: {system: "Be polite."}`."""

    system: str | None = None
    """A system message before the first turn; None leaves what the template itself writes there."""
    variables: dict[str, bool | int | float | str] = Field(default_factory=dict)
    """Further variables of the template, e.g. {enable_thinking: false}."""


def _kind_of_template(raw: Any) -> str | None:
    """Which of the two a mapping is meant to be, so that a mistake in one is not answered with the keys of both."""
    if isinstance(raw, dict):
        own = TemplateConfig.model_fields.keys() - ChatTemplate.model_fields.keys()
        return "<written>" if raw.keys() & own else "<chat>"
    return {TemplateConfig: "<written>", ChatTemplate: "<chat>"}.get(type(raw))


class WeightsConfig(Section):
    """How a model's weights are held: in which format, on which devices, and whose code may run."""

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the weights; LoRA and its optimizer keep float32."""
    quantization: Literal["8bit", "4bit"] | None = None
    """Bits of the linear layers' weights (extra `quant`, an accelerator); None keeps `dtype`."""
    device_map: Literal["auto"] | None = None
    """`auto` spreads the model over all accelerators; None puts it on run.device."""
    trust_remote_code: bool = False
    """Run the model's own Python code from the hub."""


class ModelConfig(WeightsConfig):
    """One model of the study, embedded (`source: tiny:<architecture>`) or from a hub or a folder."""

    source: str
    """`tiny:gpt_neox`, `tiny:falcon`, a local folder, a Hugging Face model id, `gguf:<path>`, or
    `package:<distribution>/<file>.gguf` inside an installed distribution."""
    revision: str | None = None
    """Branch, tag or commit; `base` resolves it to a commit sha and pins it. Of a GGUF file: its sha256."""
    template: Annotated[
        Annotated[TemplateConfig, Tag("<written>")] | Annotated[ChatTemplate, Tag("<chat>")],
        Discriminator(
            _kind_of_template,
            custom_error_type="template",
            custom_error_message="allowed are chat, {system: ...}, or {user: ..., bot: ..., reply: ..., end: ...}",
        ),
        Field(json_schema_extra=lambda schema: schema["oneOf"].append({"const": "chat"})),
    ] = ChatTemplate()
    """`chat` (the default), {system: ...} with it, or one that is written out: {user, bot, reply, end}."""
    overrides: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Section -> the keys of it that differ for this model."""

    @field_validator("template", mode="before")
    @classmethod
    def _chat_by_name(cls, raw: Any) -> Any:
        return {} if raw == "chat" else raw
