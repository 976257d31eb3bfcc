"""More seeds of what a study trains: variants `ft-1`, `ft-2`, ... beside `ft`, shown together as one group."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detoxlens.params.edit import change_params, change_run_section, variant_lists
from detoxlens.params.kinds import KINDS
from detoxlens.params.load import load_params


def add_seeds(params_path: Path, num_seeds: int) -> None:
    """Writes variants into params.yaml until each trained one, placebos aside, has `num_seeds` seeds.

    Beside `ft` of seed 0 that is `ft-1` of seed 1 and so on, in its group; a variant that is there already stays.

    Raises:
        UserError: the result would not be valid; the file is as it was.
    """
    params = load_params(params_path)
    names: list[str] = []
    added: dict[tuple[str, ...], Any] = {}
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
                added["variants", seed] = params.raw["variants"][name] | {"seed": first + k, "group": name}
    change_params(params_path, added)
    change_run_section(params_path, variant_lists(load_params(params_path), names))
