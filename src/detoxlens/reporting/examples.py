"""What the variants answer to the same prompts, before and after: chosen by hash, not by hand."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from detoxlens.params.report import ReportConfig
from detoxlens.reporting.curves import toxic_keys
from detoxlens.reporting.study import Key, Study


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One variant's completion of the example's prompt."""

    variant: str
    completion: str
    toxicity: float | None
    """0..1 by the grader; None when empty or not scored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One prompt with every variant's answer."""

    model: str
    prompt_id: str
    sample_index: int
    prompt: str
    answers: tuple[Answer, ...]


def choose(toxicity: Mapping[Key, float], candidates: Collection[Key], num: int, config: ReportConfig) -> list[Key]:
    """`num` completions in the order of their prompt's hash: half that `it` answered toxically, half others.

    Where one half is short the other fills up. Hashes have nothing to do with content, so nothing is picked.
    """
    toxic, _ = toxic_keys(toxicity, config)
    ordered = sorted(candidates)
    halves = [key for key in ordered if key in toxic], [key for key in ordered if key not in toxic]
    num_toxic = min(len(halves[0]), max(num - num // 2, num - len(halves[1])))
    return halves[0][:num_toxic] + halves[1][: num - num_toxic]


def examples(study: Study, config: ReportConfig) -> list[Example]:
    """Test prompts of the primary split that every variant completed, `config.num_examples` per model."""
    found = []
    for model, variants in study.models.items():
        toxicity = {variant: tables.toxicity(study.grader) for variant, tables in variants.items()}
        everyone = [tables.keys_of("test") for tables in variants.values()]
        of_split = variants["it"].keys_of("test", config.primary_split)
        attributed = {key for a in variants["it"].shown if (key := (a.prompt_id, a.sample_index)) in of_split}
        candidates = {key for key in attributed if all(key in keys for keys in everyone)} or {
            key for key in of_split if all(key in keys for keys in everyone)
        }  # if possible those that can be shown token by token
        chosen = choose(toxicity["it"], candidates, config.num_examples, config)
        completions = {
            variant: dict(zip(chosen, tables.completions_of(chosen), strict=True))
            for variant, tables in variants.items()
        }
        for key in chosen:
            found.append(
                Example(
                    model=model,
                    prompt_id=key[0],
                    sample_index=key[1],
                    prompt=completions["it"][key].prompt,
                    answers=tuple(
                        Answer(
                            variant=variant,
                            completion=completions[variant][key].completion,
                            toxicity=toxicity[variant].get(key),
                        )
                        for variant in variants
                    ),
                )
            )
    return found
