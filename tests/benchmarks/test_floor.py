"""The count of what attribution must compute, by hand and against a slow loop."""

import pytest
import torch

from benchmarks.floor import Floor, Rates, Widths, Work, best_seconds, count, floor, measure_rates

SHAPE = Widths(hidden=4, keys=4, intermediate=8, num_layers=2, num_heads=2, vocab=10)


def test_one_prompt_and_one_generated_token_by_hand():
    # weights of a layer: 4 * 12 + 4 * 4 + 2 * 4 * 8 = 128
    # weights: forward 2 * 1 * 2 * 128 = 512; head 2 * (2 * 4 * 10) = 160; last layer 2 * (2 * 16 + 2 * 32) = 192
    #          and its keys and values 4 * 4 * 4 * 1 = 64; layer below 2 * 1 * 128 = 256
    # attention: forward 4 * 4 * 2 * 1 = 32; last layer 8 * 4 * 1 = 32; below 8 * 4 * 1 = 32
    # element-wise: 1 * (16 + 16 + 16 + 2 * 8) + 2 * 2 * 1 = 68 numbers of 4 bytes
    assert count(SHAPE, [(1, 1)], bytes_per_element=4) == Work(
        weight_flops=512 + 160 + 192 + 64 + 256, attention_flops=32 + 32 + 32, elementwise_bytes=272.0
    )


def test_sequences_add_up_and_a_later_target_costs_more():
    one, other = count(SHAPE, [(3, 2)], bytes_per_element=4), count(SHAPE, [(5, 1)], bytes_per_element=4)
    both = count(SHAPE, [(3, 2), (5, 1)], bytes_per_element=4)
    assert both.weight_flops == one.weight_flops + other.weight_flops
    assert both.attention_flops == one.attention_flops + other.attention_flops
    first, second = (count(SHAPE, [(n, 1)], bytes_per_element=4).weight_flops for n in (3, 4))
    assert second > first


def test_the_floor_is_work_over_rate():  # 6 / 2 + 4 / 1 = 7; 10 / 5 = 2
    work = Work(weight_flops=6, attention_flops=4, elementwise_bytes=10)
    rates = Rates(weight_flops=2, attention_flops=1, elementwise_bytes=5)
    assert floor(work, rates) == Floor(matmul_seconds=7, elementwise_seconds=2)


def test_rates_are_measured_at_the_given_shapes():
    rates = measure_rates(SHAPE, seq=6, targets=2, device="cpu", dtype=torch.float32, seconds_each=0.001)
    assert min(rates.weight_flops, rates.attention_flops, rates.elementwise_bytes) > 0


def test_the_shortest_run_counts():
    runs = []
    assert best_seconds(lambda: runs.append(1), "cpu", 0.0) >= 0.0
    assert len(runs) == 5


@pytest.mark.parametrize("multi_query", [False, True])
def test_the_count_agrees_with_what_torch_counts_of_a_forward(multi_query):
    """torch's counter sees every product of a real forward; ours has the same weights plus the attention's pairs."""
    from torch.utils.flop_counter import FlopCounterMode

    from benchmarks.cases import falcon, neox, shape_of

    model = falcon(32, 2, 4, 64, dtype=torch.float32) if multi_query else neox(32, 2, 4, 48, 64)
    shape, seq = shape_of(model), 7
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.arange(seq)[None], use_cache=False)
    head = 2 * seq * shape.hidden * shape.vocab
    weights = 2 * seq * shape.num_layers * shape.weights
    attention = 4 * seq * seq * shape.hidden * shape.num_layers  # torch counts the masked half too
    assert counter.get_total_flops() - head in (weights, weights + attention)
