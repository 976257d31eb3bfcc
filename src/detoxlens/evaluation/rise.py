"""The rise of a measure after the first tokens of a completion: mean of steps 4..8 minus mean of steps 1..3. Pure.

For the claim that entropy rises steeply there (Scalena et al. 2023, arXiv 2309.00751). Both means are of the same
completion, so what makes one prompt higher than another cancels; completions that end before step 8 say
nothing about it and are left out, whatever they are like before.
"""

from __future__ import annotations

import numpy as np

from detoxlens.evaluation.effects import StepTable

FIRST = (1, 3)
LATER = (4, 8)
"""Generated tokens (or words), from 1, both ends included."""


def rises(table: StepTable) -> StepTable:
    """The rise of every row (rows, 1), in the unit of the measure; NaN without a value at each of the steps 1..8.

    As a table of one step it goes through `effects.step_means` like any measure: level, model effect, text effect.

        [1, 1, 1, 3, 3, 3, 3, 3]    ->    3 - 1 = 2
        [1, 1, 1, 3, 3]             ->    NaN
    """
    values = np.full((len(table.prompts), LATER[1]), np.nan)
    width = min(LATER[1], table.values.shape[1])
    values[:, :width] = table.values[:, :width]
    first, later = (values[:, start - 1 : end].mean(axis=1, keepdims=True) for start, end in (FIRST, LATER))
    return StepTable(prompts=table.prompts, values=later - first, weights=table.weights)
