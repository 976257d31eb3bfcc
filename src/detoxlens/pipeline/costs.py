"""What the stage `score` measures of a variant's costs: the kind of each reply, reference replies, cost at inference.

Each is quick beside sampling; what needs the networks is kept as one result, so that a killed run does it once.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from detoxlens.common.artifacts import Layout, read_json, read_model_ref, read_rows, write_rows, write_table
from detoxlens.common.columns import Table
from detoxlens.common.names import BASE
from detoxlens.common.records import Completion, InferenceCost, Prompt, ResponseKind, Utility
from detoxlens.data.templates import encode_prompt, encode_reply
from detoxlens.evaluation.counter_speech import CounterSpeech
from detoxlens.evaluation.response_kind import kind_of
from detoxlens.jobs.scratch import Scratch
from detoxlens.models.capabilities import examine
from detoxlens.models.inference_cost import forward_flops, weights_bytes
from detoxlens.models.loading import load_model, load_tokenizer
from detoxlens.models.reference_replies import reply_bits
from detoxlens.params.load import Params
from detoxlens.pipeline.measures import gathered

if TYPE_CHECKING:
    import pyarrow as pa
    from transformers import PreTrainedModel

BATCH_SIZE = 16
log = logging.getLogger(__name__)


def inputs_of_costs(layout: Layout, model: str, variant: str) -> list[Path]:
    """What `write_costs` reads beside completions and base, as far as it is there: completions made elsewhere come
    without an adapter."""
    paths = (layout.adapter(model, variant), layout.prompts, layout.counter_speech)
    return [path for path in paths if path.exists()]


def write_costs(
    layout: Layout,
    params: Params,
    model: str,
    variant: str,
    completions: Table[Completion],
    base: Callable[[], PreTrainedModel],
    scratch: Scratch,
) -> None:
    """Writes response_kinds, utility and inference_cost; each without rows where what it needs is not there.

    Args:
        layout: of the project.
        params: all of them.
        model: model key.
        variant: variant key.
        completions: the variant's.
        base: gives the network of `it`, loaded when it is asked for.
        scratch: where the result is kept until the stage is done.
    """
    write_table(layout.response_kinds(model, variant), response_kinds(layout, completions))
    asked = with_reference(layout, completions)
    found = scratch.once("costs", lambda: _measured(layout, params, model, variant, asked, base)) if asked else {}
    write_rows(layout.utility(model, variant), [Utility(**row) for row in found.get("utility", [])], Utility)
    rows = [InferenceCost(**row) for row in found.get("inference", [])]
    write_rows(layout.inference_cost(model, variant), rows, InferenceCost)


def response_kinds(layout: Layout, completions: Table[Completion]) -> pa.Table:
    """One row per completion; none without a classifier."""
    if not layout.counter_speech.exists():
        return gathered((), ResponseKind)
    classifier = CounterSpeech(**read_json(layout.counter_speech))
    version = classifier.version

    def rows() -> Iterator[dict[str, object]]:
        for prompt_id, sample_index, text in completions.values("prompt_id", "sample_index", "completion"):
            kind, prob = kind_of(text, classifier) or ("empty", None)
            yield {
                "prompt_id": prompt_id,
                "sample_index": sample_index,
                "kind": kind,
                "counter_speech_prob": prob,
                "grader_version": version,
            }

    return gathered(enumerate(rows()), ResponseKind)


def with_reference(layout: Layout, completions: Table[Completion]) -> list[tuple[Completion, str]]:
    """The test prompts that have a reference reply, as the variant was given them, each with its reply."""
    if not layout.prompts.exists():
        return []
    reply = {p.prompt_id: p.reference for p in read_rows(layout.prompts, Prompt) if p.reference}
    prompts = completions.column("prompt_id")
    has_reply = np.array([prompt in reply for prompt in prompts.names], dtype=bool)[prompts.codes]
    first = has_reply & completions.column("split").equals("test") & (completions.column("sample_index") == 0)
    return [(c, reply[c.prompt_id]) for c in completions.where(first) if c.prompt_ids]


def _measured(
    layout: Layout,
    params: Params,
    model: str,
    variant: str,
    asked: Sequence[tuple[Completion, str]],
    base: Callable[[], PreTrainedModel],
) -> dict[str, list[dict[str, object]]]:
    """{"utility": rows, "inference": [row]} as JSON keeps them."""
    spec, ref = params.model(model), read_model_ref(layout.adapter(model, variant))
    tokenizer = load_tokenizer(layout.root, ref, trust_remote_code=spec.trust_remote_code)
    replies = [encode_reply(tokenizer, spec.template, c.prompt, reply) for c, reply in asked]
    theirs = [encode_prompt(tokenizer, spec.template, [c.prompt], evaluation=True).ids for c, _ in asked]
    ours = [c.prompt_ids for c, _ in asked]
    released, is_base = base(), ref == read_model_ref(layout.adapter(model, BASE))
    network = released if is_base else load_model(layout.root, ref, spec, device=str(released.device))
    pad = tokenizer.pad_token_id
    selects = tuple(examine(net, pad_token_id=pad, name=ref.base).head_selects for net in (network, released))
    bits = reply_bits(network, released, ours, theirs, replies, batch_size=BATCH_SIZE, heads_select=selects)
    num_tokens = len(theirs[0]) + len(replies[0])
    cost = InferenceCost(
        extra_weights_bytes=weights_bytes(network) - weights_bytes(released),
        flops_per_token=forward_flops(network, [*ours[0], *replies[0]]) / num_tokens,
        base_flops_per_token=forward_flops(released, [*theirs[0], *replies[0]]) / num_tokens,
        extra_prompt_tokens=sum(len(a) - len(b) for a, b in zip(ours, theirs, strict=True)) / len(ours),
    )
    log.info("%s/%s: %d reference replies", model, variant, len(asked))
    return {
        "utility": [
            dataclasses.asdict(Utility(prompt_id=c.prompt_id, num_tokens=len(r), nll_bits=nll, kl_to_base_bits=kl))
            for (c, _), r, (nll, kl) in zip(asked, replies, bits, strict=True)
        ],
        "inference": [dataclasses.asdict(cost)],
    }
