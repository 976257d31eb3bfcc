"""Inseq at both borders: its methods behind our call, and our scores in its JSON (for its viewer).

Inseq works on text, we on token ids. A stand-in tokenizer writes token 17 as the word `t17`, so that nothing is
decoded and re-encoded. Only this file imports inseq, which takes seconds and warns.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from detoxlens.attribution.targets import log_prob
from detoxlens.common.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_STEP_FUNCTION = {"probability": ("probability", {}), "log_probability": ("probability", {"logprob": True})}


def id_tokenizer(vocab_size: int, *, pad_id: int, unk_id: int) -> PreTrainedTokenizerFast:
    """A tokenizer whose token i is the word `t<i>`.

    Args:
        vocab_size: number of tokens.
        pad_id: what Inseq pads with; must not occur in the text.
        unk_id: what Inseq puts in an occluded token's place, and integrated gradients' baseline.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = {unk_id: "<unk>", pad_id: "<pad>"}  # not t17: it would also match the beginning of t170
    words = {names.get(i, f"t{i}"): i for i in range(vocab_size)}
    unk = names[unk_id]
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=unk))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token=unk, eos_token="<pad>", bos_token="<pad>", pad_token="<pad>"
    )


def inseq_scores(
    model: nn.Module,
    *,
    prompt: Sequence[int],
    completion: Sequence[int],
    method: str,
    target: str,
    unk_id: int | None,
) -> tuple[list[list[float]], list[float]]:
    """Scores and token probabilities of one sequence by Inseq's own implementation.

    Signed scores enter by their absolute value; every row is normalised to sum to 1.

    Raises:
        UserError: the target is not one that Inseq's methods take here.
    """
    if target not in _STEP_FUNCTION:
        raise UserError(f"target={target!r} is not available with Inseq's methods; use probability or log_probability.")
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    vocab = inner.get_input_embeddings().weight.shape[0]
    # Inseq drops padding wherever it stands: what pads must not occur in the sequence.
    pad = next(i for i in range(vocab) if i not in prompt and i not in completion and i != unk_id)
    tokenizer = id_tokenizer(vocab, pad_id=pad, unk_id=pad if unk_id is None else unk_id)
    words = tokenizer.convert_ids_to_tokens([*prompt, *completion])
    function, function_args = _STEP_FUNCTION[target]
    config = inner.config.get_text_config(decoder=True)
    own_pad, own_attention = inner.config.pad_token_id, config._attn_implementation
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")  # captum and treescope warn on import and on every call
        import inseq

        try:
            inner.config.pad_token_id, config._attn_implementation = pad, "eager"  # only eager shows its weights
            wrapped = inseq.load_model(inner, method, tokenizer=tokenizer, device=str(inner.device))
            out = wrapped.attribute(
                " ".join(words[: len(prompt)]),
                " ".join(words),
                attributed_fn=function,
                show_progress=False,
                **function_args,
            )
        except (AttributeError, TypeError, ValueError) as e:
            raise UserError(
                f"method={method!r}: Inseq's implementation fails on {type(inner).__name__} with these versions "
                f"({str(e).splitlines()[0]}). Take another method; value_zeroing in Inseq 0.7.1 runs on Falcon only."
            ) from e
        finally:
            inner.config.pad_token_id, config._attn_implementation = own_pad, own_attention
        table = out.sequence_attributions[0].aggregate().target_attributions.abs()
    rows = [table[: len(prompt) + t, t].tolist() for t in range(len(completion))]
    ids = torch.tensor([[*prompt, *completion]], device=inner.device)
    with torch.no_grad():
        logits = inner(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float()
    probs = log_prob(logits, ids[0, len(prompt) :]).exp().tolist()
    return [[x / total if (total := math.fsum(row)) else 0.0 for x in row] for row in rows], probs


def write_inseq_json(
    path: Path,
    *,
    scores: Sequence[Sequence[float]],
    prompt_ids: Sequence[int],
    completion_ids: Sequence[int],
    pieces: Sequence[str],
    token_prob: Sequence[float],
    method: str,
) -> None:
    """Writes one attribution as `inseq.FeatureAttributionOutput.load(path)` reads it, ready for `.show()`.

    Args:
        path: a .json file.
        scores: row t over prompt and generated prefix.
        prompt_ids: token ids of the prompt.
        completion_ids: token ids of the completion.
        pieces: the text of each token of prompt and completion.
        token_prob: probability of each generated token.
        method: name of the attribution method.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from inseq.data import FeatureAttributionOutput
        from inseq.data.attribution import CoarseFeatureAttributionSequenceOutput
        from inseq.utils.typing import TokenWithId

        tokens = [TokenWithId(p, i) for p, i in zip(pieces, [*prompt_ids, *completion_ids], strict=True)]
        num_prompt, num_generated = len(prompt_ids), len(completion_ids)
        table = torch.full((num_prompt + num_generated, num_generated), torch.nan)
        for t, row in enumerate(scores):
            table[: len(row), t] = torch.tensor(row)
        sequence = CoarseFeatureAttributionSequenceOutput(
            source=tokens[:num_prompt],
            target=tokens,
            target_attributions=table,
            step_scores={"probability": torch.tensor(list(token_prob))},
            sequence_scores={},
            attr_pos_start=num_prompt,
            attr_pos_end=num_prompt + num_generated,
        )
        text = "".join(pieces)
        output = FeatureAttributionOutput(
            sequence_attributions=[sequence],
            info={
                "attribution_method": method,
                "attr_pos_start": num_prompt,
                "attr_pos_end": num_prompt + num_generated,
                "attribute_target": False,
                "constrained_decoding": True,
                "input_texts": ["".join(pieces[:num_prompt])],
                "generated_texts": [text],
                "model_name": "detoxlens",
                "step_scores": ["probability"],
            },
        )
        output.save(path, overwrite=True)
