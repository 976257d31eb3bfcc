import copy

import pytest
import torch
from ruamel.yaml import YAML

from detoxlens.common.artifacts import Layout, read_model_ref
from detoxlens.common.errors import UserError
from detoxlens.models.gguf import file_sha256
from detoxlens.models.loading import load_model, load_tokenizer, weights_sha256
from detoxlens.params.load import Params
from detoxlens.params.models import WeightsConfig
from detoxlens.pipeline.stages import base
from tests.models.checkpoints import save_language_model
from tests.models.gguf_files import digits_tokenizer, random_llama, write_gguf
from tests.root import ROOT


@pytest.fixture(scope="module")
def gguf(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "Random.gguf"
    tokenizer = digits_tokenizer()
    write_gguf(path, random_llama(tokenizer.get_vocab_size()), tokenizer)
    return path


def params_of(**model):
    raw = copy.deepcopy(YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8")))
    raw["run"] |= {"models": ["m"], "num_threads": 1}
    raw["models"] = {"m": {"template": raw["models"]["tiny-neox"]["template"]} | model}
    return Params(raw)


def test_a_gguf_file_becomes_a_base_model_that_every_later_stage_can_load(tmp_path, gguf):
    base.run(tmp_path, params_of(source=f"gguf:{gguf}", revision=file_sha256(gguf)), model="m")
    layout = Layout(tmp_path)
    ref = read_model_ref(layout.adapter("m", "it"))
    assert (ref.base, ref.revision, ref.adapter) == ("models/m/base", weights_sha256(layout.base("m")), None)
    model = load_model(tmp_path, ref, WeightsConfig(), device="cpu")
    tokenizer = load_tokenizer(tmp_path, ref)
    ids = torch.tensor([tokenizer("In 2026")["input_ids"]])
    assert torch.equal(model(ids).logits, random_llama(len(tokenizer))(ids).logits)


def test_another_file_than_the_pinned_one_is_refused_before_anything_is_written(tmp_path, gguf):
    with pytest.raises(UserError, match=r"models\.m\.revision='00.*is another file, its sha256 is [0-9a-f]{64}"):
        base.run(tmp_path, params_of(source=f"gguf:{gguf}", revision="00" * 32), model="m")
    assert not list(tmp_path.iterdir())


def test_what_a_kill_left_half_written_is_not_used(tmp_path, gguf, monkeypatch):
    def killed(path, folder, *, dtype):
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    params = params_of(source=f"gguf:{gguf}")
    with monkeypatch.context() as m:
        m.setattr(base, "convert", killed)
        with pytest.raises(KeyboardInterrupt):
            base.run(tmp_path, params, model="m")
    assert not Layout(tmp_path).base("m").exists()
    base.run(tmp_path, params, model="m")
    load_model(tmp_path, read_model_ref(Layout(tmp_path).adapter("m", "it")), WeightsConfig(), device="cpu")


def test_a_model_without_a_chat_template_is_asked_for_one_before_anything_is_written(tmp_path):
    save_language_model(tmp_path / "checkpoint")
    with pytest.raises(
        UserError, match=r"models\.m\.template: chat .* no chat template; write it out .*models\.m\.template: {user"
    ):
        base.run(tmp_path, params_of(source="checkpoint", template="chat"), model="m")
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint"]
    base.run(tmp_path, params_of(source="checkpoint"), model="m")
    assert read_model_ref(Layout(tmp_path).adapter("m", "it")).base == "checkpoint"


def test_an_embedded_model_is_asked_for_its_template():
    with pytest.raises(UserError, match=r"models\.m\.template is missing or chat: an embedded model"):
        base.run(ROOT, params_of(source="tiny:gpt_neox", template="chat"), model="m")
