"""The batch plan: every sequence once, similar lengths together, memory respected."""

from detoxlens.attribution.plan import MAX_TARGETS, PassCost, by_length, group_sequences, targets_per_chunk

SHAPE = PassCost(hidden=128, intermediate=512, num_heads=4, bytes_per_element=4)


def test_every_sequence_is_in_exactly_one_group_with_its_like():
    lengths = [(30, 25), (5, 2), (30, 24), (6, 2), (31, 25), (5, 0)]
    groups = group_sequences(lengths, cost=SHAPE, memory_bytes=12 * 2**20)
    assert sorted(i for group in groups for i in group) == list(range(6))
    assert groups[0] == [5, 1, 3, 2] or groups[0][:3] == [5, 1, 3]


def test_completions_of_one_length_come_together_and_then_prompts():
    assert by_length([(30, 2), (5, 9), (4, 2), (4, 2)]) == [2, 3, 0, 1]


def test_a_pass_keeps_to_the_memory_limit_but_a_single_sequence_is_always_let_through():
    groups = group_sequences([(30, 25)] * 20, cost=SHAPE, memory_bytes=16 * 2**20)
    pairs = len(groups[0]) * 55 * targets_per_chunk(55, 25)
    assert 1 < len(groups[0]) < 20
    assert pairs * SHAPE.bytes_per_pair(55) <= 16 * 2**20
    assert group_sequences([(30, 25)] * 2, cost=SHAPE, memory_bytes=1) == [[0], [1]]


def test_chunks_of_a_sequence_are_equally_long_and_bounded():
    assert targets_per_chunk(148, 85) == 22  # sqrt(3.2 * 148) = 21.8 -> 22: four chunks, the last of 19
    assert targets_per_chunk(55, 25) == 13  # sqrt(3.2 * 55) = 13.3 -> 13: two chunks of 13 and 12
    assert targets_per_chunk(55, 3) == 3
    assert targets_per_chunk(5, 0) == 1
    assert targets_per_chunk(2048, 1000) == 16  # of 32,768 pairs
    assert targets_per_chunk(100_000, 1000) == 1
    assert targets_per_chunk(500, 10**6) == MAX_TARGETS
