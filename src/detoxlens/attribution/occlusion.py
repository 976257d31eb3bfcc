"""Occlusion: what a token's absence does to the probability of every token after it. Zeiler & Fergus 2014 (1311.2901).

    score_tj = | f_t(e) - f_t(e with e_j replaced by the baseline) |,    normalised over j as everywhere

A causal model shows in one forward what a replaced token does to all later targets: a sequence of n tokens takes n + 1
forwards, whatever the number of targets. Inseq's takes one per token and target. Reference: Inseq's `occlusion`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from detoxlens.attribution.engine import GradientEngine, Job
from detoxlens.attribution.result import SequenceAttribution
from detoxlens.attribution.targets import log_prob, target_value

ROWS_PER_PASS = 32


class OcclusionEngine(GradientEngine):
    """One sequence after another, several replaced tokens per pass."""

    def run(self, sequences: list[Job]) -> list[SequenceAttribution]:
        """Attributes every sequence; see the module."""
        return [self._occlude(sequence) for sequence in sequences]

    def _occlude(self, sequence: Job) -> SequenceAttribution:
        num_prompt, num_targets = len(sequence.prompt), len(sequence.completion)
        ids = torch.tensor([*sequence.prompt, *sequence.completion], device=self.device)
        with torch.no_grad():
            embeddings = self.embed(ids[:-1])  # (seq, hidden): the last token is predicted, not read
            baseline = torch.zeros_like(embeddings[0])
            if self.baseline_id is not None:
                baseline = self.embed(torch.tensor(self.baseline_id, device=self.device))
        targets = ids[num_prompt:]
        contrast = None if sequence.contrast is None else torch.tensor(sequence.contrast, device=self.device)
        logits = self._target_logits(embeddings[None], num_prompt)
        whole = self._value(logits, targets, contrast)[0]
        changes: list[Tensor] = []
        for start in range(0, len(embeddings), ROWS_PER_PASS):
            replaced = range(start, min(start + ROWS_PER_PASS, len(embeddings)))
            batch = embeddings.repeat(len(replaced), 1, 1)
            batch[torch.arange(len(replaced)), list(replaced)] = baseline
            value = self._value(self._target_logits(batch, num_prompt), targets, contrast)
            changes.append((whole - value).abs())
        table = torch.cat(changes).T.tolist()  # target, replaced token
        rows = [table[t][: num_prompt + t] for t in range(num_targets)]
        return self._normalised(sequence, rows, log_prob(logits[0], targets).exp().tolist(), [])

    def _target_logits(self, embeddings: Tensor, num_prompt: int) -> Tensor:
        """(batch, targets, vocab)."""
        with torch.no_grad():
            given = embeddings.clone()  # a model may change its input
            logits = self.prepared.model(inputs_embeds=given, use_cache=False).logits[:, num_prompt - 1 :]
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def _value(self, logits: Tensor, targets: Tensor, contrast: Tensor | None) -> Tensor:
        """(batch, targets): f_t as along integrated gradients' path, the probability itself rather than its odds."""
        ids = targets.expand(len(logits), -1)
        others = None if contrast is None else contrast.expand(len(logits), -1)
        return target_value(logits, ids, target=self.target, contrast_ids=others, along_path=True)
