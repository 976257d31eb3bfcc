"""The pure functions between logits and token: hand arithmetic, and equality with transformers' processors."""

import pytest
import torch
from transformers import (
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from detoxlens.models.truncation import (
    NO_TOKEN,
    ban_early_eos,
    ban_repeated_ngrams,
    draw,
    keep_top_k,
    keep_top_p,
    next_tokens,
    process_logits,
)
from detoxlens.params.generation import GenerationConfig

INF = float("inf")


def config(**changes):
    plain = {"max_new_tokens": 9, "min_new_tokens": 0, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
    return GenerationConfig(**plain | {"no_repeat_ngram_size": 0, "num_samples": 1, "batch_size": 1} | changes)


def test_top_k_keeps_the_k_largest():
    assert keep_top_k(torch.tensor([[1.0, 3.0, 2.0, 0.0]]), 2).tolist() == [[-INF, 3.0, 2.0, -INF]]
    assert keep_top_k(torch.tensor([[1.0, 3.0]]), 50).tolist() == [[1.0, 3.0]]


def test_top_p_keeps_the_fewest_tokens_that_reach_p():
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()  # .5 + .3 reaches .7, .5 alone does not
    assert keep_top_p(logits, 0.7).isfinite().tolist() == [[True, True, False, False]]
    assert keep_top_p(logits, 0.4).isfinite().tolist() == [[True, False, False, False]]
    assert keep_top_p(logits, 0.9).isfinite().tolist() == [[True, True, True, False]]


@pytest.mark.parametrize("k", [0, 1, 6, 19, 20, 50])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"top_p": 0.05},
        {"top_p": 0.9},
        {"top_p": 0.8, "temperature": 0.7, "no_repeat_ngram_size": 2, "min_new_tokens": 4},
        {"temperature": 0},
    ],
)
def test_the_next_token_is_drawn_from_the_processed_logits(k, changes):
    c, generator = config(top_k=k, **changes), torch.Generator().manual_seed(0)
    plain = torch.randn(4000, 20, generator=generator) * 3
    mostly_banned = plain.masked_fill(torch.rand(4000, 20, generator=generator) < 0.8, -INF)
    mostly_banned[:, 7] = 0.5
    prefix, uniforms = torch.randint(0, 20, (4000, 12), generator=generator), torch.rand(4000, generator=generator)
    uniforms = uniforms.double()
    tied = plain.clone()
    tied[5, :8] = 9.0  # eight tokens share the first place: top-k of less keeps them all
    ties = [tied] if c.top_p == 1 else []  # which of equal tokens top-p drops is the sort's whim
    for logits in (plain, mostly_banned, *ties):
        processed = process_logits(logits, c, num_generated=2, eos_token_id=0, prefix_ids=prefix)
        expected = draw(processed, uniforms) if c.temperature else processed.argmax(-1)
        found = next_tokens(logits, uniforms, c, num_generated=2, eos_token_id=0, prefix_ids=prefix)
        assert torch.equal(found, expected)


def test_a_draw_does_not_depend_on_the_other_rows_where_logits_tie():
    """bfloat16 has many equal logits; some rows tie at the k-th and send the whole batch another way."""
    generator = torch.Generator().manual_seed(0)
    c = config(temperature=0.7, top_k=50, top_p=0.8)
    logits = (torch.randn(64, 400, generator=generator) * 2).bfloat16().float()
    uniforms = torch.rand(64, generator=generator).double()
    together = next_tokens(logits, uniforms, c, num_generated=5, eos_token_id=0)
    alone = [next_tokens(logits[i : i + 1], uniforms[i : i + 1], c, num_generated=5, eos_token_id=0) for i in range(64)]
    assert torch.equal(together, torch.cat(alone))


def test_ngram_ban_is_the_token_that_followed_before():
    prefix = torch.tensor([[5, 9, 7, 5], [NO_TOKEN, NO_TOKEN, 6, 6], [NO_TOKEN, NO_TOKEN, NO_TOKEN, 3]])
    banned = ban_repeated_ngrams(torch.zeros(3, 10), prefix, 2).isneginf()
    assert [row.nonzero().flatten().tolist() for row in banned] == [[9], [6], []]


def test_ngram_of_size_one_bans_every_token_seen():
    banned = ban_repeated_ngrams(torch.zeros(1, 5), torch.tensor([[NO_TOKEN, 2, 4]]), 1).isneginf()
    assert banned[0].nonzero().flatten().tolist() == [2, 4]


def test_early_eos_is_banned_per_row():
    logits = ban_early_eos(torch.zeros(3, 2), torch.tensor([0, 1, 2]), 2, 1)
    assert logits.tolist() == [[0, -INF], [0, -INF], [0, 0]]


def test_the_end_is_free_once_every_row_has_the_minimum():
    logits = torch.randn(2, 5)
    assert process_logits(logits, config(min_new_tokens=2), num_generated=2, eos_token_id=0) is logits
    few = process_logits(logits, config(min_new_tokens=2), num_generated=1, eos_token_id=0)
    assert few[:, 0].tolist() == [-INF, -INF]


def test_a_ban_that_leaves_nothing_is_lifted():
    assert ban_early_eos(torch.zeros(1, 1), 0, 5, 0).tolist() == [[0.0]]
    assert ban_repeated_ngrams(torch.zeros(1, 2), torch.tensor([[0, 1]]), 1).tolist() == [[0.0, 0.0]]


def test_draw_inverts_the_cumulative_distribution():
    probs = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)  # cumulative .2, .7, 1
    uniforms = torch.tensor([0.0, 0.1, 0.201, 0.69, 0.71, 1 - 2**-53], dtype=torch.float64)
    assert draw(probs.log().expand(6, 3), uniforms).tolist() == [0, 0, 1, 1, 2, 2]


def test_draw_never_takes_an_excluded_token():
    logits = torch.tensor([[-INF, 0.0, -INF, 0.0, -INF]]).expand(3, 5)
    assert draw(logits, torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64)).tolist() == [1, 3, 3]


@pytest.mark.parametrize(
    "changes",
    [
        {"temperature": 0.7, "top_k": 6, "top_p": 0.8, "no_repeat_ngram_size": 2, "min_new_tokens": 4},
        {"top_p": 0.5},
        {"top_k": 3},
        {"temperature": 1.7, "no_repeat_ngram_size": 3, "min_new_tokens": 9},
    ],
)
def test_equals_transformers_processors(changes):
    c = config(**changes)
    generator = torch.Generator().manual_seed(0)
    prefix = torch.randint(0, 8, (64, 12), generator=generator)
    logits = torch.randn(64, 20, generator=generator) * 3
    processors = LogitsProcessorList()
    if c.no_repeat_ngram_size:
        processors.append(NoRepeatNGramLogitsProcessor(c.no_repeat_ngram_size))
    if c.min_new_tokens:
        processors.append(MinNewTokensLengthLogitsProcessor(10, c.min_new_tokens, 0, device="cpu"))
    if c.temperature != 1:
        processors.append(TemperatureLogitsWarper(c.temperature))
    if c.top_k:
        processors.append(TopKLogitsWarper(c.top_k))
    if c.top_p < 1:
        processors.append(TopPLogitsWarper(c.top_p))
    ours = process_logits(logits, c, num_generated=2, eos_token_id=0, prefix_ids=prefix)
    assert torch.equal(ours, processors(prefix, logits.clone()))
    assert not torch.equal(ours, logits)


def test_plain_sampling_leaves_the_logits_alone_and_gradients_flow():
    logits = torch.randn(2, 5, requires_grad=True)
    assert process_logits(logits, config(), num_generated=0, eos_token_id=0) is logits
    log_probs = process_logits(logits, config(top_k=2, top_p=0.9), num_generated=0, eos_token_id=0).log_softmax(-1)
    log_probs.max(-1).values.sum().backward()
    assert logits.grad.isfinite().all()
