"""The KL coefficient, by hand."""

from __future__ import annotations

import pytest

from detoxlens.rl.controller import KlController

ADAPTIVE = KlController(coef=0.2, target=6.0, horizon=10_000)


@pytest.mark.parametrize(
    ("kl", "expected"),
    [
        (6.0, 0.2),  # on target
        (6.6, 0.2 * (1 + 0.1 * 64 / 10_000)),  # 10 % over
        (60.0, 0.2 * (1 + 0.2 * 64 / 10_000)),  # far over: the error is clipped at 20 %
        (0.0, 0.2 * (1 - 0.2 * 64 / 10_000)),
    ],
)
def test_adaptive_coefficient_follows_the_clipped_error(kl, expected):
    assert ADAPTIVE.updated(kl, 64).coef == pytest.approx(expected)


def test_fixed_coefficient_stays():
    fixed = KlController(coef=0.05, target=None, horizon=10_000)
    assert fixed.updated(1000.0, 64) == fixed
