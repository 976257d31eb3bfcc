"""Several checkpoints on one prompt and one completion: the same tokens, so that what differs is the model.

explanations   the first is what the others are compared with
d_share[t][j]  attribution of generated token t on prompt token j, less the first checkpoint's
moved[t]       half the sum of |d| over the whole row: the share of the attribution that lies elsewhere, 0..1
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from detoxlens.common.errors import UserError
from detoxlens.explain.explanation import Explanation
from detoxlens.explain.terminal import shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A checkpoint less the first one, a value per generated token; None where either is undefined."""

    checkpoint: str
    prob: tuple[float, ...]
    """Of the token's probability, -1..1."""
    entropy_bits: tuple[float | None, ...]
    """Of the entropy over the prompt."""
    dependence: tuple[float | None, ...]
    """Of the attribution's share on the prompt, -1..1."""
    moved: tuple[float, ...]
    """Share of the attribution that lies on other tokens, 0..1 (total variation distance)."""
    share: tuple[tuple[float, ...], ...]
    """Of the attribution on every token before, each row summing to 0."""

    @property
    def mean_moved(self) -> float:
        return sum(self.moved) / len(self.moved)


def same_pieces(explanations: Sequence[Explanation]) -> bool:
    """Whether all checkpoints read and write the same pieces, so that one can be subtracted from another."""
    return len({(e.prompt_pieces, e.completion_pieces) for e in explanations}) == 1


def difference(first: Explanation, other: Explanation) -> Difference:
    """`other` less `first`, which have the same pieces."""
    share = tuple(
        tuple(b - a for a, b in zip(one, two, strict=True)) for one, two in zip(first.scores, other.scores, strict=True)
    )
    return Difference(
        checkpoint=other.checkpoint,
        prob=tuple(b - a for a, b in zip(first.token_prob, other.token_prob, strict=True)),
        entropy_bits=_less(other.entropy_bits(), first.entropy_bits()),
        dependence=_less(other.dependence(), first.dependence()),
        moved=tuple(sum(map(abs, row)) / 2 for row in share),
        share=share,
    )


def differences(explanations: Sequence[Explanation]) -> list[Difference]:
    """Of every checkpoint but the first; none where they cut the text differently."""
    return [difference(explanations[0], e) for e in explanations[1:]] if same_pieces(explanations) else []


def check_names(checkpoints: Sequence[str]) -> None:
    """Raises UserError unless there are at least two checkpoints, each named once."""
    if len(checkpoints) < 2:
        raise UserError(
            "compare needs at least two checkpoints, e.g. `tiny-neox/base tiny-neox/rl`; `detoxlens explain` shows one."
        )
    for name in checkpoints:
        if checkpoints.count(name) > 1:
            raise UserError(f"{name} is named twice; a checkpoint differs from itself in nothing.")


def why_no_differences(explanations: Sequence[Explanation]) -> str:
    """Names the first piece that the checkpoints cut differently; empty where they agree."""
    first = explanations[0]
    for other in explanations[1:]:
        for what, one, two in (
            ("prompt", first.prompt_pieces, other.prompt_pieces),
            ("completion", first.completion_pieces, other.completion_pieces),
        ):
            if one != two:
                at = next(
                    (i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two))
                )
                a, b = (shown(pieces[at]) if at < len(pieces) else "nothing more" for pieces in (one, two))
                return (
                    f"No differences per {first.unit}: {first.checkpoint} and {other.checkpoint} read the {what} as "
                    f"different {first.unit}s ({a} and {b} at place {at + 1}); --words may make them comparable, and "
                    "so may --template or --no-template."
                )
    return ""


def _less(ours: Sequence[float | None], theirs: Sequence[float | None]) -> tuple[float | None, ...]:
    return tuple(None if None in pair else pair[0] - pair[1] for pair in zip(ours, theirs, strict=True))
