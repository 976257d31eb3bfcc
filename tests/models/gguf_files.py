"""Small GGUF files as llama.cpp's converter writes them, from random models, and the format's arithmetic by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter, quants
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

CHAT_TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEXTS = [
    "def f(x):\n    return x * 12 + 345  # code",
    "In 2026, on the 30th, 12345 people came.",
    "Zorgons hum in the evening, and nobody minds.",
    "  two spaces, then a tab\tand 3.14159",
]
NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def digits_tokenizer() -> Tokenizer:
    """A byte-level BPE that splits each digit off first, as SmolLM's does."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(TEXTS * 3 + ["  \n\n   \n"] * 9, trainer)
    return bpe


def random_llama(vocab_size: int, *, tied: bool = True) -> LlamaForCausalLM:
    """Two layers of width 64, four heads that share two keys: what RoPE's order and a tied head can go wrong in."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocab_size, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=tied, rms_norm_eps=1e-5,
        bos_token_id=1, eos_token_id=2, pad_token_id=2, rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return model


def write_gguf(
    path: Path,
    model: LlamaForCausalLM,
    tokenizer: Tokenizer,
    *,
    quantization: GGMLQuantizationType = GGMLQuantizationType.F32,
    pre: str = "smollm",
    architecture: str = "llama",
    without: str = "",
    extra_tensor: str = "",
    rope_scaling: str = "",
) -> None:
    """Writes `model`; matrices in `quantization`, norms in float32.

    Args:
        path: of the file.
        model: a Llama.
        tokenizer: its vocabulary and merges go into the file, how it splits text does not.
        quantization: of the matrices.
        pre: tokenizer.ggml.pre.
        architecture: general.architecture.
        without: a tensor to leave out.
        extra_tensor: a tensor of ones to add.
        rope_scaling: <architecture>.rope.scaling.type.
    """
    config, writer = model.config, GGUFWriter(path, architecture)
    writer.add_name("Random")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    if rope_scaling:
        writer.add_string(f"{architecture}.rope.scaling.type", rope_scaling)
    bpe = json.loads(tokenizer.to_str())
    tokens = sorted(bpe["model"]["vocab"], key=bpe["model"]["vocab"].__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in SPECIAL else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in bpe["model"]["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)
    weights = dict(model.state_dict())
    if config.tie_word_embeddings:
        weights.pop("lm_head.weight", None)
    for name, tensor in weights.items():
        array = in_file_order(name, tensor.float().numpy(), config)
        kind = quantization if array.ndim == 2 else GGMLQuantizationType.F32
        if file_name(name) != without:
            writer.add_tensor(file_name(name), quants.quantize(array, kind), raw_dtype=kind)
    if extra_tensor:
        writer.add_tensor(extra_tensor, np.ones(8, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def file_name(name: str) -> str:
    """model.layers.0.mlp.up_proj.weight -> blk.0.ffn_up.weight"""
    whole = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    whole["lm_head.weight"] = "output.weight"
    if name in whole:
        return whole[name]
    _, _, layer, *inner, kind = name.split(".")
    return f"blk.{layer}.{NAMES['.'.join(inner)]}.{kind}"


def in_file_order(name: str, array: np.ndarray, config: LlamaConfig) -> np.ndarray:
    """Rows of queries and keys as llama.cpp rotates them: pairs of neighbours, where Hugging Face pairs halves.

    One head of four rows:  [a0 a1 b0 b1] (a0 turns with b0)  ->  [a0 b0 a1 b1]
    """
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    count = next((n for key, n in heads.items() if f".{key}." in name), None)
    if count is None:
        return array
    size = array.shape[0] // count
    order = [h * size + half * size // 2 + i for h in range(count) for i in range(size // 2) for half in (0, 1)]
    return np.ascontiguousarray(array[order])


def dequantised_q4_1(raw: bytes) -> list[float]:
    """Values of Q4_1 blocks, by hand: float16 scale d and minimum m, then 32 numbers q of 4 bits; value = d q + m.

    Byte j of a block holds number j in its low half and number j + 16 in its high half.
    """
    values: list[float] = []
    for start in range(0, len(raw), 20):
        d, m = np.frombuffer(raw[start : start + 4], dtype=np.float16).astype(np.float32)
        packed = raw[start + 4 : start + 20]
        values += [float(d * np.float32(byte & 15) + m) for byte in packed]
        values += [float(d * np.float32(byte >> 4) + m) for byte in packed]
    return values
