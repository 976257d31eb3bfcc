"""`detoxlens plan`: reads params and what data there is, measures, forecasts, prints a table and what does not fit."""

from __future__ import annotations

import importlib
import math
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

from rich.console import Console
from rich.table import Table

from detoxlens.artifacts import Layout, read_rows
from detoxlens.attribution.config import AttributionConfig
from detoxlens.config import Params, TemplateConfig, load_params
from detoxlens.data.config import SplitsConfig
from detoxlens.machine import memory_gib, num_cores
from detoxlens.models.config import GenerationConfig
from detoxlens.models.lora import LoraConfig
from detoxlens.models.reward_config import RewardModelConfig
from detoxlens.models.tiny import TinyConfig
from detoxlens.plan import forecast
from detoxlens.plan.forecast import Cost, Counts, Shape
from detoxlens.progress import duration
from detoxlens.records import Completion, Dialogue, Prompt
from detoxlens.rl.config import PpoConfig
from detoxlens.run_stage import check_params
from detoxlens.scorers.config import ToxicityConfig
from detoxlens.sft.config import SftConfig

CHARS_PER_TOKEN = 4.0
ASSUMED_PROMPT_CHARS = 70
"""Of a RealToxicityPrompts prompt, where none is prepared yet."""
ASSUMED_DIALOGUES, ASSUMED_DIALOGUE_CHARS = 2450, 600
"""DialoCONAN's training part, where none is prepared yet."""
BASE_EXAMPLE_TOKENS = 40
"""Of the embedded models' own corpus, measured once."""
REWARD_EXAMPLE_TOKENS = 32
"""Of the embedded classifier's, with its padding."""
LONG_HOURS = 48.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The forecast of the whole pipeline."""

    costs: Mapping[str, Sequence[Cost]]
    """Per model."""
    unknown: Sequence[str]
    """What could not be forecast, in sentences."""
    notes: Sequence[str]
    """What the figures rest on."""
    warnings: Sequence[str]


def plan(root: Path, params_path: Path, *, parameters: Mapping[str, float]) -> Plan:
    """Measures this machine and forecasts; nothing is written, nothing is asked of the hub.

    Args:
        root: repository root.
        params_path: params.yaml.
        parameters: model -> number of parameters, for models of which no config is on this machine.
    """
    params = load_params(params_path)
    check_params(params)
    run = params.run
    os.environ.setdefault("OMP_NUM_THREADS", str(run.num_threads))
    start = _import_seconds()
    import torch

    torch.set_num_threads(run.num_threads)
    if run.device.startswith("cuda") and not torch.cuda.is_available():
        return Plan(
            costs={},
            unknown=[f"run.device={run.device!r}, but there is no GPU here: nothing can be measured. Run `detoxlens "
                     "plan` where the pipeline will run, or set run.device to cpu to see what it would take here."],
            notes=[], warnings=[],
        )  # fmt: skip
    from detoxlens.plan.measure import measure_speeds
    from detoxlens.plan.shapes import shape_of

    costs: dict[str, list[Cost]] = {}
    unknown: list[str] = []
    notes: list[str] = []
    for model in run.models:
        spec = params.model(model)
        found = shape_of(root, params, model, parameters.get(model))
        if found is None:
            unknown.append(
                f"{model}: {spec.source} has no config on this machine, so its size is not known; fetch it (`hf "
                f"download {spec.source} config.json`) or say it: --parameters {model}=2.8e9."
            )
            continue
        config, where = found
        lora = params.section("lora", LoraConfig, model=model)
        speeds = measure_speeds(config, _known(lora), device=run.device, dtype=spec.dtype)
        counts, told = count(root, params, model)
        sized = _shape(config, lora, dtype=spec.dtype, bits=int(spec.quantization[0]) if spec.quantization else None)
        costs[model] = model_costs(params, model, counts, speeds, sized, start)
        notes += [f"{model}: shape from {where}, {sized.num_parameters / 1e6:,.1f} M parameters. {told}"]
    load, cores = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0, num_cores()
    if load > cores:
        notes.append(f"The machine is busy (load {load:.1f} on {cores} cores): on a quiet one all of it takes less.")
    shared = _shared_costs(params, start)
    costs = {"all models": shared, **costs}
    return Plan(costs=costs, unknown=unknown, notes=notes, warnings=_warnings(costs, root, run.device))


def model_costs(
    params: Params, model: str, counts: Counts, speeds: forecast.Speeds, shape: Shape, start: float
) -> list[Cost]:
    """Every stage of one model, variants together."""
    run = params.run
    generation = params.section("generation", GenerationConfig, model=model)
    ppo = params.section("ppo", PpoConfig, model=model)
    is_tiny = params.model(model).source.startswith("tiny:")
    num_variants, num_rl = len(run.variants), len(run.rl_variants) + len(run.rl_after_ft_variants)
    batch = 64 if generation.batch_size == "auto" else generation.batch_size
    tiny = params.section("tiny", TinyConfig, model=model) if is_tiny else None
    scorers = params.section("toxicity", ToxicityConfig, model=model).scorers
    found = [forecast.base_cost(tiny, counts, speeds, shape, start)]
    if run.sft_variants:
        sft = params.section("sft", SftConfig, model=model)
        found.append(forecast.finetune_cost(sft, counts, speeds, shape, start, len(run.sft_variants)))
    if num_rl:
        found.append(forecast.rl_cost(ppo, generation, counts, speeds, shape, start, num_rl))
    return [
        *found,
        forecast.generate_cost(generation, counts, speeds, shape, start, num_variants, batch),
        forecast.score_cost(scorers, counts, speeds, shape, start, num_variants),
        forecast.attribute_cost(
            params.section("attribution", AttributionConfig, model=model), counts, speeds, shape, start, num_variants
        ),
    ]


def count(root: Path, params: Params, model: str) -> tuple[Counts, str]:
    """How much there is to do, from the prepared data and earlier outputs, else from params; and which of the two."""
    layout, spec = Layout(root), params.model(model)
    generation = params.section("generation", GenerationConfig, model=model)
    attribution = params.section("attribution", AttributionConfig, model=model)
    sft = params.section("sft", SftConfig, model=model)
    template = _template_tokens(spec.template)
    told = []
    if layout.prompts.exists():
        prompts = [p for p in read_rows(layout.prompts, Prompt) if p.split != "train"]
        num_prompts, chars = len(prompts), fmean(len(p.text) for p in prompts)
        drawn = [
            min(attribution.max_sequences, sum(name in p.filters and p.split == split for p in prompts))
            for name in attribution.filters
            for split in ("val", "test")
        ]
    else:
        splits = params.section("splits", SplitsConfig).by_name.values()
        num_prompts, chars = sum((s.max_val or 0) + (s.max_test or 1000) for s in splits), ASSUMED_PROMPT_CHARS
        drawn = [attribution.max_sequences] * len(attribution.filters)
        told.append("No prompts are prepared: their number is from params `splits`, at most.")
    if layout.dialogues.exists():
        train = [d.turns for d in read_rows(layout.dialogues, Dialogue) if d.split == "train"]
    else:
        train = [("x" * (ASSUMED_DIALOGUE_CHARS // 6),) * 6] * ASSUMED_DIALOGUES
        told.append("No dialogues are prepared: DialoCONAN's size is taken.")
    ends = [(turns, end) for turns in train for end in _ends(turns, prefixes=sft.examples == "prefixes")]
    example_tokens = fmean(
        min(sft.max_length, sum(map(len, turns[:end])) / CHARS_PER_TOKEN + template * end / 2) for turns, end in ends
    )
    generated, earlier = float(generation.max_new_tokens), layout.completions(model, "it")
    if earlier.exists() and (lengths := [len(c.completion_ids) for c in read_rows(earlier, Completion)]):
        generated = max(1.0, fmean(lengths))
        told.append(f"Completions are taken to be as long as those in outputs/, {generated:.0f} tokens.")
    else:
        told.append(f"Completions are taken to be as long as allowed, {generation.max_new_tokens} tokens: at most.")
    return (
        Counts(
            num_rows=num_prompts * generation.num_samples,
            prompt_tokens=chars / CHARS_PER_TOKEN + template,
            generated_tokens=generated,
            num_attributed=sum(drawn) * attribution.samples_per_prompt,
            num_examples=len(ends),
            example_tokens=example_tokens,
            base_example_tokens=BASE_EXAMPLE_TOKENS,
        ),
        " ".join(told),
    )


def _ends(turns: Sequence[str], *, prefixes: bool) -> Sequence[int]:
    return range(2, len(turns) + 1, 2) if prefixes else (len(turns),)


def _template_tokens(template: TemplateConfig) -> float:
    return len(template.user + template.bot) / CHARS_PER_TOKEN


def _shared_costs(params: Params, start: float) -> list[Cost]:
    """Stages that run once."""
    reward = params.section("reward_model", RewardModelConfig)
    seconds = start
    if reward.source.startswith("tiny:"):
        seconds += reward.tiny.num_steps * _reward_step_seconds(reward.tiny)
    return [
        Cost(stage="prepare", num_runs=1, hours=forecast.PREPARE_SECONDS / 3600, memory_gib=0),
        Cost(stage="reward_model", num_runs=1, hours=seconds / 3600, memory_gib=0),
        Cost(stage="report", num_runs=1, hours=(start + forecast.REPORT_SECONDS) / 3600, memory_gib=0),
    ]


def _reward_step_seconds(config: TinyConfig) -> float:
    """A training step of the embedded classifier."""
    import torch

    from detoxlens.models import tiny

    network = tiny.build("roberta", config, vocab_size=config.vocab_size)
    ids = torch.randint(4, config.vocab_size, (config.batch_size, REWARD_EXAMPLE_TOKENS))
    optimizer = torch.optim.AdamW(network.parameters())
    times = []
    for _ in range(8):
        started = time.perf_counter()
        network(input_ids=ids, labels=torch.zeros(config.batch_size, dtype=torch.long)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - started)
    return median(times)


def _import_seconds() -> float:
    """What a stage's process pays before it works; 0 where torch is loaded already."""
    started = time.perf_counter()
    for module in ("peft", "transformers.models.gpt_neox.modeling_gpt_neox"):
        importlib.import_module(module)
    return time.perf_counter() - started


def _known(lora: LoraConfig) -> LoraConfig:
    return lora.model_copy(update={"dropout": 0.0})


def _shape(config, lora: LoraConfig, *, dtype: str, bits: int | None) -> Shape:
    """Sizes from a model without memory."""
    from detoxlens.models.lora import add_adapter
    from detoxlens.plan.measure import build

    network = build(config, config.num_hidden_layers, device="meta", dtype=dtype)
    num_parameters = sum(p.numel() for p in network.parameters())
    adapted = add_adapter(network, lora)
    return Shape(
        num_parameters=num_parameters,
        num_adapter_parameters=sum(p.numel() for n, p in adapted.named_parameters() if "lora_" in n),
        hidden=config.hidden_size, num_layers=config.num_hidden_layers, vocab=config.vocab_size, dtype=dtype, bits=bits,
    )  # fmt: skip


def _warnings(costs: Mapping[str, Sequence[Cost]], root: Path, device: str) -> list[str]:
    every = [(model, cost) for model, found in costs.items() for cost in found]
    memory_gib, what = _memory_gib(device)
    free_gib = shutil.disk_usage(root).free / forecast.GIB
    disk_gib = sum(cost.disk_gib for _, cost in every)
    hours, calls = sum(cost.hours for _, cost in every), sum(cost.num_api_calls for _, cost in every)
    found = [
        f"{cost.stage} of {model} needs about {cost.memory_gib:.0f} GiB, and {what} has {memory_gib:.0f}: use a larger "
        "machine, quantization: 4bit, gradient_checkpointing, or smaller batches."
        for model, cost in every
        if cost.memory_gib > memory_gib
    ]
    if disk_gib > free_gib:
        found.append(f"About {disk_gib:.0f} GiB will be written, and {free_gib:.0f} GiB are free in {root}.")
    if hours > LONG_HOURS:
        unit = "a GPU" if device == "cpu" else "more GPUs"
        found.append(f"About {hours:,.0f} hours on this machine; {unit}, fewer prompts or fewer variants would help.")
    if calls:
        found.append(f"{calls:,} queries to remote services at one a second; the cache answers repeated texts.")
    return found


def _memory_gib(device: str) -> tuple[float, str]:
    if device.startswith("cuda"):
        import torch

        return torch.cuda.mem_get_info(device)[1] / forecast.GIB, "the GPU"
    return memory_gib() or math.inf, "this machine"


def show(found: Plan, console: Console, *, device: str) -> None:
    """The table, what it rests on, and what does not fit."""
    kind = "CPU" if device == "cpu" else "GPU"
    title = "Expected on this machine, within a factor of two; memory and disk in GiB"
    table = Table(title=title, title_justify="left", padding=(0, 0))
    for head in ("model", "stage"):
        table.add_column(head, no_wrap=True)
    for head in ("runs", "each", f"{kind}-hours", "memory", "disk", "calls"):
        table.add_column(head, justify="right", no_wrap=True)
    every = [(model, cost) for model, costs in found.costs.items() for cost in costs]
    for model, cost in every:
        seconds = cost.hours * 3600
        table.add_row(
            model, cost.stage, str(cost.num_runs), duration(seconds / cost.num_runs), _hours(cost.hours),
            _gib(cost.memory_gib), _gib(cost.disk_gib), f"{cost.num_api_calls or ''}",
        )  # fmt: skip
    hours = sum(cost.hours for _, cost in every)
    table.add_section()
    table.add_row(
        "together", "", "", duration(hours * 3600), _hours(hours),
        _gib(max((cost.memory_gib for _, cost in every), default=0)), _gib(sum(cost.disk_gib for _, cost in every)),
        f"{sum(cost.num_api_calls for _, cost in every) or ''}",
    )  # fmt: skip
    if every:
        console.print(table)
    for line in found.notes:
        console.print(line)
    for line in found.unknown:
        console.print(f"[yellow]Unknown:[/] {line}")
    for line in found.warnings:
        console.print(f"[red]Beware:[/] {line}")


def _hours(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def _gib(value: float) -> str:
    return "" if value == 0 else "< 0.1" if value < 0.05 else f"{value:.1f}"
