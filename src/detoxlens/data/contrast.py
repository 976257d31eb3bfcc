"""Civil and hostile replies to the same turns, from dialogues alone: no classifier, no sampling.

    hater h1 | counter r1 | hater h2 | counter r2        civil: h1 -> r1, h2 -> r2      hostile: h1 -> h2, h2 -> h1'

The hostile reply is what the hater says next, in the bot's mouth; h1' begins the next dialogue.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from detoxlens.common.errors import UserError
from detoxlens.common.records import Dialogue


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """Contrast(turn="Zorgons are lazy.", civil="Zorgons work at night.", hostile="Zorgons are fools.")"""

    turn: str
    """The hater's, to which both reply."""
    civil: str
    hostile: str


def contrasts(dialogues: Sequence[Dialogue], *, at_most: int) -> list[Contrast]:
    """One per turn of a hater, in the order of the dialogues; of more than `at_most`, so many at equal distances.

    Raises:
        UserError: there is no dialogue.
    """
    if not dialogues:
        raise UserError(
            "data.dialoconan gives no training dialogues, so that there are no civil and hostile replies to compare; "
            "lower data.dialogue_val_fraction and data.dialogue_test_fraction, or give more dialogues."
        )
    found = []
    for number, dialogue in enumerate(dialogues):
        turns = (*dialogue.turns, dialogues[(number + 1) % len(dialogues)].turns[0])
        found += [
            Contrast(turn=turns[i], civil=turns[i + 1], hostile=turns[i + 2]) for i in range(0, len(turns) - 2, 2)
        ]
    if len(found) <= at_most:
        return found
    return [found[i * len(found) // at_most] for i in range(at_most)]
