"""Batched, cached sampling against transformers' own generate, and against slow loops kept here."""

import numpy as np
import pytest
import torch
import transformers as hf
from peft import LoraConfig, get_peft_model

from detoxlens.common.errors import UserError
from detoxlens.models.generation import auto_batch_size, plan_batches, sample, sample_batch
from detoxlens.params.generation import GenerationConfig

# peft 0.21 asks transformers 5.23 by a name that it is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

VOCAB, EOS, PAD = 50, 0, 1
SHAPE = {
    "vocab_size": VOCAB,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "eos_token_id": EOS,
    "bos_token_id": EOS,
}
PROMPTS = [[5, 9, 7], [11], [4, 8, 15, 16, 23, 42, 7], [3, 3], [30, 2, 30, 2, 30]]
GREEDY = GenerationConfig(
    max_new_tokens=12,
    min_new_tokens=0,
    temperature=0,
    top_k=0,
    top_p=1,
    no_repeat_ngram_size=0,
    num_samples=1,
    batch_size=8,
)
SAMPLED = GREEDY.model_copy(update={"temperature": 1.0})


def neox():
    return hf.GPTNeoXForCausalLM(
        hf.GPTNeoXConfig(
            **SHAPE, hidden_size=32, intermediate_size=64, max_position_embeddings=64, initializer_range=0.3
        )
    )


def falcon(**kwargs):
    return hf.FalconForCausalLM(
        hf.FalconConfig(**SHAPE, hidden_size=32, max_position_embeddings=64, initializer_range=0.3, **kwargs)
    )


def lora():
    torch.manual_seed(1)
    model = get_peft_model(neox(), LoraConfig(r=4, target_modules=["query_key_value"], init_lora_weights=False))
    model.base_model.model.generation_config.pad_token_id = PAD
    return model


MODELS = {
    "gpt_neox": neox,
    "falcon": falcon,
    "falcon-7b": lambda: falcon(multi_query=True, new_decoder_architecture=False, parallel_attn=True, bias=False),
    "falcon-alibi": lambda: falcon(alibi=True, multi_query=True, new_decoder_architecture=False, parallel_attn=False),
    "gpt2": lambda: hf.GPT2LMHeadModel(
        hf.GPT2Config(
            vocab_size=VOCAB,
            n_embd=32,
            n_layer=2,
            n_head=4,
            n_positions=64,
            eos_token_id=EOS,
            bos_token_id=EOS,
            initializer_range=0.3,
        )
    ),
    "llama": lambda: hf.LlamaForCausalLM(
        hf.LlamaConfig(
            **SHAPE,
            hidden_size=32,
            intermediate_size=64,
            num_key_value_heads=2,
            max_position_embeddings=64,
            initializer_range=0.3,
        )
    ),
    "lora": lora,
}


@pytest.fixture(params=MODELS)
def any_model(request):
    torch.manual_seed(0)
    return MODELS[request.param]().eval()


@pytest.fixture
def model():
    torch.manual_seed(0)
    return neox().eval()


def run(model, prompts, config=SAMPLED, *, seeds=None, batch_size=8, eos=EOS):
    seeds = list(range(len(prompts))) if seeds is None else seeds
    done = sample(model, prompts, config=config, seeds=seeds, eos_token_id=eos, pad_token_id=PAD, batch_size=batch_size)
    return [s.token_ids for s in done]


def generated_by_transformers(model, prompt, config, eos=EOS):
    out = model.generate(
        input_ids=torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        do_sample=False,
        max_new_tokens=config.max_new_tokens,
        min_new_tokens=config.min_new_tokens or None,
        no_repeat_ngram_size=config.no_repeat_ngram_size or None,
        eos_token_id=eos,
        pad_token_id=PAD,
    )
    return tuple(out[0, len(prompt) :].tolist())


@pytest.mark.parametrize(
    "changes", [{}, {"min_new_tokens": 4, "no_repeat_ngram_size": 2}], ids=["plain", "constrained"]
)
def test_greedy_equals_transformers_generate(any_model, changes):
    config = GREEDY.model_copy(update=changes)
    # A token that greedy decoding really produces ends the completions, so that rows finish at different steps.
    eos = generated_by_transformers(any_model, PROMPTS[0], config)[:6][-1]
    expected = [generated_by_transformers(any_model, p, config, eos) for p in PROMPTS]
    assert run(any_model, PROMPTS, config, eos=eos) == expected
    assert len({len(ids) for ids in expected}) > 1


def test_samples_do_not_depend_on_the_batch(any_model):
    together = run(any_model, PROMPTS, batch_size=5)
    assert run(any_model, PROMPTS, batch_size=2) == together
    alone = [run(any_model, [p], seeds=[i])[0] for i, p in enumerate(PROMPTS)]
    assert alone == together
    assert run(any_model, PROMPTS[::-1], seeds=[4, 3, 2, 1, 0]) == together[::-1]


def test_a_sample_follows_the_uniforms_of_its_seed_without_cache_or_padding(model):
    config = SAMPLED.model_copy(update={"temperature": 0.7})
    prompt, ids = PROMPTS[2], list(PROMPTS[2])
    for u in np.random.default_rng(7).random(config.max_new_tokens):
        probs = (model(torch.tensor([ids])).logits[0, -1] / 0.7).double().softmax(-1)
        ids.append(int((probs.cumsum(-1) <= u * probs.sum()).sum()))
        if ids[-1] == EOS:
            break
    assert run(model, [prompt], config, seeds=[7])[0] == tuple(ids[len(prompt) :])


def test_first_tokens_follow_the_models_distribution(model):
    n = 4000
    config = SAMPLED.model_copy(update={"max_new_tokens": 1, "top_k": 5})
    tokens = [ids[0] for ids in run(model, [PROMPTS[0]] * n, config, batch_size=n)]
    probs = model(torch.tensor([PROMPTS[0]])).logits[0, -1].softmax(-1)
    top = probs.topk(5)
    for token, p in zip(top.indices.tolist(), (top.values / top.values.sum()).tolist(), strict=True):
        assert abs(tokens.count(token) / n - p) < 4 * (p * (1 - p) / n) ** 0.5
    assert set(tokens) <= set(top.indices.tolist())


def test_another_seed_gives_another_sample_and_the_same_seed_the_same(model):
    assert run(model, PROMPTS, seeds=[0] * 5) == run(model, PROMPTS, seeds=[0] * 5)
    assert run(model, PROMPTS, seeds=[0] * 5) != run(model, PROMPTS, seeds=[1] * 5)


def test_the_end_of_sequence_is_kept_and_named_and_so_is_the_length_stop(model):
    first = run(model, PROMPTS, GREEDY, eos=VOCAB - 1)[0]
    eos = first[3]
    done = sample_batch(
        model, [PROMPTS[0], PROMPTS[1]], config=GREEDY, seeds=[0, 0], eos_token_id=eos, pad_token_id=PAD
    )
    assert done[0].token_ids == first[: first.index(eos) + 1]
    assert done[0].finish_reason == "eos"
    assert all((s.finish_reason == "eos") == (s.token_ids[-1] == eos) for s in done)
    one = GREEDY.model_copy(update={"max_new_tokens": 2})
    stopped = sample_batch(model, [PROMPTS[0]], config=one, seeds=[0], eos_token_id=VOCAB - 1, pad_token_id=PAD)
    assert (stopped[0].token_ids, stopped[0].finish_reason) == (first[:2], "length")


def test_min_new_tokens_delays_the_end_of_sequence(model):
    eos = run(model, PROMPTS, GREEDY, eos=VOCAB - 1)[0][0]
    assert len(run(model, [PROMPTS[0]], GREEDY, eos=eos)[0]) == 1
    four = GREEDY.model_copy(update={"min_new_tokens": 4})
    ids = run(model, [PROMPTS[0]], four, eos=eos)[0]
    assert len(ids) >= 5
    assert eos not in ids[:4]


def test_a_vocabulary_of_one_token_ends_at_once_even_below_the_minimum():
    tiny = hf.GPT2LMHeadModel(
        hf.GPT2Config(vocab_size=1, n_embd=8, n_layer=1, n_head=1, n_positions=16, eos_token_id=0, bos_token_id=0)
    )
    config = SAMPLED.model_copy(update={"min_new_tokens": 3, "top_k": 50, "top_p": 0.8, "no_repeat_ngram_size": 2})
    done = sample_batch(tiny, [[0, 0], [0]], config=config, seeds=[1, 2], eos_token_id=0, pad_token_id=0)
    assert [s.token_ids for s in done] == [(0,), (0,)]


def test_batches_are_length_sorted_reported_and_put_back_in_order(model):
    assert plan_batches([3, 1, 7, 2, 5], 2) == [[2, 4], [0, 3], [1]]
    reported = []
    done = sample(
        model,
        PROMPTS,
        config=SAMPLED,
        seeds=range(5),
        eos_token_id=EOS,
        pad_token_id=PAD,
        batch_size=2,
        on_batch=reported.extend,
    )
    assert [i for i, _ in reported] == [2, 4, 0, 3, 1]
    assert [s for _, s in sorted(reported, key=lambda pair: pair[0])] == done


def test_training_mode_and_gradients_are_as_before(model):
    model.config.hidden_dropout = 0.5
    evaluated = run(model, PROMPTS)
    model.train()
    assert run(model, PROMPTS) == evaluated
    assert model.training
    model(torch.tensor([PROMPTS[0]])).logits.sum().backward()
    assert model.lm_head.weight.grad is not None


def test_a_prompt_that_does_not_fit_is_named(model):
    with pytest.raises(UserError, match=r"Prompt 1 has 60 tokens; .*max_new_tokens=12 .* context of 64 tokens"):
        run(model, [[5], [5] * 60])
    with pytest.raises(UserError, match="Prompt 0 has no tokens"):
        run(model, [[]])


def test_damaged_weights_are_reported_not_sampled_from(model):
    model.lm_head.weight.data[3] = float("nan")
    for config in (GREEDY, SAMPLED):
        with pytest.raises(UserError, match="not finite numbers"):
            run(model, PROMPTS, config)


def test_auto_batch_size_on_cpu_does_not_depend_on_the_machine(model):
    assert auto_batch_size(model, longest_prompt=10, max_new_tokens=10) == 64


def test_minimum_above_maximum_is_refused():
    with pytest.raises(ValueError, match="min_new_tokens=5 exceeds max_new_tokens=4"):
        GenerationConfig(**GREEDY.model_dump() | {"min_new_tokens": 5, "max_new_tokens": 4})
