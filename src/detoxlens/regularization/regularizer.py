"""A penalty's quantity on a batch: which rows are looked at, one forward pass of its own, and the value per example.

The pass is apart from the method's own, in evaluation mode, with attention that shows its probabilities and can be
differentiated twice. So a weight of 0 changes no bit of the training, and dropout draws the same numbers as without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from detoxlens.common.errors import UserError
from detoxlens.common.seeding import numpy_rng
from detoxlens.models.forward import head_sees_only, text_config
from detoxlens.models.hub import first_line
from detoxlens.params.regularizer import RegularizerConfig
from detoxlens.regularization import columns as masks
from detoxlens.regularization.attention_entropy import attention_entropy, normalized_entropy
from detoxlens.regularization.attribution import attribution_scores, share_of
from detoxlens.regularization.columns import MarkedSequence, Rows

if TYPE_CHECKING:
    from peft import PeftModel


class Regularizer:
    """What `regularizer` of a params section says, for one model.

    Args:
        config: its kind is not `none`.
        seed: of positions, examples and the placebo's columns.
        section: `sft` or `ppo`, for messages.
    """

    def __init__(self, config: RegularizerConfig, *, seed: int, section: str):
        assert config.is_on
        self.config, self.seed, self.section = config, seed, section

    @property
    def metric(self) -> str:
        """Name of the quantity in training curves."""
        return f"{self.section}/{self.config.kind}"

    @property
    def is_felt(self) -> bool:
        """Does the penalty change the training?"""
        return self.config.weight != 0

    def rows(self, sequence: MarkedSequence, *names: str | int) -> Rows:
        """The rows of one sequence that the quantity is the mean of, drawn from (seed, *names); maybe none."""
        rng = numpy_rng(self.seed, "regularizer", *names)
        kind, is_placebo = self.config.kind, self.config.columns == "shuffled"
        rows = masks.rows_of(sequence)
        rows = masks.with_toxic_part(rows) if kind == "toxic_share" else masks.with_entropy(rows)
        if kind != "attention_entropy" and len(rows) > self.config.num_positions:
            rows = rows[np.sort(rng.permutation(len(rows))[: self.config.num_positions])]
        if is_placebo and kind == "toxic_share":
            return masks.shuffled_toxic(rows, rng)
        return masks.shuffled_columns(rows, rng) if is_placebo else rows

    def drawn(self, num_examples: int, *names: str | int) -> list[int]:
        """Which examples of a batch are looked at, in their order."""
        most = self.config.num_examples
        if most is None or most >= num_examples:
            return list(range(num_examples))
        return sorted(numpy_rng(self.seed, "regularized examples", *names).permutation(num_examples)[:most].tolist())

    def values(
        self, model: PeftModel, sequences: Sequence[MarkedSequence], rows: Sequence[Rows]
    ) -> Float[Tensor, " sequences"]:
        """The quantity on each sequence, 0..1, with a gradient if the penalty is felt.

        Args:
            model: with the adapter that is trained.
            sequences: one or more.
            rows: of each, one or more.
        """
        width = max(len(s.ids) for s in sequences)
        device = model.device
        ids = torch.tensor([[*s.ids, *[0] * (width - len(s.ids))] for s in sequences], device=device)
        example = torch.tensor([i for i, r in enumerate(rows) for _ in range(len(r))], device=device)
        position = torch.from_numpy(np.concatenate([r.positions for r in rows])).to(device)
        columns, toxic = (
            torch.from_numpy(
                np.concatenate([np.pad(getattr(r, name), ((0, 0), (0, width - r.columns.shape[1]))) for r in rows])
            ).to(device)
            for name in ("columns", "toxic")
        )
        with differentiable_twice(model), torch.set_grad_enabled(True):
            if self.config.kind == "attention_entropy":
                with torch.set_grad_enabled(self.is_felt):
                    of_rows = attention_entropy(attentions_of(model, ids), example, position, columns)
            else:
                embeddings = model.get_input_embeddings()(ids).detach().requires_grad_()
                wanted = torch.zeros(ids.shape, dtype=torch.bool, device=device)
                wanted[example, position] = True  # rows are sorted, so that this order is theirs
                with head_sees_only(wanted, model.get_output_embeddings()):
                    logits = model(inputs_embeds=embeddings.clone(), use_cache=False).logits.squeeze(0)
                scores = attribution_scores(
                    logits, ids[example, position + 1], embeddings, example, create_graph=self.is_felt
                )
                of_rows = (
                    share_of(scores, toxic, columns)
                    if self.config.kind == "toxic_share"
                    else normalized_entropy(scores, columns)
                )
        counts = torch.bincount(example, minlength=len(sequences))
        sums = of_rows.new_zeros(len(sequences)).index_add(0, example, of_rows)
        return sums / counts


def attentions_of(model: PeftModel, ids: Tensor) -> tuple[Tensor, ...]:
    """Attention probabilities (batch, heads, seq, seq), layer by layer; layers without any are left out."""
    found = model(input_ids=ids, use_cache=False, output_attentions=True)
    return tuple(layer for layer in getattr(found, "attentions", None) or () if layer is not None)


@contextmanager
def differentiable_twice(model: PeftModel) -> Iterator[None]:
    """Evaluation mode, and attention written out: it shows its probabilities, and its backward pass has one itself.

    Fused kernels have neither. Some classes (Falcon) choose theirs at loading: for those torch's own is fixed.
    """
    config = text_config(model)
    before = config._attn_implementation
    modes = {module: module.training for module in model.modules()}  # PPO trains layers and not what lies in them
    try:
        config._attn_implementation = "eager"
        model.eval()
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        config._attn_implementation = before
        for module, mode in modes.items():
            module.training = mode


def check_regularizer(regularizer: Regularizer, model: PeftModel) -> None:
    """Tries the penalty on a short text.

    Raises:
        UserError: the model's attention gives no weights, it cannot be differentiated twice, or no gradient reaches the
            adapter.
    """
    name, kind = type(model.get_base_model()).__name__, regularizer.config.kind
    key = f"{regularizer.section}.regularizer.kind={kind!r}"
    remedy = "Set kind to another regularizer or to none"
    num_tokens = model.get_input_embeddings().weight.shape[0]
    ids = tuple((11 + 17 * i) % num_tokens for i in range(8))
    trial = MarkedSequence(ids=ids, exchange=(0, 1, 1, 1, 0, -1, -1, -1), is_toxic=(0, 0, 1, 0, 0, 0, 0, 0))
    trained = [p for p in model.parameters() if p.requires_grad]
    try:
        if kind == "attention_entropy":
            with torch.no_grad(), differentiable_twice(model):
                if not attentions_of(model, torch.tensor([ids], device=model.device)):
                    raise UserError(f"{key}: the layers of {name} give no attention probabilities. {remedy}.")
        value = regularizer.values(model, [trial], [regularizer.rows(trial)])
        if not regularizer.is_felt:
            return
        if value.requires_grad:
            value.sum().backward()  # not autograd.grad: that never visits an operation that has no second derivative
    except (UserError, torch.OutOfMemoryError):
        raise
    except (RuntimeError, ValueError, TypeError, NotImplementedError, AttributeError) as e:
        way = "shows no attention probabilities" if kind == "attention_entropy" else "cannot be differentiated twice"
        raise UserError(f"{key}: {name} {way} ({type(e).__name__}: {first_line(e)}). {remedy}.") from e
    total = sum(float(p.grad.float().abs().sum()) for p in trained if p.grad is not None)
    for p in trained:
        p.grad = None
    if not (total > 0 and np.isfinite(total)):
        raise UserError(
            f"{key}: no usable gradient of the penalty reaches the adapter of {name} (its absolute sum is {total:g}). "
            f"{remedy}, or put the adapter on layers that the attention depends on (lora.target_modules)."
        )
