"""Tiny random models of every architecture of the study, and Inseq driven through a one-word-per-id tokenizer."""

from __future__ import annotations

import warnings

import torch

VOCAB = 96
ARCHITECTURES = (
    "gpt_neox",
    "gpt_neox_sequential",
    "falcon_rotary",
    "falcon_multi_query",
    "falcon_grouped",
    "falcon_alibi",
    "gpt2",
    "llama",
    "qwen2",
    "opt",
)
PROMPTS = [[5, 9, 44, 2, 17, 60, 31], [7, 8], [3], [50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61]]
COMPLETIONS = [[8, 70, 3, 41, 12], [9, 9, 4], [30, 31, 32, 33, 34, 35], [1, 2]]


def tiny_model(name: str, *, seed: int = 0, dtype: torch.dtype = torch.float32, num_layers: int = 2):
    """A random causal LM, hidden 32; weights large enough that tokens differ in what they contribute."""
    import transformers as tf

    special = {"bos_token_id": 0, "eos_token_id": VOCAB - 1, "pad_token_id": VOCAB - 1}
    common = {
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "num_hidden_layers": num_layers,
        "num_attention_heads": 4,
        **special,
    }
    neox = {**common, "intermediate_size": 64, "max_position_embeddings": 64}
    falcon = {**common, "new_decoder_architecture": False, "multi_query": False, "alibi": False, "parallel_attn": True}
    llama = {**neox, "num_key_value_heads": 2}
    gpt2 = {"vocab_size": VOCAB, "n_embd": 32, "n_layer": num_layers, "n_head": 4, "n_positions": 64, **special}
    opt = {**common, "ffn_dim": 64, "max_position_embeddings": 64, "word_embed_proj_dim": 32, "dropout": 0.0}
    make = {
        "gpt_neox": lambda: tf.GPTNeoXForCausalLM(tf.GPTNeoXConfig(**neox)),
        "gpt_neox_sequential": lambda: tf.GPTNeoXForCausalLM(tf.GPTNeoXConfig(**neox, use_parallel_residual=False)),
        "falcon_rotary": lambda: tf.FalconForCausalLM(tf.FalconConfig(**falcon)),
        "falcon_multi_query": lambda: tf.FalconForCausalLM(tf.FalconConfig(**{**falcon, "multi_query": True})),
        "falcon_grouped": lambda: tf.FalconForCausalLM(
            tf.FalconConfig(**{**falcon, "new_decoder_architecture": True, "num_kv_heads": 2})
        ),
        "falcon_alibi": lambda: tf.FalconForCausalLM(tf.FalconConfig(**{**falcon, "alibi": True})),
        "gpt2": lambda: tf.GPT2LMHeadModel(tf.GPT2Config(**gpt2)),
        "llama": lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**llama)),
        "qwen2": lambda: tf.Qwen2ForCausalLM(tf.Qwen2Config(**llama)),
        "opt": lambda: tf.OPTForCausalLM(tf.OPTConfig(**opt)),
    }
    torch.manual_seed(seed)
    model = make[name]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(5.0)
    return model.to(dtype)


def with_lora(model, *, seed: int = 1, target_modules=None):
    """A PeftModel whose LoRA matrices are random (both of them: a fresh adapter would change nothing)."""
    from peft import LoraConfig, get_peft_model

    conv = "gpt2" in model.config.model_type  # GPT-2 keeps its weights transposed
    linear = ("Linear", "FalconLinear", "Conv1D")
    modules = {n.split(".")[-1] for n, m in model.named_modules() if type(m).__name__ in linear}
    config = LoraConfig(r=4, target_modules=target_modules or sorted(modules - {"lm_head"}), fan_in_fan_out=conv)
    peft_model = get_peft_model(model, config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in peft_model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return peft_model.eval()


def word_tokenizer():
    """A tokenizer for which token i is the word `wi`, so that text and ids stand for each other."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = {"<bos>": 0, "<unk>": 1, "<eos>": VOCAB - 1}  # not w0: it would also match the beginning of other words
    words = {f"w{i}": i for i in range(VOCAB) if i not in special.values()}
    tokenizer = Tokenizer(models.WordLevel({**special, **words}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<bos>", eos_token="<eos>", pad_token="<eos>"
    )


def inseq_scores(
    model, prompt: list[int], completion: list[int], method: str, *, target: str = "probability", **kwargs
) -> list[list[float]]:
    """Inseq's aggregated scores: row t over prompt and generated prefix.

    Inseq rounds every step to float32; `_keep_dtype` undoes that, so that float64 can be compared as float64.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # captum and treescope warn on import and on every call
        import inseq
        from inseq.data.attribution import FeatureAttributionStepOutput as Step

        round_to_float32 = Step.__post_init__
        Step.__post_init__ = _keep_dtype
        try:
            wrapped = inseq.load_model(model, method, tokenizer=word_tokenizer(), device="cpu")
            text = " ".join(f"w{i}" for i in prompt)
            whole = " ".join(f"w{i}" for i in [*prompt, *completion])
            out = wrapped.attribute(text, whole, attributed_fn=target, show_progress=False, **kwargs)
        finally:
            Step.__post_init__ = round_to_float32
        scores = out.sequence_attributions[0].aggregate().target_attributions
    return [scores[: len(prompt) + t, t].tolist() for t in range(len(completion))]


def _keep_dtype(self) -> None:
    self._num_dimensions = self._num_dimensions or 0
    self.step_scores = self.step_scores or {}
    self.sequence_scores = self.sequence_scores or {}


def max_difference(ours, theirs) -> float:
    """Largest absolute difference between two ragged tables of scores."""
    assert [len(r) for r in ours] == [len(r) for r in theirs]
    return max(abs(a - b) for row, other in zip(ours, theirs, strict=True) for a, b in zip(row, other, strict=True))


def trained_lora(name: str):
    """A trained model with a trained LoRA adapter, sure of itself as such are, and eight texts that it knows.

    Returns:
        (PeftModel in float32, texts (8, 12) as lists of token ids).
    """
    texts = torch.randint(2, VOCAB - 1, (8, 12), generator=torch.Generator().manual_seed(2))
    base = tiny_model(name)
    _fit(base, list(base.parameters()), texts.flip(0, 1), num_steps=60)
    model = with_lora(base)
    _fit(model, [p for n, p in model.named_parameters() if "lora_" in n], texts, num_steps=120)
    return model, texts.tolist()


def _fit(model, parameters, texts, *, num_steps: int) -> None:
    optimizer = torch.optim.AdamW(parameters, lr=1e-2)
    for _ in range(num_steps):
        logits = model(input_ids=texts).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), texts[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def loop(model, prompt, completion, *, saliency=False, value=None):
    """The definition, one forward and one backward per generated token."""
    rows = []
    for t, token in enumerate(completion):
        ids = torch.tensor([[*prompt, *completion[:t]]])
        x = model.get_input_embeddings()(ids).detach().requires_grad_()
        logits = model(inputs_embeds=x.clone(), use_cache=False).logits[0, -1]
        (g,) = torch.autograd.grad(logits.softmax(-1)[token] if value is None else value(logits, t), x)
        norms = (g if saliency else g * x).norm(dim=-1)[0]
        rows.append((norms / norms.sum()).tolist())
    return rows
