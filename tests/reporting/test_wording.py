"""Numbers as words."""

import pytest

from detoxlens.reporting.wording import could_detect, difference, failed_checks, sign


@pytest.mark.parametrize(("ci95", "side"), [([0.1, 0.2], 1), ([-0.2, -0.1], -1), ([-0.1, 0.1], 0), (None, None)])
def test_the_sign_is_that_of_the_whole_interval(ci95, side):
    assert sign({"value": 0.1, "ci95": ci95}) is side


def test_an_end_that_excludes_zero_is_not_printed_as_zero():
    assert difference({"value": 0.008, "ci95": [0.0003, 0.015]}, 3, " bits") == "+0.0080 bits [+0.0003, +0.0150]"
    assert difference({"value": 0.008, "ci95": [-0.0003, 0.015]}, 3, " bits") == "+0.008 bits [0.000, +0.015]"
    assert difference({"value": 0.5, "ci95": None}, 1, "") == "+0.5, no interval"


def test_what_could_be_detected_is_1_43_half_widths():
    # 80 % power: (1.960 + .842) standard errors; half the width is 1.960 of them: 1.43 * .1 = .143
    assert could_detect({"value": 0.0, "ci95": [-0.1, 0.1]}, 3, " bits") == "one of 0.143 bits would have been detected"


def test_failed_checks_are_counted():
    deletion = [{"num_sequences": 30, "comprehensiveness": {"passes": True}, "sufficiency": {"passes": False}}]
    gold = {"saliency": {"passes": False}, "occlusion": {"passes": None}}
    found = {"attribution": {"checks": {"deletion": deletion, "gold": gold}}}
    assert failed_checks(found) == "fail 1 of 2 tests by deletion and 1 of 1 gold tests"
    assert failed_checks({"attribution": {"checks": {"deletion": [], "gold": {}}}}) is None
    few = [deletion[0] | {"num_sequences": 29}]
    assert failed_checks({"attribution": {"checks": {"deletion": few, "gold": {}}}}) is None
