"""Prompts as a model reads them, before it is trained or sampled from."""

import pytest
from transformers import PreTrainedTokenizerFast

from detoxlens.cli import app
from detoxlens.common.artifacts import Layout, read_model_ref, write_model_ref, write_rows
from detoxlens.common.errors import UserError
from detoxlens.common.records import Prompt
from detoxlens.explain.preview import preview
from detoxlens.explain.terminal import print_previews
from detoxlens.params.load import Params
from tests.models.checkpoints import TEMPLATE, save_language_model
from tests.pipeline.stages.study import params_of

CHAT = "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }}\n{% endfor %}<assistant>"


@pytest.fixture
def root(tmp_path):
    layout = Layout(tmp_path)
    ref = save_language_model(tmp_path / "checkpoint")
    write_model_ref(layout.adapter("m", "it"), ref)
    row = Prompt(prompt_id="p", split="test", filters=(), text="Zorgons are", toxicity=None)
    write_rows(layout.prompts, [row] * 2, Prompt)
    return tmp_path


def params(template=TEMPLATE):
    raw = params_of().raw
    raw["models"]["m"]["template"] = template
    return Params(raw)


def test_the_first_prompts_are_shown_as_the_model_reads_them(root, capsys):
    found = preview(root, params(), "m", count=1)
    (one,) = found.shown
    assert "".join(one.pieces) == "<human>: Zorgons are\n<bot>:"
    users = "".join(p for p, region in zip(one.pieces, one.prompt.regions, strict=True) if region == "user")
    assert users.strip() == "Zorgons are" and found.warning is None
    print_previews(found)
    out = capsys.readouterr().out
    assert "<human>: Zorgons are⏎" in out and str(one.prompt.ids[0]) in out and f"{len(one.pieces)} tokens" in out


def test_a_template_that_is_not_the_tokenizers_own_is_a_warning(root):
    folder = root / read_model_ref(Layout(root).adapter("m", "it")).base
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    warning = preview(root, params(), "m", prompts=["Hi"]).warning
    assert "models.m.template" in warning and "<user> Hi" in warning
    assert preview(root, params("chat"), "m", prompts=["Hi"]).warning is None


def test_a_model_that_is_not_there_yet_says_how_to_make_it(tmp_path):
    with pytest.raises(UserError, match=r"`dvc repro base@m` makes it"):
        preview(tmp_path, params(), "m")


def test_the_command_is_there():
    assert "preview" in {command.name or command.callback.__name__ for command in app.registered_commands}
