"""params.yaml -> frozen, validated sections. An unknown key is an error that names the nearest allowed one.

Every section's class lives beside the code that uses it (`rl/config.py`, `sft/config.py`, ...); this file knows only
what all of them share: how a section is read, merged with a model's and a variant's overrides, and reported on.

    defaults (top level)  <-  models.<model>.overrides.<section>  <-  variants.<variant>.overrides.<section>
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from detoxlens.errors import UserError, did_you_mean

NAME = r"^[a-z0-9][a-z0-9_-]*$"
Name = Annotated[str, Field(pattern=NAME)]
SECTIONS = (
    "run", "models", "variants", "data", "splits", "lora", "sft", "ppo", "reward_model", "tiny",
    "generation", "toxicity", "attribution", "report", "sweep",
)  # fmt: skip


class Section(BaseModel):
    """Base of every params section: frozen, keyword-only, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _known_keys_only(cls, raw: Any) -> Any:
        """Each section knows its own keys, so that a misspelt one is told with its neighbours however deep it lies."""
        if isinstance(raw, dict) and cls.model_config["extra"] == "forbid":
            for key in raw:
                if key not in cls.model_fields:
                    hint = f"{did_you_mean(str(key), cls.model_fields)} Allowed here: {', '.join(cls.model_fields)}"
                    raise PydanticCustomError("unknown_key", "{hint}", {"key": str(key), "hint": hint})
        return raw


S = TypeVar("S", bound=Section)


class RunConfig(Section):
    """What to run: the lists that dvc.yaml's matrices walk over."""

    models: list[Name] = Field(min_length=1)
    variants: list[Name] = Field(min_length=1)
    """All variants, `it` among them; generate, score, attribute and report cover these."""
    sft_variants: list[Name]
    """The variants of kind `sft`: DVC cannot filter a matrix, so they are named again (and checked)."""
    rl_variants: list[Name]
    """The variants of kind `rl` that start from `it`."""
    rl_after_ft_variants: list[Name]
    """The variants of kind `rl` with `init_from: ft`."""
    seed: int = Field(ge=0)
    num_threads: int = Field(ge=1)
    """Torch threads of every stage; identical bytes are promised for one value of it."""
    device: str = Field(pattern=r"^(cpu|cuda(:\d+)?|mps)$")


class VariantConfig(Section):
    """One row of Table 1."""

    kind: Literal["base", "sft", "rl"]
    algorithm: Literal["ppo", "rloo", "grpo"] | None = None
    """Of kind `rl`: our PPO, or RLOO or GRPO through TRL; all read the sections `ppo`, `lora` and `generation`."""
    init_from: Name | None = None
    """Variant whose adapter the training starts from; None is the base model."""
    seed: int | None = Field(default=None, ge=0)
    """Training seed; None takes run.seed. Several seeds of one method are several variants of one `group`."""
    group: str | None = None
    overrides: dict[str, dict[str, Any]] = {}

    @model_validator(mode="after")
    def _keys_go_together(self) -> VariantConfig:
        def mistake(key: str, told: str) -> PydanticCustomError:
            return PydanticCustomError("of_key", "{told}", {"key": key, "told": told})

        if self.kind == "rl" and self.algorithm is None:
            raise mistake("algorithm", " is missing; a variant of kind rl needs ppo, rloo or grpo")
        if self.kind != "rl" and self.algorithm is not None:
            told = f"={self.algorithm!r}: a variant of kind {self.kind} has none; remove it, or set kind: rl"
            raise mistake("algorithm", told)
        if self.kind != "rl" and self.init_from not in (None, "it"):
            told = f"={self.init_from!r}: only variants of kind rl start from another adapter; remove it"
            raise mistake("init_from", told)
        if self.init_from not in (None, "it", "ft"):
            raise mistake("init_from", f"={self.init_from!r}: allowed are 'it' and 'ft'")
        return self


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


class ModelConfig(Section):
    """One model of the study, embedded (`source: tiny:<architecture>`) or from a hub or a folder."""

    source: str
    """`tiny:gpt_neox`, `tiny:falcon`, a local folder, or a Hugging Face model id."""
    revision: str | None = None
    """Branch, tag or commit; `base` resolves it to a commit sha and pins it."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    quantization: Literal["8bit", "4bit"] | None = None
    """Bits of the linear layers' weights (extra `quant`, an accelerator); None keeps `dtype`."""
    device_map: Literal["auto"] | None = None
    """`auto` spreads the model over all accelerators; None puts it on run.device."""
    trust_remote_code: bool = False
    template: TemplateConfig
    overrides: dict[str, dict[str, Any]] = {}


class Params:
    """The whole of params.yaml; sections are validated when asked for."""

    def __init__(self, raw: dict[str, Any], path: str = "params.yaml"):
        self.raw, self.path = raw, path
        if not isinstance(raw, dict):
            raise UserError(f"{path} holds {type(raw).__name__}, not sections such as run: and models:.")
        for key in raw:
            if key not in SECTIONS:
                raise UserError(
                    f"{path}: unknown section {key!r}.{did_you_mean(key, SECTIONS)} Allowed: {', '.join(SECTIONS)}."
                )

    def section(self, name: str, cls: type[S], *, model: str | None = None, variant: str | None = None) -> S:
        """The section `name` as `cls`, with the overrides of `model` and `variant` applied in that order."""
        if name not in self.raw:
            raise UserError(f"{self.path}: the section {name!r} is missing; copy it from the committed params.yaml.")
        merged = copy.deepcopy(self.raw[name])
        if model is not None:
            merged = _merge(merged, self.model(model).overrides.get(name, {}))
        if variant is not None:
            merged = _merge(merged, self.variant(variant).overrides.get(name, {}))
        return parse(cls, merged, f"{self.path}: {name}")

    def _entry(self, section: str, key: str, cls: type[S]) -> S:
        entries = self.raw.get(section) or {}
        if key not in entries:
            raise UserError(
                f"{self.path}: {section} has no {key!r}.{did_you_mean(key, entries)} Declared: {', '.join(entries)}."
            )
        return parse(cls, entries[key], f"{self.path}: {section}.{key}")

    def model(self, key: str) -> ModelConfig:
        """The declaration of one model."""
        return self._entry("models", key, ModelConfig)

    def variant(self, key: str) -> VariantConfig:
        """The declaration of one variant."""
        return self._entry("variants", key, VariantConfig)

    def trained_variant(self, key: str, *, stage: str, kind: str) -> VariantConfig:
        """The declaration of a variant that `stage` trains.

        Raises:
            UserError: it is of another kind.
        """
        found = self.variant(key)
        if found.kind != kind:
            of_kind = [name for name in self.raw["variants"] if self.variant(name).kind == kind]
            raise UserError(
                f"{self.path}: variants.{key} has kind {found.kind!r}; stage {stage} trains variants of kind {kind!r}: "
                f"{', '.join(of_kind) or 'none is declared'}."
            )
        return found

    @property
    def run(self) -> RunConfig:
        """The section `run`, its lists checked against `models` and `variants`."""
        run = self.section("run", RunConfig)
        for key in run.models:
            self.model(key)
        declared = {key: self.variant(key) for key in run.variants}
        if "it" not in declared or declared["it"].kind != "base":
            raise UserError(
                f"{self.path}: run.variants must contain 'it' (kind: base), against which all are measured."
            )
        for key, expected in self.variants_by_kind(run.variants).items():
            given = getattr(run, key)
            if sorted(given) != sorted(expected):
                raise UserError(
                    f"{self.path}: run.{key}={given} does not match run.variants, whose variants of that kind are "
                    f"{expected}; set run.{key} to {expected}."
                )
        return run

    def variants_by_kind(self, names: list[str]) -> dict[str, list[str]]:
        """The lists by kind that section `run` must hold when run.variants is `names`."""
        declared = {name: self.variant(name) for name in names}
        return {
            "sft_variants": [k for k, v in declared.items() if v.kind == "sft"],
            "rl_variants": [k for k, v in declared.items() if v.kind == "rl" and v.init_from in (None, "it")],
            "rl_after_ft_variants": [k for k, v in declared.items() if v.kind == "rl" and v.init_from == "ft"],
        }

    def training_seed(self, variant: str) -> int:
        """The variant's own seed, or run.seed."""
        own = self.variant(variant).seed
        return self.run.seed if own is None else own


def load_params(path: Path) -> Params:
    """Reads params.yaml.

    Raises:
        UserError: the file is missing, is not UTF-8 or YAML, repeats a key or has an unknown section.
    """
    return Params(read_yaml(path), path.name)


def read_yaml(path: Path) -> Any:
    """What a YAML file holds.

    Raises:
        UserError: the file is missing, is not UTF-8 or YAML, or repeats a key.
    """
    from ruamel.yaml import YAML, YAMLError

    try:
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; run from the project's root, or pass --params FILE.") from None
    except UnicodeDecodeError as e:
        raise UserError(f"{path} is not UTF-8 (byte {e.start}); save it as UTF-8.") from None
    except YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise UserError(f"{path} is not valid YAML: {str(e).splitlines()[0]}{place}.") from None


def parse(cls: type[S], raw: Any, where: str) -> S:
    """`raw` as a `cls`; a mistake is told as `where.key=value: what is allowed`."""
    try:
        return cls.model_validate(raw)
    except ValidationError as e:
        lines = []
        for error in e.errors():
            key = ".".join(map(str, (where, *error["loc"])))
            if error["type"] == "unknown_key":
                lines.append(f"{key}.{error['ctx']['key']} is not a known key.{error['msg']}.")
            elif error["type"] == "of_key":
                lines.append(f"{key}.{error['ctx']['key']}{error['msg']}.")
            elif error["type"] == "missing":
                lines.append(f"{key} is missing; add it (see the committed params.yaml).")
            else:
                lines.append(f"{key}={error['input']!r}: {error['msg'].removeprefix('Value error, ')}.")
        raise UserError(" ".join(lines)) from None


def _merge(base: Any, override: dict[str, Any]) -> Any:
    """`base` with the keys of `override`, nested mappings merged key by key."""
    merged = dict(base or {})
    for key, value in override.items():
        merged[key] = (
            _merge(merged[key], value) if isinstance(value, dict) and isinstance(merged.get(key), dict) else value
        )
    return merged
