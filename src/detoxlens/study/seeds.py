"""More seeds of what a study trains: variants `ft-1`, `ft-2`, ... beside `ft`, shown together as one group."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detoxlens.params.edit import change_params, variant_lists
from detoxlens.params.kinds import KINDS
from detoxlens.params.load import Params, load_params


def add_seeds(params_path: Path, num_seeds: int) -> None:
    """Writes variants into params.yaml until each trained one, placebos aside, has `num_seeds` seeds.

    Beside `ft` of seed 0 that is `ft-1` of seed 1 and so on, in its group; a variant that is there already stays.

    Raises:
        UserError: the result would not be valid; the file is as it was.
    """
    params = load_params(params_path)
    names: list[str] = []
    declared: dict[str, Any] = dict(params.raw["variants"])
    for name in params.run.variants:
        names.append(name)
        own = params.variant(name)
        if own.kind == "base" or not KINDS[own.kind].draws or own.placebo_of or own.group not in (None, name):
            continue
        first = params.run.seed if own.seed is None else own.seed
        for k in range(1, num_seeds):
            seed = f"{name}-{k}"
            if seed not in params.run.variants:
                names.append(seed)
                declared.setdefault(seed, declared[name] | {"seed": first + k, "group": name})
    lists = variant_lists(Params(params.raw | {"variants": declared}, params.path), names)
    added = {("variants", name): of for name, of in declared.items() if name not in params.raw["variants"]}
    change_params(params_path, added | {("run", key): value for key, value in lists.items()})
