"""Does a 7 B model with a 2,048-token context fit one 80 GB card? The estimate, and the estimate put to the test.

Live at the worst moment are the weights, the forward's graph, and the gradients of one chunk of targets, which is what
`plan.PassCost` counts. On small models the first test measures that graph and gradients together stay below the two
formulas; the second puts the paper's sizes into the same formulas.
"""

from __future__ import annotations

import json

import pytest
import torch
import transformers as tf

from detoxlens.attribution import attribute
from detoxlens.attribution.api import pass_cost
from detoxlens.attribution.plan import PassCost, targets_per_chunk

CONTEXT, NUM_TARGETS = 2048, 100
CARD = 80 * 10**9


def gradient_bytes(shape: PassCost, seq: int, num_targets: int, num_sequences: int = 1) -> int:
    """What the plan counts with."""
    return num_sequences * seq * targets_per_chunk(seq, num_targets) * shape.bytes_per_pair(seq)


def graph_bytes(shape: PassCost, num_layers: int, seq: int, num_sequences: int = 1) -> int:
    """What a forward keeps for its backward: per layer the attention's probabilities, and at each position the inputs
    of its products, norms and activation (counted here: 10 hidden, 2 intermediate)."""
    per_layer = shape.num_heads * seq * seq + seq * (10 * shape.hidden + 2 * shape.intermediate)
    return num_sequences * num_layers * shape.bytes_per_element * per_layer


@pytest.mark.slow
@pytest.mark.parametrize(
    "hidden, num_layers, num_heads, seq, num_sequences, dtype",
    [
        (128, 4, 4, 64, 1, torch.float32),
        (128, 4, 4, 64, 8, torch.float32),
        (256, 4, 4, 256, 1, torch.float32),
        (256, 12, 4, 256, 1, torch.float32),
        (256, 4, 8, 128, 4, torch.bfloat16),
        (512, 8, 8, 512, 1, torch.bfloat16),
    ],
)
@pytest.mark.parametrize("architecture", ["gpt_neox", "falcon"])
def test_the_measured_peak_stays_below_the_estimate(
    tmp_path, architecture, hidden, num_layers, num_heads, seq, num_sequences, dtype
):
    common = {"vocab_size": 512, "hidden_size": hidden, "num_hidden_layers": num_layers}
    if architecture == "falcon":
        config = tf.FalconConfig(**common, num_attention_heads=num_heads, ffn_hidden_size=4 * hidden)
    else:
        config = tf.GPTNeoXConfig(**common, num_attention_heads=num_heads, intermediate_size=4 * hidden)
    model = tf.AutoModelForCausalLM.from_config(config).to(dtype).eval()
    completion = list(range(16))
    prompt = [i % 500 for i in range(seq - len(completion))]
    given = {"prompt_ids": [prompt] * num_sequences, "completion_ids": [completion] * num_sequences}
    attribute(model, prompt_ids=[[1]], completion_ids=[[2]])
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiled:
        attribute(model, **given, batch_size=num_sequences)
    profiled.export_chrome_trace(str(tmp_path / "trace.json"))
    events = [e for e in json.loads((tmp_path / "trace.json").read_text())["traceEvents"] if e["name"] == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda e: e["ts"]):
        live += event["args"]["Bytes"]
        peak = max(peak, live)
    shape = pass_cost(model)
    gradients = gradient_bytes(shape, seq, len(completion), num_sequences)
    assert 0.4 * gradients < peak < gradients + graph_bytes(shape, num_layers, seq, num_sequences)


@pytest.mark.parametrize(
    "config",
    [
        tf.GPTNeoXConfig(  # RedPajama-INCITE-7B
            vocab_size=50432, hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, intermediate_size=16384
        ),
        tf.FalconConfig(vocab_size=65024, hidden_size=4544, num_hidden_layers=32, num_attention_heads=71),  # falcon-7b
    ],
    ids=["gpt_neox", "falcon"],
)
def test_a_7b_model_with_2048_tokens_fits_one_80_gb_card_in_bfloat16(config):
    with torch.device("meta"):
        model = tf.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    assert weights > 13.5e9
    shape = pass_cost(model)
    gradients = gradient_bytes(shape, CONTEXT, NUM_TARGETS)
    assert gradients <= (CARD - weights) / 2  # what the plan allows a pass on an accelerator
    assert weights + graph_bytes(shape, config.num_hidden_layers, CONTEXT) + gradients <= CARD
