"""The example in the package's docstring works as it stands, given a checkpoint and prompts."""

from __future__ import annotations

import textwrap

import detoxlens.rl


def test_the_documented_example_runs(tmp_path, make_policy, tokenizer, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_policy().get_base_model().__class__(make_policy().config).save_pretrained("policy")
    tokenizer.save_pretrained("policy")
    lines = detoxlens.rl.__doc__.splitlines()
    code = textwrap.dedent("\n".join(line for line in lines if not line or line.startswith("    ")))
    names = {"checkpoint": "policy", "prompts": [f"Zorgon number {i} sings" for i in range(8)]}
    exec(code, names)
    assert len(names["result"].history) == 4
    assert (tmp_path / "adapter/adapter_model.safetensors").exists()
    assert len(code.strip().splitlines()) <= 32
    assert "ppo/reward" in capsys.readouterr().out
