"""Our loop and vLLM behind one call: halves of a batch that does not fit; what vLLM is asked, and what it answers."""

import json
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from detoxlens.common.errors import UserError
from detoxlens.common.records import ModelRef
from detoxlens.models import backends
from detoxlens.models.backends import VLLM_BATCH_SIZE, load_backend
from detoxlens.models.generation import Sampled
from detoxlens.params.generation import GenerationConfig
from detoxlens.params.models import ModelConfig
from tests.data.tokenizers import byte_bpe
from tests.models.checkpoints import TEMPLATE, save_language_model

PROMPTS, SEEDS = [(5, 9, 7), (12,), (8, 8, 30), (17, 3), (40,)], [1, 2, 3, 4, 5]
TOKENIZER = SimpleNamespace(eos_token_id=0, pad_token_id=1)


def decoding(**changes):
    plain = {
        "max_new_tokens": 6,
        "min_new_tokens": 1,
        "temperature": 0.7,
        "top_k": 0,
        "top_p": 0.8,
        "no_repeat_ngram_size": 0,
        "num_samples": 1,
        "batch_size": "auto",
    }
    return GenerationConfig(**plain | changes)


def spec(**changes):
    return ModelConfig(source="m", template=TEMPLATE, **changes)


def test_a_batch_that_does_not_fit_is_halved_and_the_tokens_are_the_same(tmp_path, monkeypatch):
    ref = save_language_model(tmp_path / "m")
    backend = load_backend(tmp_path, ref, spec(), TOKENIZER, decoding(), device="cpu")
    whole, real, sizes = backend.sample(PROMPTS, SEEDS), backends.sample_batch, []

    def small(network, prompts, **kwargs):
        sizes.append(len(prompts))
        if len(prompts) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(network, prompts, **kwargs)

    monkeypatch.setattr(backends, "sample_batch", small)
    limit = 2
    assert backend.sample(PROMPTS, SEEDS) == whole
    assert sizes == [5, 2, 3, 1, 2]
    limit = 0
    with pytest.raises(UserError, match="A single prompt of 3 tokens with 6 new ones does not fit"):
        backend.sample(PROMPTS, SEEDS)


class FakeVllm(ModuleType):
    """Notes what it is asked; answers each prompt with its first id and an end."""

    def __init__(self):
        super().__init__("vllm")
        self.asked = {}
        fake = self

        class LLM:
            llm_engine = SimpleNamespace(model_config=SimpleNamespace(max_model_len=96))

            def __init__(self, **kwargs):
                fake.asked["llm"] = kwargs

            def generate(self, prompts, **kwargs):
                fake.asked |= kwargs
                answers = [
                    ((p["prompt_token_ids"][0], *end), why) for p, (end, why) in zip(prompts, fake.ends, strict=True)
                ]
                return [
                    SimpleNamespace(outputs=[SimpleNamespace(token_ids=list(ids), finish_reason=why)])
                    for ids, why in answers
                ]

        self.LLM, self.SamplingParams = LLM, lambda **kwargs: kwargs


@pytest.fixture
def vllm(monkeypatch):
    fake, request = FakeVllm(), ModuleType("vllm.lora.request")
    request.LoRARequest = lambda *args: args
    for name, module in {"vllm": fake, "vllm.lora": ModuleType("vllm.lora"), "vllm.lora.request": request}.items():
        monkeypatch.setitem(sys.modules, name, module)
    return fake


def test_vllm_is_asked_for_the_same_decoding_with_the_adapter_as_its_lora_request(tmp_path, vllm):
    (tmp_path / "adapters/m/ft").mkdir(parents=True)
    (tmp_path / "adapters/m/ft/adapter_config.json").write_text(json.dumps({"r": 64}))
    ref = ModelRef(base="zorgon/lm", revision="abc", adapter="adapters/m/ft")
    config = decoding(backend="vllm")
    backend = load_backend(tmp_path, ref, spec(dtype="bfloat16"), TOKENIZER, config, device="cuda")
    assert vllm.asked["llm"] == {
        "model": "zorgon/lm",
        "revision": "abc",
        "tokenizer_revision": "abc",
        "dtype": "bfloat16",
        "trust_remote_code": False,
        "quantization": None,
        "enable_lora": True,
        "max_lora_rank": 64,
    }
    vllm.ends = [((0,), "stop"), ((), "stop"), ((3, 4), "length")]
    assert backend.sample(PROMPTS[:3], SEEDS[:3]) == [
        Sampled((5, 0), "eos"),
        Sampled((12, 0), "eos"),
        Sampled((8, 3, 4), "length"),
    ]
    assert vllm.asked["sampling_params"][1] == {
        "max_tokens": 6,
        "min_tokens": 1,
        "temperature": 0.7,
        "top_k": -1,
        "top_p": 0.8,
        "seed": 2,
        "stop_token_ids": [0],
        "detokenize": False,
    }
    assert vllm.asked["lora_request"] == ("ft", 1, str(tmp_path / "adapters/m/ft"))
    assert (backend.context_length, backend.auto_batch_size(9)) == (96, VLLM_BATCH_SIZE)


@pytest.mark.parametrize("named_in", ["generation_config.json", "config.json"])
def test_vllm_is_given_the_end_tokens_of_our_loop_and_an_answer_that_has_one_gets_no_second(tmp_path, vllm, named_in):
    tokenizer, folder = byte_bpe(), tmp_path / "m"
    eos, over, turn_end = tokenizer.eos_token_id, *tokenizer.convert_tokens_to_ids(["<|over|>", "<pad>"])
    ref = save_language_model(folder)
    config = json.loads((folder / named_in).read_text()) | {"eos_token_id": [over, eos]}
    (folder / named_in).write_text(json.dumps(config))
    if named_in == "config.json":  # as checkpoints from before generation_config.json are
        (folder / "generation_config.json").unlink()
    ours, theirs = (
        load_backend(
            tmp_path,
            ref,
            spec(),
            tokenizer,
            decoding(backend=name, min_new_tokens=4),
            device="cpu",
            turn_ends=(turn_end, over),
        )
        for name in ("torch", "vllm")
    )
    assert theirs.eos_token_id == ours.eos_token_id == (eos, over, turn_end)
    vllm.ends = [((over,), "stop"), ((turn_end,), "stop"), ((), "stop")]
    assert [s.token_ids for s in theirs.sample(PROMPTS[:3], SEEDS[:3])] == [(5, over), (12, turn_end), (8, eos)]
    asked = vllm.asked["sampling_params"][0]  # vLLM's min_tokens bans the end token and all of stop_token_ids
    assert (asked["min_tokens"], asked["stop_token_ids"]) == (4, [eos, over, turn_end])


def test_vllm_without_an_adapter_gets_none(tmp_path, vllm):
    ref = ModelRef(base="zorgon/lm", revision="abc", adapter=None)
    backend = load_backend(tmp_path, ref, spec(), TOKENIZER, decoding(backend="vllm"), device="cuda")
    assert backend.lora is None and vllm.asked["llm"]["enable_lora"] is False


def test_what_vllm_cannot_do_is_told(tmp_path, vllm, monkeypatch):
    ref, none_twice = ModelRef(base="zorgon/lm", revision="abc", adapter=None), decoding(no_repeat_ngram_size=2)
    config = none_twice.model_copy(update={"backend": "vllm"})
    with pytest.raises(UserError, match="vLLM cannot forbid repeated n-grams"):
        load_backend(tmp_path, ref, spec(), TOKENIZER, config, device="cuda")
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match=r"needs the package vllm, .*pip install -e '\.\[vllm\]'"):
        load_backend(tmp_path, ref, spec(), TOKENIZER, config, device="cuda")
