"""params.yaml -> frozen, validated sections, each a class of the file of its name beside this one.

defaults (top level)  <-  models.<model>.overrides.<section>  <-  variants.<variant>.overrides.<section>
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from detoxlens.common.errors import UserError, did_you_mean
from detoxlens.params.kinds import KINDS, RUN_LISTS, run_list
from detoxlens.params.models import ModelConfig
from detoxlens.params.reads import READS, TRAINS
from detoxlens.params.run import RunConfig
from detoxlens.params.section import S, parse
from detoxlens.params.sections import SECTIONS
from detoxlens.params.variants import VariantConfig


class Params:
    """The whole of params.yaml; a section is validated when it is first asked for, and kept."""

    def __init__(self, raw: dict[str, Any], path: str = "params.yaml", *, shared: Sequence[str] = ()):
        """Takes what the file holds.

        Args:
            raw: section -> its content.
            path: the file's name, for messages.
            shared: from `shared_nodes`.
        """
        self.raw, self.path, self.shared = raw, path, tuple(shared)
        self._parsed: dict[tuple[object, ...], Any] = {}
        if not isinstance(raw, dict):
            raise UserError(f"{path} holds {type(raw).__name__}, not sections such as run: and models:.")
        for key in raw:
            if key not in SECTIONS:
                raise UserError(
                    f"{path}: unknown section {key!r}.{did_you_mean(key, SECTIONS)} Allowed: {', '.join(SECTIONS)}."
                )

    def section(self, name: str, cls: type[S], *, model: str | None = None, variant: str | None = None) -> S:
        """The section `name` as `cls`, with the overrides of `model` and `variant` applied in that order."""
        return self._kept(("section", name, cls, model, variant), lambda: self._section(name, cls, model, variant))

    def _section(self, name: str, cls: type[S], model: str | None, variant: str | None) -> S:
        if name not in self.raw:
            raise UserError(f"{self.path}: the section {name!r} is missing; copy it from the committed params.yaml.")
        layers = [layer for layer in self._overrides(name, model, variant) if layer]
        if not layers and (model, variant) != (None, None):
            return self.section(name, cls)
        merged = copy.deepcopy(self.raw[name])
        for layer in layers:
            merged = _merge(merged, layer)
        return parse(cls, merged, f"{self.path}: {name}")

    def _overrides(self, name: str, model: str | None, variant: str | None) -> Iterator[Mapping[str, Any]]:
        """What `model` and `variant` change in the section `name`, in the order in which it applies."""
        if model is not None:
            yield self.model(model).overrides.get(name, {})
        if variant is not None:
            own = self.variant(variant)
            if own.placebo_of is not None and name in READS[TRAINS[own.kind]]:  # trained as what it is the placebo of
                yield self.variant(own.placebo_of).overrides.get(name, {})
            yield own.overrides.get(name, {})

    def _entry(self, section: str, key: str, cls: type[S]) -> S:
        entries = self.raw.get(section) or {}
        if key not in entries:
            raise UserError(
                f"{self.path}: {section} has no {key!r}.{did_you_mean(key, entries)} Declared: {', '.join(entries)}."
            )
        return self._kept(("entry", section, key), lambda: parse(cls, entries[key], f"{self.path}: {section}.{key}"))

    def _kept(self, key: tuple[object, ...], make: Callable[[], S]) -> S:
        if key not in self._parsed:
            self._parsed[key] = make()
        return self._parsed[key]

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
        return self._kept(("run",), self._checked_run)

    def _checked_run(self) -> RunConfig:
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
                    f"{expected}; set run.{key} to {expected}, or let `detoxlens variants {' '.join(run.variants)}` do "
                    "it."
                )
        for key in run.interpolated_variants:
            if key not in declared or declared[key].kind == "base":
                trained = [name for name, variant in declared.items() if variant.kind != "base"]
                raise UserError(
                    f"{self.path}: run.interpolated_variants names {key!r}, which is no trained variant of "
                    f"run.variants.{did_you_mean(key, trained)} Allowed: {', '.join(trained) or 'none'}."
                )
        for key, variant in declared.items():
            if variant.placebo_of and variant.placebo_of not in declared:
                raise UserError(
                    f"{self.path}: variants.{key}.placebo_of={variant.placebo_of!r} is not in run.variants, which has "
                    f"{', '.join(declared)}; a placebo is compared with what it is the placebo of: add it."
                )
            for part in self.made_of(key):
                if part not in declared:
                    raise UserError(
                        f"{self.path}: variants.{key} of kind {variant.kind} is made of the adapter of {part!r} "
                        f"(section {variant.kind}), which is not in run.variants: {', '.join(declared)}. Add it, or "
                        "name another."
                    )
        return run

    def made_of(self, variant: str) -> list[str]:
        """The variants, besides `it`, whose adapters `variant` starts from or combines.

        Raises:
            UserError: an override changes which are combined: dvc.yaml names them by the section's own values.
        """
        own = self.variant(variant)
        section = self._mapping(own.kind)
        for key in KINDS[own.kind].made_of:
            changed = [own.overrides, *(self.model(model).overrides for model in self.raw["models"])]
            if any(key in overrides.get(own.kind, {}) for overrides in changed):
                raise UserError(
                    f"{self.path}: {own.kind}.{key} is overridden for one model or variant, and dvc.yaml names the "
                    f"adapter by the section's own value. Set {own.kind}.{key} itself; it is one for all."
                )
        found = [own.init_from, *(section.get(key) for key in KINDS[own.kind].made_of)]
        names = [name for name in found if isinstance(name, str)]  # the section itself names any other value
        return [name for name in dict.fromkeys(names) if name != "it"]

    def variants_by_kind(self, names: list[str]) -> dict[str, list[str]]:
        """The lists by kind that section `run` must hold when run.variants is `names`."""
        found: dict[str, list[str]] = {key: [] for key in RUN_LISTS}
        for name in names:
            own = self.variant(name)
            data = self.data_of(name)
            key = run_list(own.kind, placebo=own.placebo_of is not None, init_from=own.init_from, data=data)
            if key is not None:
                found[key].append(name)
        return found

    def stage_of(self, variant: str) -> str:
        """The stage that makes the variant's adapter."""
        kind = KINDS[self.variant(variant).kind]
        return kind.stage_of_data.get(self.data_of(variant) or "", kind.stage)

    def data_of(self, variant: str) -> str | None:
        """`sft.data`, the same for all models, of a variant of kind `sft`; None of another, and of a placebo."""
        own = self.variant(variant)
        if own.kind != "sft" or own.placebo_of:
            return None
        merged = self._mapping("sft")
        for override in self._overrides("sft", None, variant):
            merged = _merge(merged, dict(override))
        data = merged.get("data")
        return data if isinstance(data, str) else None  # the section itself names any other value

    def _mapping(self, section: str) -> dict[str, Any]:
        """The section as it stands; empty where it is no mapping, which `section` names."""
        raw = self.raw.get(section)
        return raw if isinstance(raw, dict) else {}

    def training_seed(self, variant: str) -> int:
        """The variant's own seed, or run.seed."""
        own = self.variant(variant).seed
        return self.run.seed if own is None else own


def load_params(path: Path) -> Params:
    """Reads params.yaml.

    Raises:
        UserError: the file is missing, is not UTF-8 or YAML, repeats a key or has an unknown section.
    """
    raw = read_yaml(path)
    return Params(raw, path.name, shared=shared_nodes(path.read_text(encoding="utf-8")))


def shared_nodes(text: str) -> list[str]:
    """`line 29 is line 22`, for each mapping or list of a YAML text that an alias or merge (`*`, `<<`) uses again.

    The two are one node: whoever changes a key in it changes both.
    """
    if not re.search(r"[:\-,\[{]\s*\*\w", text):
        return []
    from ruamel.yaml import YAML
    from ruamel.yaml.nodes import CollectionNode, MappingNode

    found: list[str] = []
    seen: set[int] = set()

    def visit(node: Any, line: int) -> None:
        if not isinstance(node, CollectionNode):
            return
        if id(node) in seen:
            found.append(f"line {line} is line {node.start_mark.line + 1}")
            return
        seen.add(id(node))
        for child in node.value:
            key, value = child if isinstance(node, MappingNode) else (None, child)
            visit(value, value.start_mark.line + 1 if key is None else key.start_mark.line + 1)

    visit(YAML(typ="safe", pure=True).compose(text), 1)
    return found


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
        raise UserError(f"{path} is not valid YAML{_reason(e)}.") from None


def _reason(error: Any) -> str:
    """` (line 2, column 1): found character '\\t' that cannot start any token; indent with spaces`."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
    reason = problem or str(error).splitlines()[0]
    began = getattr(error, "context_mark", None)
    if reason.startswith("found duplicate key"):
        remedy = "; keep one of the two"
    elif r"\t" in reason:
        remedy = "; indent with spaces"
    elif mark and began and began.line != mark.line:
        remedy = f", {error.context} that began in line {began.line + 1}"
    else:
        remedy = ""
    return f"{place}: {reason}{remedy}"


def _merge(base: Any, override: dict[str, Any]) -> Any:
    """`base` with the keys of `override`, nested mappings merged key by key."""
    merged = dict(base or {})
    for key, value in override.items():
        merged[key] = (
            _merge(merged[key], value) if isinstance(value, dict) and isinstance(merged.get(key), dict) else value
        )
    return merged
