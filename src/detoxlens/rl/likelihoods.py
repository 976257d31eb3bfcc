"""Log-probabilities of responses under the policy and the reference, and values, from one shared backbone.

Which distribution? A response is sampled under a temperature and a truncation (top-k, top-p, minimum length, n-gram
blocking), so that is the policy that PPO improves: its log-probabilities are those of softmax(logits / T) over the
tokens that the truncation kept *when the response was sampled*. This support is stored, one bit per token of the
vocabulary, and reused while the policy changes: were it recomputed, a sampled token could drop out of it and its
probability ratio jump to 0.

    softmax(logits / T)     .6  .25  .1  .05       kept by top-p .8:   1   1   0   0
    sampled distribution    .706 .294  0   0

The KL penalty, the KL that is logged, and the entropy are those of softmax(logits / T) over the whole vocabulary. On
the support alone, a policy that puts all its mass on one token would have KL 0: a hole for reward hacking.

Logits exist for the response's positions of one micro batch only; of what has a vocabulary axis, only the bits stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from detoxlens.models.end_tokens import EndTokens
from detoxlens.models.forward import logits_at
from detoxlens.models.truncation import NO_TOKEN, process_logits
from detoxlens.models.value_head import ValueHead
from detoxlens.params.generation import GenerationConfig
from detoxlens.params.section import Autocast
from detoxlens.rl.losses import entropy_nats, kl_nats
from detoxlens.rl.rollout import Response


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What the policy and the reference make of a batch of responses; (batch, time), zero in the padding."""

    mask: Bool[Tensor, "batch time"]
    """True on the response's tokens, end of sequence included: [1, 1, 1, 0]."""
    logprobs: Float[Tensor, "batch time"]
    """Of the sampled token under the sampling distribution, nats: the denominator of PPO's ratio."""
    policy_logprobs: Float[Tensor, "batch time"]
    """Of the sampled token under softmax(logits / T), nats; without truncation equal to `logprobs`."""
    ref_logprobs: Float[Tensor, "batch time"]
    """The same under the reference, for the KL penalty."""
    values: Float[Tensor, "batch time"]
    kl: Float[Tensor, "batch time"]
    """Exact KL(policy || reference) of the next-token distributions, nats."""
    entropy: Float[Tensor, "batch time"]
    """Of the policy's next-token distribution, nats."""
    base_nll: Float[Tensor, "batch time"]
    """-log p of the sampled token under the reference at temperature 1, nats."""
    supports: list[Tensor] | None
    """Per response (tokens, ceil(vocab / 8)) uint8: the packed support; None if nothing is ever excluded."""

    @property
    def kl_nats_per_token(self) -> float:
        return (self.kl.sum() / self.mask.sum()).item()

    @property
    def kl_nats_per_sequence(self) -> float:
        return (self.kl.sum() / len(self.mask)).item()

    @property
    def base_perplexity(self) -> float:
        """exp(mean nats per token) of the responses under the reference at temperature 1, >= 1."""
        return torch.exp(self.base_nll.sum() / self.mask.sum()).item()


def length_sorted(responses: Sequence[Response], rows: Sequence[int], size: int) -> list[list[int]]:
    """`rows` in micro batches of at most `size` with similar total lengths, so that little is padding."""
    order = sorted(rows, key=lambda i: (len(responses[i].prompt_ids) + len(responses[i].token_ids), i))
    return [order[i : i + size] for i in range(0, len(order), size)]


def response_logits(
    model: PreTrainedModel | PeftModel,
    responses: Sequence[Response],
    value_head: ValueHead | None,
    *,
    value_gradient_to_backbone: bool = True,
    autocast: Autocast = None,
) -> tuple[Float[Tensor, "tokens vocab"], Float[Tensor, " tokens"] | None]:
    """Next-token logits (float32) and values at the positions that predict the responses' tokens, response by response.

    Rows are right padded: behind a causal mask no token sees the padding, so no attention mask is needed.

        ids        p1  p2  y1  EOS PAD
        predicts    0   1   1   0   0     position t predicts token t + 1
    """
    rows = [(*r.prompt_ids, *r.token_ids) for r in responses]
    spans = [(len(r.prompt_ids) - 1, len(row) - 1) for r, row in zip(responses, rows, strict=True)]
    logits, hidden = logits_at(model, rows, spans, autocast=autocast)
    if value_head is None:
        return logits.float(), None
    return logits.float(), value_head(hidden if value_gradient_to_backbone else hidden.detach())


def token_logprobs(
    logits: Float[Tensor, "tokens vocab"],
    tokens: Int[Tensor, " tokens"],
    *,
    temperature: float,
    support: Bool[Tensor, "tokens vocab"] | None,
) -> Float[Tensor, " tokens"]:
    """log p of each token under softmax(logits / temperature) over `support` (None: the whole vocabulary), nats."""
    scaled = logits / temperature if temperature != 1 else logits
    if support is not None:
        scaled = scaled.masked_fill(~support, -torch.inf)
    return scaled.gather(1, tokens[:, None]).squeeze(1) - scaled.logsumexp(dim=1)


def sampling_support(
    logits: Float[Tensor, "tokens vocab"],
    responses: Sequence[Response],
    config: GenerationConfig,
    eos_token_id: EndTokens,
) -> Bool[Tensor, "tokens vocab"]:
    """Which tokens the truncation kept at each step of the responses.

    The sampled token always counts as kept: at a tie within rounding, the cached decoder may have seen it just inside.
    """
    prefixes = [(*r.prompt_ids, *r.token_ids[:t]) for r in responses for t in range(len(r.token_ids))]
    num_generated = torch.tensor([t for r in responses for t in range(len(r.token_ids))], device=logits.device)
    prefix_ids = None
    if config.no_repeat_ngram_size:
        width = max(map(len, prefixes))
        prefix_ids = torch.tensor([[*[NO_TOKEN] * (width - len(p)), *p] for p in prefixes], device=logits.device)
    processed = process_logits(
        logits, config, num_generated=num_generated, eos_token_id=eos_token_id, prefix_ids=prefix_ids
    )
    return (processed > -torch.inf).scatter(1, response_tokens(responses, logits.device)[:, None], True)


def truncates(config: GenerationConfig) -> bool:
    """Does decoding ever exclude a token?"""
    return bool(config.top_k or config.top_p < 1 or config.min_new_tokens or config.no_repeat_ngram_size)


def response_tokens(responses: Sequence[Response], device: torch.device) -> Int[Tensor, " tokens"]:
    """The generated tokens of all responses, one after the other."""
    return torch.tensor([token for r in responses for token in r.token_ids], device=device)


def pack_bits(bits: Bool[Tensor, "rows columns"]) -> Int[Tensor, "rows bytes"]:
    """Eight columns per uint8, the first in the lowest bit."""
    padded = nn.functional.pad(bits, (0, -bits.shape[1] % 8)).unflatten(1, (-1, 8))
    return (padded << torch.arange(8, dtype=torch.uint8, device=bits.device)).sum(-1, dtype=torch.uint8)


def unpack_bits(packed: Int[Tensor, "rows bytes"], num_columns: int) -> Bool[Tensor, "rows columns"]:
    """The inverse of `pack_bits`."""
    bits = (packed.unsqueeze(-1) >> torch.arange(8, dtype=torch.uint8, device=packed.device)) & 1
    return bits.flatten(1)[:, :num_columns].bool()


@torch.no_grad()
def measure(
    model: PeftModel,
    value_head: ValueHead | None,
    responses: Sequence[Response],
    config: GenerationConfig,
    *,
    eos_token_id: EndTokens,
    micro_batch_size: int,
    autocast: Autocast = None,
) -> Measured:
    """Log-probabilities, values, KL and entropy of `responses` under the policy as it is now and the reference.

    Without a value head the values are zero.
    """
    lengths = torch.tensor([len(r.token_ids) for r in responses], device=model.device)
    mask = torch.arange(int(lengths.max()), device=model.device) < lengths[:, None]  # (batch, time)
    names = ("logprobs", "policy_logprobs", "ref_logprobs", "values", "kl", "entropy", "base_nll")
    columns = {name: torch.zeros(mask.shape, device=model.device) for name in names}
    supports: dict[int, Tensor] = {}
    truncated = truncates(config)
    for rows in length_sorted(responses, range(len(responses)), micro_batch_size):
        batch = [responses[i] for i in rows]
        tokens = response_tokens(batch, model.device)
        logits, values = response_logits(model, batch, value_head, autocast=autocast)
        with model.disable_adapter():
            ref_logits, _ = response_logits(model, batch, None, autocast=autocast)
        log_policy = (logits / config.temperature).log_softmax(-1)
        log_ref = (ref_logits / config.temperature).log_softmax(-1)
        policy_logprobs = log_policy.gather(1, tokens[:, None]).squeeze(1)
        logprobs = policy_logprobs
        if truncated:
            support = sampling_support(logits, batch, config, eos_token_id)
            logprobs = token_logprobs(logits, tokens, temperature=config.temperature, support=support)
            packed = pack_bits(support).split([len(r.token_ids) for r in batch])
            supports.update(zip(rows, packed, strict=True))
        found = {
            "logprobs": logprobs,
            "policy_logprobs": policy_logprobs,
            "ref_logprobs": log_ref.gather(1, tokens[:, None]).squeeze(1),
            "values": torch.zeros_like(logprobs) if values is None else values,
            "kl": kl_nats(log_policy, log_ref),
            "entropy": entropy_nats(log_policy),
            "base_nll": -token_logprobs(ref_logits, tokens, temperature=1, support=None),
        }
        for name, column in columns.items():
            column[rows] = column[rows].masked_scatter(mask[rows], found[name])
    return Measured(mask=mask, supports=[supports[i] for i in range(len(responses))] if truncated else None, **columns)
