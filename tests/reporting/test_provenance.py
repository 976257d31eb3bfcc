"""What the report says of the data that it was made from."""

from detoxlens.reporting.provenance import overlap


def test_overlap_is_counted_and_what_was_left_out_is_named():
    filters = {"p50": {"num_trained_on": 3}, "polite": {"num_trained_on": 0}}
    found, text = overlap({"prompts": {"overlap": {"test_in_val": 0, "test_near_copies": 2}, "filters": filters}})
    assert found and "test in val 0, test near copies 2." in text
    assert text.endswith("Left out because they stand in the training dialogues: 3 of p50.")
    clean, text = overlap({"prompts": {"overlap": {"test_in_val": 0}, "filters": {}}})
    assert not clean and "Left out" not in text


def test_without_a_summary_nothing_is_claimed():
    assert overlap(None) is None and overlap({"dialogues": {}}) is None
