"""`attribute`: how much each prompt token, and each token generated before, mattered to each generated token.

    scores[t][j] = || g_tj ||_2 / sum_i || g_ti ||_2,    j over the prompt and the t tokens generated before,

with e the input embeddings, f_t the target (`targets.py`) and

    input_x_gradient      g_tj = e_j * d f_t / d e_j
    saliency              g_tj = d f_t / d e_j
    integrated_gradients  g_tj = (e_j - b_j) * mean over the path b -> e of d f_t / d e_j

Sundararajan et al. 2017 (arXiv 1703.01365) for the last, with Gauss-Legendre nodes. Reference for all three: Inseq's
`attribute(...).aggregate()`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import nn

from detoxlens.attribution import METHODS
from detoxlens.attribution.engine import GradientEngine, InseqEngine, Job, Learnt
from detoxlens.attribution.gradients import differentiable
from detoxlens.attribution.occlusion import OcclusionEngine
from detoxlens.attribution.plan import PassCost, by_length, group_sequences
from detoxlens.attribution.result import SequenceAttribution
from detoxlens.attribution.targets import TARGETS
from detoxlens.common.errors import UserError, did_you_mean

ENGINES = {"gradient": GradientEngine, "occlusion": OcclusionEngine, "inseq": InseqEngine}
"""By the backend's name in `METHODS`."""


def attribute(
    model: nn.Module,
    *,
    prompt_ids: Sequence[Sequence[int]],
    completion_ids: Sequence[Sequence[int]],
    method: str = "input_x_gradient",
    target: str = "probability",
    contrast_ids: Sequence[Sequence[int]] | None = None,
    batch_size: int | Literal["auto"] = "auto",
    memory_mib: int | None = None,
    num_path_steps: int = 50,
    baseline_id: int | None = None,
    names: Sequence[str] | None = None,
    on_batch: Callable[[list[tuple[int, SequenceAttribution]]], None] | None = None,
    learnt: Learnt | None = None,
) -> list[SequenceAttribution]:
    """Attributes every generated token of every sequence, in the order given.

    Args:
        model: Any Hugging Face causal language model, or a `PeftModel` around one.
        prompt_ids: Token ids of each prompt, at least one token each.
        completion_ids: Token ids of each completion; an empty one gives a row with status `empty`.
        method: A key of `METHODS`. Those of the backend `inseq` run Inseq's own implementation, token by token.
        target: `probability`, `log_probability` or `contrastive`, see `targets.py`.
        contrast_ids: For `contrastive`, a token per generated token to tell it from (`runner_up_ids` makes them).
        batch_size: Sequences per pass; `auto` fills `memory_mib`. It changes scores by rounding only (1e-6).
        memory_mib: What the live gradients of one pass may take. None is 16 MiB on a CPU (what its caches serve
            best, and a fixed number keeps the bytes of the result fixed) and half of what is free on an accelerator.
        num_path_steps: Points of integrated gradients' path.
        baseline_id: Token that stands for "nothing here": its embedding is integrated gradients' baseline, and
            occlusion puts it in a token's place. None is the model's end-of-sequence token, or the zero vector where
            it has none.
        names: What messages call each sequence; None is its number.
        on_batch: Called after each pass with the (index, result) pairs it finished, in the order of the plan.
        learnt: Of earlier calls on the same model and method, and changed by this one; it changes no score.

    Raises:
        UserError: an unknown method or target, an empty prompt, a token outside the vocabulary, or a model whose
            attention cannot be differentiated; the message names the sequence.
    """
    _check_settings(model, method, target, contrast_ids, baseline_id, num_path_steps)
    if len(prompt_ids) != len(completion_ids):
        raise UserError(f"{len(prompt_ids)} prompts but {len(completion_ids)} completions; give one of each.")
    contrasts = [None] * len(prompt_ids) if contrast_ids is None else map(tuple, contrast_ids)
    sequences = list(map(Job, map(tuple, prompt_ids), map(tuple, completion_ids), contrasts))
    for i, sequence in enumerate(sequences):
        name = f"sequence {i}" if names is None else names[i]
        _check_sequence(name, sequence, model.get_input_embeddings().weight.shape[0])
    results: dict[int, SequenceAttribution] = {}
    with differentiable(model) as prepared:
        make = ENGINES[METHODS[method]]
        if baseline_id is None:
            baseline_id = _eos_id(prepared.model)
        engine = make(prepared, method, target, num_path_steps, baseline_id, learnt or Learnt())
        pending = []
        for i, sequence in enumerate(sequences):
            if status := engine.refusal(sequence):
                results[i] = engine.null(sequence, status)
            else:
                pending.append(i)
        if results and on_batch:
            on_batch(sorted(results.items()))
        lengths = [(len(sequences[i].prompt), len(sequences[i].completion)) for i in pending]
        groups = plan_batches(model, lengths, batch_size=batch_size, memory_mib=memory_mib)
        for group in groups:
            members = [pending[k] for k in group]
            batch = list(zip(members, engine.run([sequences[i] for i in members]), strict=True))
            results.update(batch)
            if on_batch:
                on_batch(batch)
    return [results[i] for i in range(len(sequences))]


def plan_batches(
    model: nn.Module,
    lengths: Sequence[tuple[int, int]],
    *,
    batch_size: int | Literal["auto"],
    memory_mib: int | None,
) -> list[list[int]]:
    """Which sequences, given by their (prompt, completion) lengths, `attribute` puts into one pass; see there.

    The scores' last bits depend on it: a run that is to be continued keeps its plan.
    """
    if batch_size == "auto":
        return group_sequences(lengths, cost=pass_cost(model), memory_bytes=_memory_bytes(model, memory_mib))
    if batch_size < 1:
        raise UserError(f"batch_size={batch_size}: give 1 or more sequences per pass, or 'auto'.")
    order = by_length(lengths)
    return [order[k : k + batch_size] for k in range(0, len(order), batch_size)]


def runner_up_ids(
    model: nn.Module, *, prompt_ids: Sequence[Sequence[int]], completion_ids: Sequence[Sequence[int]]
) -> list[tuple[int, ...]]:
    """For each generated token, `model`'s likeliest *other* token at that step: the `contrast_ids` of another model's
    choice (pass the other model), or of the runner-up (pass the same)."""
    chosen = []
    device = next(model.parameters()).device
    for prompt, completion in zip(prompt_ids, completion_ids, strict=True):
        ids = torch.tensor([[*prompt, *completion]], device=device)
        with torch.no_grad():
            logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
        others = logits.scatter(-1, ids[0, len(prompt) :, None], -torch.inf)
        chosen.append(tuple(others.argmax(-1).tolist()))
    return chosen


def pass_cost(model: nn.Module) -> PassCost:
    """What the batch plan needs to know of a model."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = inner.config.get_text_config(decoder=True)
    hidden = config.hidden_size
    wide = [getattr(config, name, None) for name in ("intermediate_size", "ffn_hidden_size", "ffn_dim", "n_inner")]
    return PassCost(
        hidden=hidden,
        intermediate=next((w for w in wide if w), 4 * hidden),
        num_heads=config.num_attention_heads,
        bytes_per_element=next(model.parameters()).element_size(),
    )


def _memory_bytes(model: nn.Module, memory_mib: int | None) -> int:
    if memory_mib is not None:
        return memory_mib * 2**20
    device = next(model.parameters()).device
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // 2
    return 16 * 2**20


def _eos_id(model: nn.Module) -> int | None:
    ids = model.config.get_text_config(decoder=True).eos_token_id
    return ids[0] if isinstance(ids, list) else ids


def _check_settings(model, method, target, contrast_ids, baseline_id, num_path_steps) -> None:
    if method not in METHODS:
        raise UserError(
            f"method={method!r} is not known.{did_you_mean(method, METHODS)} Allowed: {', '.join(METHODS)}."
        )
    if target not in TARGETS:
        raise UserError(
            f"target={target!r} is not known.{did_you_mean(target, TARGETS)} Allowed: {', '.join(TARGETS)}."
        )
    if (target == "contrastive") != (contrast_ids is not None):
        raise UserError(f"target={target!r}: contrast_ids go with target='contrastive', and only with it.")
    if num_path_steps < 1:
        raise UserError(f"num_path_steps={num_path_steps}: integrated gradients need at least 1.")
    vocabulary = model.get_input_embeddings().weight.shape[0]
    if baseline_id is not None and not 0 <= baseline_id < vocabulary:
        raise UserError(f"baseline_id={baseline_id} is outside the vocabulary 0..{vocabulary - 1}.")


def _check_sequence(name: str, sequence: Job, vocabulary: int) -> None:
    if not sequence.prompt:
        raise UserError(f"{name}: the prompt is empty; the first generated token would follow nothing.")
    contrast = sequence.contrast or ()
    for what, ids in (("prompt", sequence.prompt), ("completion", sequence.completion), ("contrast", contrast)):
        if bad := [(at, t) for at, t in enumerate(ids) if not 0 <= t < vocabulary]:
            at, t = bad[0]
            raise UserError(
                f"{name}: {what} token {at} is {t}, outside the vocabulary 0..{vocabulary - 1}; "
                "were these ids made by this model's tokenizer?"
            )
    if sequence.contrast is not None and len(contrast) != len(sequence.completion):
        raise UserError(f"{name}: {len(contrast)} contrast tokens for {len(sequence.completion)} generated tokens.")
