"""Counts of rows and tokens, from the prepared data and earlier outputs, else from params."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from detoxlens.common.artifacts import Layout, read_rows
from detoxlens.common.records import Completion, Dialogue, Prompt
from detoxlens.params.attribution import AttributionConfig
from detoxlens.params.generation import GenerationConfig
from detoxlens.params.load import Params
from detoxlens.params.models import ChatTemplate, TemplateConfig
from detoxlens.params.sft import SftConfig
from detoxlens.params.splits import SplitConfig, SplitsConfig

CHARS_PER_TOKEN = 4.0
ASSUMED_CHAT_TEMPLATE_CHARS = 120  # of a tokenizer's own, with the system message that many write
ASSUMED_PROMPT_CHARS = 70
"""Of a RealToxicityPrompts prompt, where none is prepared yet."""
ASSUMED_PROMPTS = {"val": 250, "test": 1000}
"""That meet a split without a limit of its own."""
ASSUMED_DIALOGUES, ASSUMED_DIALOGUE_CHARS, ASSUMED_TURNS = 2450, 600, 6
"""DialoCONAN's training part, where none is prepared yet."""
BASE_EXAMPLE_TOKENS = 40
"""Of the embedded models' own corpus, measured once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How much there is to do for one model and variant."""

    num_rows: int
    """Completions: prompts times samples."""
    prompt_tokens: float
    generated_tokens: float
    """Mean; `generation.max_new_tokens` where nothing was generated yet."""
    num_attributed: int
    """Completions attributed, of the variant's own."""
    num_attributed_beside: int
    """For the 2x2 of model and text: completions of `it` read by the variant, and the variant's read by `it`; 0 for
    `it` itself."""
    num_attributed_test: int
    """Of its own, those of test prompts: what the tests of the attribution draw from."""
    num_examples: int
    """Of fine-tuning."""
    num_hater_turns: int
    """Of the training dialogues, repeated ones included."""
    example_tokens: float
    base_example_tokens: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """The evaluation prompts and the training dialogues' turns; None where they are not prepared yet."""

    prompts: Sequence[Prompt] | None
    dialogues: Sequence[tuple[str, ...]] | None

    def notes(self) -> list[str]:
        """What is assumed in place of data."""
        assumed = []
        if self.prompts is None:
            assumed.append(
                "No prompts are prepared: their number is from params `splits` and, where those set no maximum, a "
                f"guess of {ASSUMED_PROMPTS['test']:,} test prompts of {ASSUMED_PROMPT_CHARS} characters; there may be "
                "several times as many. `detoxlens prepare` counts them."
            )
        if self.dialogues is None:
            assumed.append("No dialogues are prepared: DialoCONAN's size is taken.")
        return assumed


def read_data(layout: Layout) -> Data:
    """What `prepare` has written."""
    prompts, dialogues = None, None
    if layout.prompts.exists():
        prompts = [p for p in read_rows(layout.prompts, Prompt) if p.split != "train"]
    if layout.dialogues.exists():
        dialogues = [d.turns for d in read_rows(layout.dialogues, Dialogue) if d.split == "train"]
    return Data(prompts=prompts, dialogues=dialogues)


def generated_tokens(layout: Layout, model: str, variant: str) -> float | None:
    """Mean length of the variant's completions in outputs/, else of those of `it`; None where there are neither."""
    for name in (variant, "it"):
        path = layout.completions(model, name)
        if path.exists() and (lengths := [len(c.completion_ids) for c in read_rows(path, Completion)]):
            return max(1.0, fmean(lengths))
    return None


def count(data: Data, params: Params, model: str, variant: str, *, earlier_tokens: float | None) -> Counts:
    """The counts of one variant, its own and its model's overrides applied.

    Args:
        data: see `read_data`.
        params: all of them.
        model: key of `models`.
        variant: key of `variants`.
        earlier_tokens: see `generated_tokens`; without it completions are as long as allowed.
    """
    generation = params.section("generation", GenerationConfig, model=model, variant=variant)
    attribution = params.section("attribution", AttributionConfig, model=model, variant=variant)
    sft = params.section("sft", SftConfig, model=model, variant=variant)
    template = _template_tokens(params.model(model).template)
    if data.prompts:
        num_prompts, chars = len(data.prompts), fmean(len(p.text) for p in data.prompts)
    else:
        splits = params.section("splits", SplitsConfig).by_name.values()
        num_prompts = sum(_at_most(split, part) for split in splits for part in ASSUMED_PROMPTS)
        chars = ASSUMED_PROMPT_CHARS
    drawn = {split: _drawn(data, params, attribution, split) for split in ("val", "test")}
    if not attribution.validation:
        drawn["val"] = 0
    num_samples = min(attribution.samples_per_prompt, generation.num_samples)
    of_it = params.section("generation", GenerationConfig, model=model, variant="it").num_samples
    num_prompts_drawn = sum(drawn.values())
    beside = num_prompts_drawn * min(attribution.samples_per_prompt, of_it) + drawn["test"] * num_samples
    train = data.dialogues or [("x" * (ASSUMED_DIALOGUE_CHARS // ASSUMED_TURNS),) * ASSUMED_TURNS] * ASSUMED_DIALOGUES
    ends = [(turns, end) for turns in train for end in _ends(turns, prefixes=sft.examples == "prefixes")]
    example_tokens = fmean(
        min(sft.max_length, sum(map(len, turns[:end])) / CHARS_PER_TOKEN + template * end / 2) for turns, end in ends
    )
    return Counts(
        num_rows=num_prompts * generation.num_samples,
        prompt_tokens=chars / CHARS_PER_TOKEN + template,
        generated_tokens=float(min(generation.max_new_tokens, earlier_tokens or generation.max_new_tokens)),
        num_attributed=num_prompts_drawn * num_samples,
        num_attributed_beside=0 if variant == "it" else beside,
        num_attributed_test=drawn["test"] * num_samples,
        num_examples=len(ends),
        num_hater_turns=sum(len(turns) // 2 for turns in train),
        example_tokens=example_tokens,
        base_example_tokens=BASE_EXAMPLE_TOKENS,
    )


def _drawn(data: Data, params: Params, config: AttributionConfig, split: str) -> int:
    """Prompts of one split that are attributed; prompts that several filters draw are counted once, at most."""
    if data.prompts:
        met = [p for p in data.prompts if p.split == split and not set(p.filters).isdisjoint(config.filters)]
        each = [sum(name in p.filters for p in met) for name in config.filters]
        return min(len(met), sum(min(config.max_sequences, number) for number in each))
    declared = params.section("splits", SplitsConfig).by_name
    limits = [_at_most(declared[name], split) for name in config.filters if name in declared]
    return sum(min(config.max_sequences, limit) for limit in limits)


def _at_most(split: SplitConfig, part: str) -> int:
    """Prompts of a declared split in `val` or `test`."""
    limit = split.max_val if part == "val" else split.max_test
    return ASSUMED_PROMPTS[part] if limit is None else limit


def _ends(turns: Sequence[str], *, prefixes: bool) -> Sequence[int]:
    return range(2, len(turns) + 1, 2) if prefixes else (len(turns),)


def _template_tokens(template: TemplateConfig | ChatTemplate) -> float:
    if isinstance(template, ChatTemplate):
        return (ASSUMED_CHAT_TEMPLATE_CHARS + len(template.system or "")) / CHARS_PER_TOKEN
    return len(template.user + template.bot) / CHARS_PER_TOKEN
