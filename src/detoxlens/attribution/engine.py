"""Attribution of groups of sequences, a chunk of targets at a time; groups are halved when memory runs out."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from detoxlens.attribution.gradients import (
    Differentiable,
    gradients_by_autograd,
    middle_target_by_autograd,
    target_gradients,
)
from detoxlens.attribution.plan import targets_per_chunk
from detoxlens.attribution.quantized import is_quantized
from detoxlens.attribution.result import SequenceAttribution, Status
from detoxlens.attribution.tape import NotTapeable
from detoxlens.attribution.targets import log_prob, target_value
from detoxlens.common.errors import UserError

log = logging.getLogger(__name__)

ROUNDING, ROUNDING_OF_SHORT_FORMATS = 1e-3, 0.25
"""Relative difference up to which two ways to compute the same agree: in float32 or longer, in others (8-bit too)."""


@dataclass(frozen=True, slots=True)
class Job:
    """One sequence to attribute; `contrast` holds a token per generated token for the contrastive target."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    contrast: tuple[int, ...] | None


@dataclass(slots=True)
class Learnt:
    """What earlier passes over a model have shown, so that later calls need not find it out again."""

    tape_is_right: bool | None = None
    """Whether the fast path agrees with torch's own graph on this model; None before the first chunk."""
    max_targets: int | None = None
    """Set by an out-of-memory error, never raised again."""


class GradientEngine:
    """Runs groups of sequences, chunk of targets by chunk of targets."""

    def __init__(
        self,
        prepared: Differentiable,
        method: str,
        target: str,
        num_path_steps: int,
        baseline_id: int | None,
        learnt: Learnt,
    ):
        self.prepared, self.method, self.target = prepared, method, target
        self.embed = prepared.model.get_input_embeddings()
        self.device = self.embed.weight.device
        self.along_path = method == "integrated_gradients"
        self.baseline_id = baseline_id
        nodes, weights = np.polynomial.legendre.leggauss(num_path_steps)
        self.path = [((1 + x) / 2, w / 2) for x, w in zip(nodes.tolist(), weights.tolist(), strict=True)]
        self.learnt = learnt

    def refusal(self, sequence: Job) -> Status | None:
        """Why a sequence cannot be attributed at all."""
        if not sequence.completion:
            return "empty"
        longest = self.prepared.max_positions
        # The last generated token is predicted, not read.
        too_long = longest is not None and len(sequence.prompt) + len(sequence.completion) - 1 > longest
        return "too_long" if too_long else None

    def null(self, sequence: Job, status: Status) -> SequenceAttribution:
        """A row without scores."""
        return self._result(sequence, status, None, None, None)

    def _result(self, sequence, status, scores, probs, gaps) -> SequenceAttribution:
        return SequenceAttribution(
            prompt_ids=sequence.prompt,
            completion_ids=sequence.completion,
            method=self.method,
            target=self.target,
            status=status,
            scores=scores,
            token_prob=probs,
            completeness_gap=gaps,
        )

    def run(self, sequences: list[Job]) -> list[SequenceAttribution]:
        """Attributes sequences together; halves the chunk, then the group, when memory runs out."""
        longest = max(len(s.prompt) + len(s.completion) for s in sequences)
        num_targets = max(len(s.completion) for s in sequences)
        chunk = targets_per_chunk(longest, num_targets)
        chunk = chunk if self.learnt.max_targets is None else min(chunk, self.learnt.max_targets)
        while True:
            try:
                return self._run(sequences, chunk)
            except (torch.OutOfMemoryError, RuntimeError) as e:
                if not is_out_of_memory(e):
                    raise
                if chunk == 1 and len(sequences) == 1:
                    raise UserError(
                        f"attribution: {longest} tokens do not fit in memory even one target at a time; shorten the "
                        "text, or load the model in bfloat16 or on a larger device."
                    ) from None
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            if chunk == 1:
                half = len(sequences) // 2
                log.warning("out of memory: attributing %d sequences at a time", half)
                return self.run(sequences[:half]) + self.run(sequences[half:])
            chunk = self.learnt.max_targets = chunk // 2
            log.warning("out of memory: %d targets per pass", chunk)

    def _run(self, sequences: list[Job], chunk: int) -> list[SequenceAttribution]:
        norms: list[list[list[float]]] = [[] for _ in sequences]
        probs: list[list[float]] = [[] for _ in sequences]
        gaps: list[list[float]] = [[] for _ in sequences]
        for start in range(0, max(len(s.completion) for s in sequences), chunk):
            rows = [r for r, s in enumerate(sequences) if len(s.completion) > start]
            part = self._chunk([sequences[r] for r in rows], start, chunk)
            for k, r in enumerate(rows):
                prompt = len(sequences[r].prompt)
                for slot in range(min(chunk, len(sequences[r].completion) - start)):
                    norms[r].append(part.norms[k][slot][: prompt + start + slot])
                    probs[r].append(part.probs[k][slot])
                    if part.gaps is not None:
                        gaps[r].append(part.gaps[k][slot])
        return [self._normalised(s, n, p, g) for s, n, p, g in zip(sequences, norms, probs, gaps, strict=True)]

    def _normalised(self, sequence, norms, probs, gaps) -> SequenceAttribution:
        totals = [math.fsum(row) for row in norms]
        if not all(map(math.isfinite, totals)) or not all(map(math.isfinite, probs)):
            return self.null(sequence, "non_finite")
        if min(totals) == 0.0:
            return self.null(sequence, "zero_gradient")
        scores = tuple(tuple(x / total for x in row) for row, total in zip(norms, totals, strict=True))
        return self._result(sequence, "ok", scores, tuple(probs), tuple(gaps) if gaps else None)

    def _chunk(self, sequences: list[Job], start: int, chunk: int) -> _ChunkScores:
        """Targets start .. start + chunk of every sequence, each sequence cut behind its last target of these."""
        ends = [len(s.prompt) + min(len(s.completion), start + chunk) - 1 for s in sequences]
        seq, targets = max(ends), max(min(len(s.completion), start + chunk) - start for s in sequences)
        ids = torch.zeros(len(sequences), seq, dtype=torch.long)
        positions = torch.zeros(len(sequences), targets, dtype=torch.long)
        valid = torch.zeros(len(sequences), targets, dtype=torch.bool)
        tokens, contrast = torch.zeros_like(positions), torch.zeros_like(positions)
        for r, s in enumerate(sequences):
            n = min(len(s.completion), start + chunk) - start
            ids[r, : ends[r]] = torch.tensor((*s.prompt, *s.completion)[: ends[r]])
            # A slot without a target repeats the last position, so that no padding is looked at.
            positions[r] = torch.arange(targets).clamp(max=n - 1) + len(s.prompt) - 1 + start
            valid[r, :n] = True
            tokens[r, :n] = torch.tensor(s.completion[start : start + n])
            if s.contrast is not None:
                contrast[r, :n] = torch.tensor(s.contrast[start : start + n])
        ids, positions, valid, tokens, contrast = (t.to(self.device) for t in (ids, positions, valid, tokens, contrast))

        def value(logits: Tensor) -> Tensor:
            return target_value(logits, tokens, target=self.target, contrast_ids=contrast, along_path=self.along_path)

        with torch.no_grad():
            embeddings = self.embed(ids)
        if self.along_path:
            return self._path(ids, embeddings, positions, valid, tokens, value)
        gradients, logits = self._gradients(embeddings, positions, valid, value)
        if self.method == "input_x_gradient":
            gradients = gradients * embeddings
        return _ChunkScores(_norms(gradients), _probs(logits, tokens), None)

    def _path(self, ids, embeddings, positions, valid, tokens, value) -> _ChunkScores:
        """Integrated gradients: the path's points one after another, their gradients added up."""
        baseline = torch.zeros_like(embeddings)
        if self.baseline_id is not None:
            with torch.no_grad():
                baseline = self.embed(torch.full_like(ids, self.baseline_id))
        difference = embeddings - baseline
        total = None
        for alpha, weight in self.path:
            gradients, _ = self._gradients(baseline + alpha * difference, positions, valid, value)
            total = gradients.mul_(weight) if total is None else total.add_(gradients, alpha=weight)
        attributions = total * difference
        at_input, at_baseline = (self._logits(e, positions) for e in (embeddings, baseline))
        change = value(at_input) - value(at_baseline)
        gaps = (attributions.sum((2, 3)).T.to(change.dtype) - change).abs()
        return _ChunkScores(_norms(attributions), _probs(at_input, tokens), gaps.tolist())

    def _gradients(self, embeddings: Tensor, positions: Tensor, valid: Tensor, value) -> tuple[Tensor, Tensor]:
        """By the tape where it is right, which the first chunk tells, or else by torch's own graph."""
        given = self.prepared, embeddings, positions, valid, value
        found = reason = None
        if self.learnt.tape_is_right is not False:
            try:
                found = target_gradients(*given)
            except NotTapeable as e:
                reason = str(e)
        if self.learnt.tape_is_right is None:
            found = found or gradients_by_autograd(*given)
            slot, gradient, logits = middle_target_by_autograd(*given)
            if not self._same(found[1][:, slot], logits):
                raise UserError(
                    f"attribution: {type(self.prepared.model).__name__} reads the tokens after a position as well as "
                    "those before it; a causal language model is needed (BERT and its kin: is_decoder=True in the "
                    "config)."
                )
            if not self._same(found[0][slot][:, : gradient.shape[1]], gradient):
                found, reason = None, "this model hides operations from the fast path"
            self.learnt.tape_is_right = True
        if reason is not None:
            log.warning("attribution: %s; going by torch's own graph, one target at a time, slower", reason)
            self.learnt.tape_is_right = False
        return found or gradients_by_autograd(*given)

    def _same(self, found: Tensor, expected: Tensor) -> bool:
        """Whether they differ by rounding alone. What is not finite counts as the same: its status is `non_finite`."""
        short = self.embed.weight.dtype.itemsize < 4 or any(map(is_quantized, self.prepared.model.modules()))
        found, expected = found.double(), expected.double()
        if not (found.isfinite().all() and expected.isfinite().all()):
            return True
        return bool((found - expected).norm() <= (ROUNDING_OF_SHORT_FORMATS if short else ROUNDING) * expected.norm())

    def _logits(self, embeddings: Tensor, positions: Tensor) -> Tensor:
        with torch.no_grad():
            given = embeddings.clone()  # a model may change its input
            logits = self.prepared.model(inputs_embeds=given, use_cache=False).logits
        logits = logits[torch.arange(len(positions), device=positions.device)[:, None], positions]
        return logits.to(torch.promote_types(logits.dtype, torch.float32))


class InseqEngine(GradientEngine):
    """The methods that Inseq computes, one sequence after another."""

    def run(self, sequences: list[Job]) -> list[SequenceAttribution]:
        from detoxlens.attribution.inseq_backend import inseq_scores

        results = []
        for s in sequences:
            norms, probs = inseq_scores(
                self.prepared.model,
                prompt=s.prompt,
                completion=s.completion,
                method=self.method,
                target=self.target,
                unk_id=self.baseline_id,
            )
            results.append(self._normalised(s, norms, probs, []))
        return results


@dataclass(frozen=True, slots=True)
class _ChunkScores:
    norms: list[list[list[float]]]  # sequence, target, position
    probs: list[list[float]]  # sequence, target
    gaps: list[list[float]] | None


def _norms(gradients: Tensor) -> list[list[list[float]]]:
    """L2 norm over the embedding axis: (targets, batch, seq, hidden) -> nested lists (batch, targets, seq)."""
    dtype = torch.promote_types(gradients.dtype, torch.float32)
    return torch.linalg.vector_norm(gradients, dim=-1, dtype=dtype).transpose(0, 1).tolist()


def _probs(logits: Tensor, tokens: Tensor) -> list[list[float]]:
    return log_prob(logits, tokens).exp().tolist()


def is_out_of_memory(error: Exception) -> bool:
    """torch raises its own class on accelerators, a plain RuntimeError from the CPU's allocator and from cuBLAS."""
    words = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or any(w in str(error) for w in words)
