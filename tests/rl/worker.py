"""One of several processes of a small PPO run, for test_world.py: python worker.py SETTINGS_JSON."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parent))
import conftest

from detoxlens.common.errors import UserError
from detoxlens.rl.checkpoint import adapter_state
from detoxlens.rl.ppo import PPO
from detoxlens.rl.world import join


def made_by(fixture):
    """What a fixture without arguments returns."""
    return fixture._get_wrapped_function()()


def main() -> None:
    settings = json.loads(sys.argv[1])
    tokenizer, policy = made_by(conftest.tokenizer), made_by(conftest.make_policy)()
    prompts = [tokenizer(t).input_ids for t in ("a", "bc", "def", "ghij") * 3]
    rank = os.environ.get("RANK", "0")

    def reward(texts: list[str]) -> list[float]:
        if settings.get("raises") == rank:
            raise KeyError("no tubas")
        return [sum(c < "a" for c in t) / len(t) for t in texts]

    def on_step(row: dict) -> None:
        if settings.get("dies") == [rank, row["step"]]:
            os.kill(os.getpid(), signal.SIGKILL)
        if settings.get("sleeps") == [rank, row["step"]]:
            time.sleep(180)

    try:
        with join(os.environ, device="cpu", timeout_seconds=settings.get("timeout", 60)) as world:
            ppo = PPO(
                policy,
                tokenizer,
                reward,
                seed=0,
                world=world,
                grader=lambda texts: [len(t) / 10 for t in texts],
                selector=(lambda texts: [1 - r for r in reward(texts)]) if settings.get("selects", True) else None,
                config=made_by(conftest.make_config)(**settings["config"]),
                decoding=made_by(conftest.make_decoding)(**settings.get("decoding", {})),
            )
            result = ppo.train(
                prompts, validation_prompts=prompts[:3], checkpoint_folder=Path(settings["folder"]), on_step=on_step
            )
    except UserError as e:
        print(e, file=sys.stderr)
        sys.exit(2)
    out = Path(settings["out"])
    save_file(adapter_state(policy), out.with_suffix(f".{rank}.safetensors"))
    out.with_suffix(f".{rank}.json").write_text(json.dumps(result.history))


main()
