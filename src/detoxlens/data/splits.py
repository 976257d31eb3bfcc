"""Train, val and test of the dialogues: no turn (or no hater turn) of one is in another.

DialoCONAN repeats itself: 43 % of its hater turns are copies, and a random split by dialogue leaves 70 % of the test's
in train. Dialogues that share a text are linked, and whole connected components are dealt out:

    a: [1, 2]   b: [2, 3]   c: [3, 4]   d: [5, 6]      a-b-c share 2 and 3 -> components {a, b, c}, {d}

Linked by any turn, six components, one per target group, hold two thirds of the published file (the largest 410 of
3,059 dialogues). A component that large would be a test set by itself, so only small ones are held out.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from detoxlens.common.errors import UserError
from detoxlens.common.records import Split
from detoxlens.common.seeding import derive_seed
from detoxlens.common.text import same_text_key
from detoxlens.params.data import LinkedBy

MAX_COMPONENT_SHARE = 0.25
"""A component that holds more than this share of a held-out split's dialogues goes to train, so that no held-out split
is a handful of near copies."""


@dataclass(frozen=True, slots=True)
class DialogueSplit:
    """The split of each dialogue, and the components behind it."""

    splits: tuple[Split, ...]
    component_sizes: tuple[int, ...]
    """Dialogues per component, largest first."""


def split_dialogues(
    dialogues: Sequence[Sequence[str]],
    *,
    val_fraction: float,
    test_fraction: float,
    linked_by: LinkedBy,
    seed: int,
    versions_of: Sequence[str] | None = None,
) -> DialogueSplit:
    """Deals whole components out: small ones in a pseudo-random order to test, then to val, the rest to train.

    Args:
        dialogues: Turns of each dialogue, hater first.
        val_fraction: Share of the dialogues for val; reached from below.
        test_fraction: Share of the dialogues for test; reached from below.
        linked_by: Which turns link two dialogues that both contain them.
        seed: Of the order; a component's place in it depends on its own texts alone.
        versions_of: Per dialogue what it is a version of; equal ones are linked, too. Empty or None: of nothing else.

    Raises:
        UserError: val, test or train is left empty.
    """
    keys = [[normalize(turn) for turn in (turns if linked_by == "all_turns" else turns[::2])] for turns in dialogues]
    versions = [[("version", v)] if v else [] for v in versions_of or [""] * len(keys)]
    components = connected_components([[*own, *version] for own, version in zip(keys, versions, strict=True)])
    waiting = sorted(components, key=lambda c: min(derive_seed(seed, "dialogues", key) for i in c for key in keys[i]))
    splits: list[Split] = ["train"] * len(dialogues)
    for split, fraction in (("test", test_fraction), ("val", val_fraction)):
        quota = max(1, round(fraction * len(dialogues)))
        largest = max(1, MAX_COMPONENT_SHARE * quota)
        left, num_taken = [], 0
        for component in waiting:
            if len(component) <= largest and num_taken + len(component) <= quota:
                num_taken += len(component)
                for i in component:
                    splits[i] = split
            else:
                left.append(component)
        waiting = left
    sizes = sorted(map(len, components), reverse=True)
    for split in ("train", "val", "test"):
        if split not in splits:
            raise UserError(
                f"data: of {len(dialogues)} dialogues none is left for {split}: linked by shared text they form "
                f"{len(sizes)} component(s), the largest of {sizes[0]} dialogues. Use more or more varied dialogues, "
                f"or change data.dialogue_{'val' if split == 'train' else split}_fraction or data.dialogue_linked_by "
                f"(now {linked_by}; all_turns links more than hater_turns)."
            )
    return DialogueSplit(tuple(splits), tuple(sizes))


def connected_components(keys: Sequence[Sequence[Hashable]]) -> list[list[int]]:
    """Indices of the rows that are linked, directly or through others, by a common key; each index in one component.

    connected_components([["a"], ["b"], ["a", "c"], ["c"]]) == [[0, 2, 3], [1]]
    """
    parent = list(range(len(keys)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first_with: dict[Hashable, int] = {}
    for i, row in enumerate(keys):
        for key in row:
            parent[root(i)] = root(first_with.setdefault(key, i))
    members: dict[int, list[int]] = {}
    for i in range(len(keys)):
        members.setdefault(root(i), []).append(i)
    return list(members.values())


def normalize(text: str) -> str:
    """What two texts must have in common to count as the same: all but case, white space, Unicode forms, and
    characters that nobody sees."""
    return same_text_key(text)
