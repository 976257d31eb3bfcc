"""`detoxlens plan`: reads params and what data there is, measures this machine, and forecasts stage by stage."""

from __future__ import annotations

import dataclasses
import importlib
import math
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from detoxlens.common.artifacts import Layout
from detoxlens.common.errors import UserError, did_you_mean
from detoxlens.common.machine import memory_gib, num_cores
from detoxlens.models.footprint import GIB, Footprint, Weights, heap_of
from detoxlens.params.attribution import AttributionConfig
from detoxlens.params.check import check_params
from detoxlens.params.generation import GenerationConfig
from detoxlens.params.interpolate import InterpolateConfig
from detoxlens.params.kinds import KINDS
from detoxlens.params.load import Params, load_params
from detoxlens.params.lora import LoraConfig
from detoxlens.params.ppo import PpoConfig
from detoxlens.params.preference import PreferenceConfig
from detoxlens.params.reads import MEASURE, TRAINING
from detoxlens.params.reward_model import RewardModelConfig
from detoxlens.params.sft import SftConfig
from detoxlens.params.steering import SteeringConfig
from detoxlens.params.tiny import TinyConfig
from detoxlens.params.toxic_words import ToxicWordsConfig
from detoxlens.params.toxicity import ToxicityConfig
from detoxlens.plan import forecast
from detoxlens.plan.counts import Counts, count, generated_tokens, read_data
from detoxlens.plan.forecast import Cost, Judge
from detoxlens.plan.inherited import CHOSEN, inherited

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from detoxlens.plan.measure import Speeds

ALL_MODELS = "all models"
"""What stages that run once are filed under."""
REWARD_EXAMPLE_TOKENS = 32
"""Of the embedded classifier's, with its padding."""
LONG_HOURS = 48.0
WORTHWHILE = 1.2
"""Times as fast, from which on it is said."""
LESS_MEMORY = {
    "finetune": "sft.gradient_checkpointing, quantization: 4bit, or a smaller sft.batch_size",
    "rl": "ppo.gradient_checkpointing, quantization: 4bit, or a smaller ppo.micro_batch_size",
    "preference": "preference.gradient_checkpointing, quantization: 4bit, or a smaller preference.batch_size",
    "attribute": "quantization: 4bit, or, since they load a second model, attribution.precision_check: 0 and "
    "attribution.faithfulness.num_sequences: 0",
}
"""Stage -> what makes it smaller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The forecast of the whole pipeline."""

    costs: Mapping[str, Sequence[Cost]]
    """Per model, one of each stage and variant."""
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

    Raises:
        UserError: params are not valid, or `parameters` names a model that they do not.
    """
    params = load_params(params_path)
    check_params(params)
    run = params.run
    for model in parameters:
        if model not in run.models:
            raise UserError(
                f"--parameters {model}=...: run.models has no {model!r}.{did_you_mean(model, run.models)} It has "
                f"{', '.join(run.models)}."
            )
    os.environ.setdefault("OMP_NUM_THREADS", str(run.num_threads))
    start = _import_seconds()
    import torch

    torch.set_num_threads(run.num_threads)
    if run.device.startswith("cuda") and not torch.cuda.is_available():
        return Plan(
            costs={},
            unknown=[
                f"run.device={run.device!r}, but there is no GPU here: nothing can be measured. Run `detoxlens "
                "plan` where the pipeline will run, or set run.device to cpu to see what it would take here."
            ],
            notes=[],
            warnings=[],
        )
    from detoxlens.plan.configs import config_of
    from detoxlens.plan.measure import measure_speeds

    data = read_data(Layout(root))
    costs: dict[str, Sequence[Cost]] = {ALL_MODELS: _shared_costs(params, start)}
    unknown: list[str] = []
    warnings: list[str] = []
    notes = data.notes()
    for model in run.models:
        spec = params.model(model)
        found = config_of(root, params, model, parameters.get(model))
        if found is None:
            unknown.append(
                f"{model}: {spec.source} has no config on this machine, so its size is not known; fetch it (`hf "
                f"download {spec.source} config.json`) or say it: --parameters {model}=2.8e9."
            )
            continue
        config, where = found
        speeds = measure_speeds(config, _lora(params, model), device=run.device, dtype=spec.dtype)
        earlier = {variant: generated_tokens(Layout(root), model, variant) for variant in run.variants}
        counts = {v: count(data, params, model, v, earlier_tokens=earlier[v]) for v in run.variants}
        footprints = footprints_of(config, params, model)
        costs[model] = model_costs(params, model, counts, speeds, footprints, start)
        if faster := _autocast_note(params, model, speeds):
            notes.append(faster)
        size = f"{footprints['it'].weights.num_parameters / 1e6:,.1f} M parameters"
        notes.append(f"{model}: shape from {where}, {size}. {_lengths_note(counts, earlier)}")
        if chosen := inherited(params, model, footprints["it"].weights.num_parameters):
            warnings.append(chosen)
    load, cores = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0, num_cores()
    if load > cores:
        notes.append(f"The machine is busy (load {load:.1f} on {cores} cores): on a quiet one all of it takes less.")
    return Plan(costs=costs, unknown=unknown, notes=notes, warnings=[*warnings, *_warnings(costs, root, params)])


def model_costs(
    params: Params,
    model: str,
    counts: Mapping[str, Counts],
    speeds: forecast.Speeds,
    footprints: Mapping[str, Footprint],
    start: float,
) -> list[Cost]:
    """Every stage of one model, each variant by its own settings."""
    run = params.run
    is_tiny = params.model(model).source.startswith("tiny:")
    tiny = params.section("tiny", TinyConfig, model=model) if is_tiny else None

    def of_variant(stage: str, variant: str) -> Cost:
        about = counts[variant], speeds, footprints[variant], start
        generation = params.section("generation", GenerationConfig, model=model, variant=variant)
        if stage == "finetune":
            return forecast.finetune_cost(params.section("sft", SftConfig, model=model, variant=variant), *about)
        if stage == "rejection":
            sft = params.section("sft", SftConfig, model=model, variant=variant)
            return forecast.rejection_cost(sft, _judges(params)[0], *about)
        if stage == "rl":
            ppo = params.section("ppo", PpoConfig, model=model, variant=variant)
            return forecast.rl_cost(ppo, params.variant(variant).algorithm, generation, _judges(params), *about)
        if stage == "preference":
            preference = params.section("preference", PreferenceConfig, model=model, variant=variant)
            algorithm, (reward, _) = params.variant(variant).algorithm, _judges(params)
            return forecast.preference_cost(preference, algorithm, generation, reward, *about)
        if stage == "intervene":
            steering = params.section("steering", SteeringConfig, model=model, variant=variant)
            num_read = 2 * steering.max_replies if params.variant(variant).kind == "steering" else 0
            return forecast.intervene_cost(num_read, *about)
        if stage == "generate":
            return _repeated(forecast.generate_cost(generation, *about), num_passes(params, variant))
        if stage == "score":
            toxicity = params.section("toxicity", ToxicityConfig, model=model, variant=variant)
            words = params.section("toxic_words", ToxicWordsConfig, model=model, variant=variant)
            located_by = words.located_by(toxicity.headline)
            scorers = [_judge(params, name) for name in toxicity.scorers]
            return forecast.score_cost(scorers, located_by and _judge(params, located_by), *about)
        attribution = params.section("attribution", AttributionConfig, model=model, variant=variant)
        if stage == "interpolate":
            config = params.section("interpolate", InterpolateConfig, model=model, variant=variant)
            headline = params.section("toxicity", ToxicityConfig, model=model, variant=variant).headline
            return forecast.interpolate_cost(config, generation, attribution, _judge(params, headline), *about)
        return _repeated(forecast.attribute_cost(attribution, *about), num_passes(params, variant))

    trained = {
        stage: [variant for variant in run.variants if params.stage_of(variant) == stage]
        for stage in TRAINING
        if stage != "base"
    }
    chosen = trained | dict.fromkeys(MEASURE, run.variants) | {"interpolate": run.interpolated_variants}
    return [
        forecast.base_cost(tiny, counts["it"], speeds, footprints["it"], start),
        *(
            dataclasses.replace(of_variant(stage, variant), variant=variant)
            for stage, of in chosen.items()
            for variant in of
        ),
    ]


def num_passes(params: Params, variant: str) -> int:
    """Passes over the backbone per token: one, and one more for each adapter that is combined with the base model."""
    combines = bool(KINDS[params.variant(variant).kind].made_of)
    return 1 + len(params.made_of(variant)) if combines else 1


def _repeated(cost: Cost, times: int) -> Cost:
    return dataclasses.replace(cost, seconds=times * cost.seconds)


def _judges(params: Params) -> tuple[Judge, Judge]:
    """Reward model and headline scorer; an embedded reward model is named as in params."""
    source = params.section("reward_model", RewardModelConfig).source
    headline = params.section("toxicity", ToxicityConfig).headline  # as stage rl reads it: without overrides
    return _judge(params, source if source.startswith("tiny:") else f"hf:{source}"), _judge(params, headline)


def _judge(params: Params, name: str) -> Judge:
    """With its size, where its weights lie in a folder here."""
    folder = name.removeprefix("hf:").partition("#")[0]
    weights = Path(params.path).parent / folder / "model.safetensors"
    return Judge(name, weights.stat().st_size / 4) if weights.is_file() else Judge(name)


def _autocast_note(params: Params, model: str, speeds: Speeds) -> str | None:
    """How much faster training passes were with products in bfloat16, and the keys for it; None if not by a fifth."""
    ratio = speeds.train_lora / speeds.train_lora_autocast
    kinds = {params.variant(variant).kind for variant in params.run.variants}
    without = [
        f"models.{model}.overrides.{section}.autocast"
        for kind, (section, config, *_) in CHOSEN.items()
        if kind in kinds and params.section(section, config, model=model).autocast is None
    ]
    if ratio < WORTHWHILE or not without or params.model(model).dtype != "float32":
        return None
    return (
        f"{model}: with products in bfloat16 a training pass was {ratio:.1f} times as fast here; {', '.join(without)}: "
        "bfloat16 turns that on, and changes numbers a little."
    )


def _lengths_note(counts: Mapping[str, Counts], earlier: Mapping[str, float | None]) -> str:
    lengths = sorted({round(c.generated_tokens) for c in counts.values()})
    tokens = f"{lengths[0]}-{lengths[-1]} tokens" if len(lengths) > 1 else f"{lengths[0]} tokens"
    if None in earlier.values():
        return f"Completions are taken to be as long as allowed, {tokens}: at most."
    return f"Completions are taken to be as long as those in outputs/, {tokens}."


def _shared_costs(params: Params, start: float) -> list[Cost]:
    """Stages that run once."""
    reward = params.section("reward_model", RewardModelConfig)
    seconds = start
    if reward.source.startswith("tiny:"):
        seconds += reward.tiny.num_steps * _reward_step_seconds(reward.tiny)
    return [
        Cost(stage="prepare", seconds=forecast.PREPARE_SECONDS),
        Cost(stage="reward_model", seconds=seconds),
        Cost(stage="report", seconds=start + forecast.REPORT_SECONDS),
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


def _lora(params: Params, model: str, variant: str | None = None) -> LoraConfig:
    """Without dropout, which costs nothing to speak of."""
    return params.section("lora", LoraConfig, model=model, variant=variant).model_copy(update={"dropout": 0.0})


def footprints_of(config: PretrainedConfig, params: Params, model: str) -> dict[str, Footprint]:
    """Variant -> sizes, from models without memory."""
    from detoxlens.models.lora import add_adapter
    from detoxlens.plan.measure import build

    spec, depth = params.model(model), config.num_hidden_layers
    network = build(config, depth, device="meta", dtype=spec.dtype)
    outer = (network.get_input_embeddings().weight, network.get_output_embeddings().weight)  # one where they are tied
    weights = Weights(
        num_parameters=sum(p.numel() for p in network.parameters()),
        num_embedding=sum(p.numel() for p in {id(p): p for p in outer}.values()),
    )

    def adapter_parameters(variant: str) -> int:
        adapted = add_adapter(build(config, depth, device="meta", dtype=spec.dtype), _lora(params, model, variant))
        return sum(p.numel() for name, p in adapted.named_parameters() if "lora_" in name)

    return {
        variant: Footprint(
            weights=weights,
            num_adapter_parameters=adapter_parameters(variant),
            hidden=config.hidden_size,
            num_layers=depth,
            vocab=config.vocab_size,
            dtype=spec.dtype,
            quantization=spec.quantization,
            heap=heap_of(params.run.device),
        )
        for variant in params.run.variants
    }


def _warnings(costs: Mapping[str, Sequence[Cost]], root: Path, params: Params) -> list[str]:
    every = [(model, cost) for model, found in costs.items() for cost in found]
    device = params.run.device
    found = []
    for model, cost in every:
        spread = model != ALL_MODELS and params.model(model).device_map is not None
        memory, owner = _memory_gib(device, spread=spread)
        if cost.memory_gib > memory:
            of = f"{model}/{cost.variant}" if cost.variant else model
            found.append(
                f"{cost.stage} of {of} needs about {cost.memory_gib:.0f} GiB, and {owner} {memory:.0f}: use a larger "
                f"machine, {LESS_MEMORY.get(cost.stage, 'quantization: 4bit, or smaller batches')}."
            )
    free_gib = shutil.disk_usage(root).free / GIB
    disk_gib, calls = sum(cost.disk_gib for _, cost in every), sum(cost.num_api_calls for _, cost in every)
    hours = sum(cost.seconds for _, cost in every) / 3600
    if disk_gib > free_gib:
        found.append(f"About {disk_gib:.0f} GiB will be written, and {free_gib:.0f} GiB are free in {root}.")
    if hours > LONG_HOURS:
        unit = "a GPU" if device == "cpu" else "more GPUs"
        found.append(f"About {hours:,.0f} hours on this machine; {unit}, fewer prompts or fewer variants would help.")
    if calls:
        found.append(f"{calls:,} queries to remote services at one a second; the cache answers repeated texts.")
    return found


def _memory_gib(device: str, *, spread: bool) -> tuple[float, str]:
    """What there is, and who has it: all cards together for a model that `device_map: auto` spreads over them."""
    if device.startswith("cuda"):
        import torch

        if spread and (num := torch.cuda.device_count()) > 1:
            return sum(torch.cuda.mem_get_info(i)[1] for i in range(num)) / GIB, f"the {num} GPUs have together"
        return torch.cuda.mem_get_info(device)[1] / GIB, "the GPU has"
    return memory_gib() or math.inf, "this machine has"
