"""Models that break the contract of Hugging Face's forwards, each in its way: found out, and right all the same."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
import transformers as hf

from detoxlens.common.errors import UserError
from detoxlens.models.capabilities import LONGEST_WINDOW, Trial, examine
from detoxlens.models.forward import context_length
from detoxlens.models.generation import auto_batch_size, sample
from detoxlens.models.likelihood import completion_nll
from detoxlens.params.generation import GenerationConfig
from tests.architectures import SIZES, greedy_by_hand, log_probs_by_hand, random_model
from tests.attribution.tiny import VOCAB

pytestmark = pytest.mark.filterwarnings("default")  # of deprecated models

PAD = VOCAB - 1
PROMPTS = [[21, 4, 37, 55, 8, 13, 60], [18, 2, 44], [7, 7, 9, 12, 30, 31, 32, 33, 34, 35, 36, 5], [3, 1, 2]]
COMPLETIONS = [[5, 6, 7], [9], [44, 3, 19, 51], [8, 8, 8, 8, 8]]
GREEDY = GenerationConfig(
    max_new_tokens=6,
    min_new_tokens=0,
    temperature=0,
    top_k=0,
    top_p=1,
    no_repeat_ngram_size=0,
    num_samples=1,
    batch_size=4,
)
WHOLE = {"cached", "rows_leave", "left_padded", "keeps_logits", "head_selects"}


class Swallowing(hf.GPTNeoXForCausalLM):
    """Takes `logits_to_keep` and gives all."""

    def forward(self, input_ids=None, attention_mask=None, position_ids=None, use_cache=None, **kwargs):
        kept = {k: v for k, v in kwargs.items() if k == "past_key_values"}
        return super().forward(
            input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids, use_cache=use_cache, **kept
        )


class Forgetful(hf.GPTNeoXForCausalLM):
    """Takes a cache and never looks at it."""

    def forward(self, input_ids=None, attention_mask=None, position_ids=None, past_key_values=None, **kwargs):
        return super().forward(input_ids=input_ids, attention_mask=None, position_ids=position_ids, **kwargs)


class Plain(hf.GPTNeoXForCausalLM):
    """Takes token ids, and nothing else."""

    def forward(self, input_ids, use_cache=None):
        return super().forward(input_ids=input_ids, use_cache=False)


class HeadIsNoModule(hf.GPTNeoXForCausalLM):
    """Multiplies by the output layer's weights past the layer."""

    def forward(self, input_ids=None, **kwargs):
        hidden = self.gpt_neox(input_ids=input_ids, **kwargs | {"logits_to_keep": 0}).last_hidden_state
        return hf.modeling_outputs.CausalLMOutput(logits=hidden @ self.lm_head.weight.T)


def neox(cls):
    torch.manual_seed(0)
    sizes = {k: v for k, v in SIZES.items() if k not in ("num_key_value_heads", "head_dim")}
    return cls(hf.GPTNeoXConfig(**sizes, initializer_range=0.3)).eval()


def falcon():
    torch.manual_seed(0)
    sizes = {k: v for k, v in SIZES.items() if k not in ("num_key_value_heads", "head_dim", "intermediate_size")}
    return hf.FalconForCausalLM(hf.FalconConfig(**sizes, alibi=False, initializer_range=0.3)).eval()


def gemma3_with_images():
    """Settings of the text model lie in `text_config`."""
    text = SIZES | {"sliding_window": 16}
    vision = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    images = {"mm_tokens_per_image": 4, "image_token_index": 91, "boi_token_index": 92, "eoi_token_index": 93}
    torch.manual_seed(0)
    config = hf.Gemma3Config(text_config=text, vision_config=vision, **images)
    return hf.AutoModelForCausalLM.from_config(config).eval()


MODELS = {
    "gpt_neox": (lambda: neox(hf.GPTNeoXForCausalLM), WHOLE),
    "falcon": (falcon, WHOLE),
    "llama": (lambda: random_model("llama"), WHOLE),
    "opt": (lambda: random_model("opt", pad_token_id=1), WHOLE),
    "gemma3 with images": (gemma3_with_images, WHOLE),
    "lfm3": (lambda: random_model("lfm3"), WHOLE - {"rows_leave"}),
    "trocr": (lambda: random_model("trocr", is_decoder=True), WHOLE - {"left_padded", "keeps_logits"}),
    "mamba": (lambda: random_model("mamba"), WHOLE - {"cached", "rows_leave"}),
    "openai-gpt": (lambda: random_model("openai-gpt"), WHOLE - {"cached", "rows_leave"}),
    "rwkv": (lambda: random_model("rwkv"), {"head_selects"}),
    "recurrent_gemma": (lambda: random_model("recurrent_gemma"), {"head_selects"}),
    "swallows logits_to_keep": (lambda: neox(Swallowing), WHOLE - {"keeps_logits"}),
    "forgets its cache": (lambda: neox(Forgetful), WHOLE - {"cached", "rows_leave"}),
    "takes ids alone": (lambda: neox(Plain), {"head_selects"}),
    "goes past its output layer": (lambda: neox(HeadIsNoModule), WHOLE - {"keeps_logits", "head_selects"}),
}


@pytest.mark.parametrize("name", MODELS)
def test_what_a_model_cannot_do_is_found_and_its_numbers_are_those_of_plain_passes(name):
    make, expected = MODELS[name]
    model = make().float()
    able = examine(model, pad_token_id=PAD)
    assert {what for what in WHOLE if getattr(able, what)} == expected
    eos = greedy_by_hand(model, PROMPTS[0], 6, -1)[2]  # this row ends, and leaves, before the others
    found = sample(
        model,
        PROMPTS,
        config=GREEDY,
        seeds=[0] * 4,
        eos_token_id=eos,
        pad_token_id=PAD,
        batch_size=4,
        capabilities=able,
    )
    assert [list(s.token_ids) for s in found] == [greedy_by_hand(model, p, 6, eos) for p in PROMPTS]
    nll_nats = completion_nll(model, PROMPTS, COMPLETIONS, batch_size=4, pad_token_id=PAD, capabilities=able)
    by_hand = [-sum(log_probs_by_hand(model, p, c)) for p, c in zip(PROMPTS, COMPLETIONS, strict=True)]
    assert nll_nats == pytest.approx(by_hand, abs=2e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["gpt_neox", "falcon", "trocr", "mamba", "swallows logits_to_keep"])
def test_half_precision_hides_no_fault_and_makes_none(name, dtype):
    make, expected = MODELS[name]
    able = examine(make().to(dtype), pad_token_id=PAD)
    assert {what for what in WHOLE if getattr(able, what)} == expected


def test_the_trial_draws_no_random_number_and_leaves_the_model_as_it_was():
    model = neox(hf.GPTNeoXForCausalLM).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    torch.manual_seed(3), np.random.seed(3)
    expected = torch.rand(1), np.random.rand()
    torch.manual_seed(3), np.random.seed(3)
    assert examine(model, pad_token_id=PAD) == examine(model, pad_token_id=PAD)
    assert (torch.rand(1), np.random.rand()) == expected
    assert model.training
    assert all(v.equal(before[k]) for k, v in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())


def test_a_short_attention_window_is_crossed_and_a_long_one_is_not():
    """A cache that forgets what is outside a window of 16 shows only behind it."""
    crossing = Trial(random_model("mistral", sliding_window=16), PAD, "m")
    assert (len(crossing.long), len(crossing.short)) == (28, 23)
    longer = Trial(random_model("mistral", sliding_window=LONGEST_WINDOW + 1), PAD, "m")
    assert (len(longer.long), len(longer.short)) == (12, 7)
    limited = Trial(random_model("mistral", sliding_window=16, max_position_embeddings=20), PAD, "m")
    assert (len(limited.long), len(limited.short)) == (20, 15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_model_that_reads_what_comes_after_is_refused_before_the_first_token(dtype):
    """Between two continuations BERT's logits differ by .03 of their spread, and a causal model's by nothing."""
    bert = random_model("bert").to(dtype)
    with pytest.raises(UserError, match="BertLMHeadModel reads the tokens after a position"):
        sample(bert, PROMPTS, config=GREEDY, seeds=[0] * 4, eos_token_id=0, pad_token_id=PAD, batch_size=4)
    with pytest.raises(UserError, match="BertLMHeadModel reads the tokens after a position"):
        completion_nll(bert, PROMPTS, COMPLETIONS, batch_size=4, pad_token_id=PAD)


def test_a_model_that_needs_more_than_token_ids_is_refused():
    class NeedsImages(hf.GPTNeoXForCausalLM):
        def forward(self, input_ids=None, pixel_values=None, **kwargs):
            raise ValueError("You have to specify pixel_values")

    with pytest.raises(UserError, match=r"NeedsImages cannot be run on token ids alone .*You have to specify pixel"):
        examine(neox(NeedsImages), pad_token_id=PAD)


def test_a_model_that_normalises_over_the_whole_row_is_refused():
    class OverTheRow(hf.GPTNeoXForCausalLM):
        def forward(self, input_ids=None, **kwargs):
            found = super().forward(input_ids=input_ids, **kwargs)
            found.logits = found.logits * input_ids.shape[1]
            return found

    with pytest.raises(UserError, match="OverTheRow is changed by the padding behind a text"):
        examine(neox(OverTheRow), pad_token_id=PAD)


def test_padding_without_a_row_in_the_embedding_is_filled_with_another_token():
    model = neox(hf.GPTNeoXForCausalLM)
    assert examine(model, pad_token_id=VOCAB).filler_id == examine(model, pad_token_id=None).filler_id == 0
    inside, outside = (
        completion_nll(model, PROMPTS, COMPLETIONS, batch_size=4, pad_token_id=pad) for pad in (PAD, VOCAB + 5)
    )
    assert inside == pytest.approx(outside, abs=1e-4)


def test_a_prompt_of_another_tokenizer_is_refused():
    with pytest.raises(UserError, match=r"Prompt 1 has the token 96, and the model knows 0\.\.95"):
        sample(
            neox(hf.GPTNeoXForCausalLM),
            [[5], [4, 96]],
            config=GREEDY,
            seeds=[0, 0],
            eos_token_id=0,
            pad_token_id=0,
            batch_size=2,
        )


def test_settings_one_level_down_are_found(monkeypatch):
    model = gemma3_with_images()
    assert context_length(model) == 64
    with pytest.raises(UserError, match="exceeds the model's context of 64 tokens"):
        sample(model, [[3] * 70], config=GREEDY, seeds=[0], eos_token_id=1, pad_token_id=0, batch_size=1)


@pytest.mark.parametrize("name", ["llama", "gemma3 with images", "mamba"])
def test_rows_that_fit_on_an_accelerator_are_reckoned_for_every_kind(name, monkeypatch):
    class OnCuda:
        config, dtype, device = MODELS[name][0]().config, torch.float32, torch.device("cuda:0")

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**22, 2**22))
    # a row keeps 2 (key, value) x 2 layers x 32 wide x 30 tokens x 4 bytes, twice, and 8 x 4 x 96 of logits: 33,792
    # bytes; half of 4 MiB holds 62, of which the power of two is 32
    assert auto_batch_size(OnCuda(), longest_prompt=20, max_new_tokens=10) == 32


def test_the_log_says_why_sampling_is_slow(caplog):
    with caplog.at_level(logging.WARNING):
        examine(random_model("mamba").float(), pad_token_id=PAD).warn_of_slow_sampling("m")
        examine(neox(hf.GPTNeoXForCausalLM), pad_token_id=PAD).warn_of_slow_sampling("n")
    assert [r.message for r in caplog.records if r.name == "detoxlens.models.capabilities"] == [
        "m has no cache to rely on: each new token takes a pass over its whole prefix"
    ]
