"""`detoxlens explain`: any checkpoint, one prompt, and what is shown of it."""

import dataclasses
import io
import shutil
import sys
from html.parser import HTMLParser

import pytest
from rich.console import Console
from rich.text import Text
from typer.testing import CliRunner

from detoxlens import cli
from detoxlens.attribution import attribute
from detoxlens.common.artifacts import write_text
from detoxlens.common.errors import UserError
from detoxlens.common.records import ModelRef
from detoxlens.explain import terminal
from detoxlens.explain.checkpoints import NO_TEMPLATE, find_checkpoint, find_template
from detoxlens.explain.explanation import Explanation, explain
from detoxlens.explain.page import page
from detoxlens.explain.words import by_words
from detoxlens.models.loading import load_model, load_tokenizer
from detoxlens.params.generation import GenerationConfig
from detoxlens.params.models import TemplateConfig, WeightsConfig
from tests.models.checkpoints import TEMPLATE
from tests.pipeline.stages.study import make_study, params_of

CHAT = TemplateConfig(**TEMPLATE)
EXAMPLE = Explanation(
    checkpoint="adapters/m/it",
    method="input_x_gradient",
    target="probability",
    prompt_pieces=("<bot>", " Zor", "gons"),
    completion_pieces=(" are", "\n"),
    is_template=(True, False, False),
    prompt_ids=(5, 6, 7),
    completion_ids=(8, 9),
    scores=((0.5, 0.25, 0.25), (0.0, 0.4, 0.4, 0.2)),
    token_prob=(0.9, 0.5),
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    make_study(folder)
    return folder


def run(root, checkpoint="adapters/m/it", *, ref=None, **changes):
    arguments = {
        "checkpoint": checkpoint,
        "ref": ref or find_checkpoint(root, checkpoint),
        "template": CHAT,
        "prompt": "Zorgons are",
        "completion": "lazy.",
        "method": "input_x_gradient",
        "target": "probability",
        "generation": GenerationConfig(
            max_new_tokens=6,
            min_new_tokens=1,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            no_repeat_ngram_size=0,
            num_samples=1,
            batch_size=1,
        ),
        "seed": 0,
        "device": "cpu",
        "dtype": "float32",
    }
    return explain(root, **(arguments | changes))


def printed(explanation, *, width=100):
    console = Console(width=width, record=True, file=io.StringIO(), force_terminal=True)
    console.print(terminal.view(explanation, width=width))
    return console.export_text()


# what is attributed


def test_a_given_completion_is_attributed_as_the_stage_would(root):
    found = run(root, "adapters/m/ft")
    assert "".join(found.prompt_pieces) == "<human>: Zorgons are\n<bot>:"
    assert "".join(found.completion_pieces) == " lazy."  # the template's reply puts the space
    model = load_model(root, find_checkpoint(root, "adapters/m/ft"), WeightsConfig(), device="cpu")
    (expected,) = attribute(model, prompt_ids=[found.prompt_ids], completion_ids=[found.completion_ids])
    assert found.scores == expected.scores and found.token_prob == expected.token_prob


def test_an_adapter_is_applied(root):
    assert run(root, "adapters/m/ft").scores != run(root, "adapters/m/it").scores


def test_a_sample_depends_on_the_seed_alone_and_ends_before_the_end_of_sequence_token(root):
    samples = [run(root, completion=None, seed=seed).completion_ids for seed in (0, 0, 1)]
    assert samples[0] == samples[1] != samples[2]
    assert 1 <= len(samples[0]) <= 6
    eos = load_tokenizer(root, find_checkpoint(root, "adapters/m/it")).eos_token_id
    assert all(eos not in ids for ids in samples)


def test_without_a_template_the_model_sees_the_prompt_as_it_is(root):
    found = run(root, template=NO_TEMPLATE)
    assert "".join(found.prompt_pieces) == "Zorgons are"
    assert "".join(found.completion_pieces) == "lazy."
    assert not any(found.is_template)


def test_a_checkpoint_from_elsewhere_is_given_its_own_chat_template_and_one_without_the_prompt_as_it_is(root, tmp_path):
    folder = shutil.copytree(root / "models/m/base", tmp_path / "downloaded")
    (folder / "model_ref.json").unlink(missing_ok=True)
    assert "".join(run(root, str(folder), template=None).prompt_pieces) == "Zorgons are"
    written = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[bot]"
    (folder / "chat_template.jinja").write_text(written, encoding="utf-8")
    assert "".join(run(root, str(folder), template=None).prompt_pieces) == "[user] Zorgons are\n[bot]"


def test_the_contrastive_target_names_the_token_it_tells_from(root):
    found = run(root, target="contrastive")
    assert len(found.contrast_pieces) == len(found.completion_pieces)
    assert "instead of" in printed(found)
    assert "instead of" in page(found)


def test_an_empty_completion_is_an_error_that_says_what_to_do(root):
    with pytest.raises(UserError, match="the completion is empty: give --completion"):
        run(root, completion="")


def test_an_empty_prompt_without_a_template_is_an_error(root):
    with pytest.raises(UserError, match="--prompt is empty"):
        run(root, template=NO_TEMPLATE, prompt="")


# which checkpoint, which template


def test_a_checkpoint_is_a_variant_a_model_a_peft_adapter_or_a_hub_id(root, tmp_path):
    assert find_checkpoint(root, "adapters/m/ft").adapter == "adapters/m/ft"
    assert find_checkpoint(root, "models/m/base") == ModelRef(base="models/m/base", revision="local", adapter=None)
    hub = ModelRef(base="owner/name", revision="v2", adapter=None)
    assert find_checkpoint(root, "owner/name", revision="v2") == hub
    write_text(root / "plain/adapter_config.json", '{"base_model_name_or_path": "owner/name", "revision": "abc"}')
    assert find_checkpoint(root, "plain") == ModelRef(base="owner/name", revision="abc", adapter="plain")


def test_a_wrong_checkpoint_names_the_ones_that_are_there(root):
    with pytest.raises(UserError, match=r"no such folder.*Here are: adapters/m/ft, adapters/m/it"):
        find_checkpoint(root, "adapters/m/rl")
    with pytest.raises(UserError, match=r"neither config\.json"):
        find_checkpoint(root, "adapters")
    with pytest.raises(UserError, match="--revision v2 is for hub models"):
        find_checkpoint(root, "models/m/base", revision="v2")


def test_the_template_is_that_of_the_model_that_the_folder_belongs_to():
    params = params_of()
    assert find_template(params, "adapters/m/ft", None) == CHAT
    assert find_template(params, "models/m/base", None) == CHAT
    assert find_template(params, "elsewhere/m", None) is find_template(None, "adapters/m/ft", None) is None
    assert find_template(params, "owner/name", "m") == CHAT
    with pytest.raises(UserError, match="models has no 'n'"):
        find_template(params, "owner/name", "n")
    with pytest.raises(UserError, match="there is no such file"):
        find_template(None, "owner/name", "m")


# what is shown


def test_the_table_has_a_row_per_generated_token_and_the_measures_by_hand():
    text = printed(EXAMPLE)
    # row 1: .5 .25 .25 -> 1.5 bits, all of it on the prompt; row 2: 0 .4 .4 -> 1 bit, .8 on the prompt
    rows = [line.split() for line in text.splitlines() if line.startswith(("·are", "⏎ "))]
    assert rows == [["·are", "0.90", "1.50", "1.00", "50", "25", "25"], ["⏎", "0.50", "1.00", "0.80", "40", "40"]]
    assert "3 prompt tokens, 2 generated, mean prompt entropy 1.25 bits" in text


def test_the_largest_share_of_a_row_is_the_darkest():
    most, half, none = (terminal._shade(score, 0.5).bgcolor.triplet for score in (0.5, 0.25, 0.0))
    assert none == (255, 255, 255)
    assert most.green < half.green < none.green


def test_a_long_prompt_is_cut_into_tables_that_fit_the_terminal():
    num = 60
    long = dataclasses.replace(
        EXAMPLE,
        prompt_pieces=tuple(f" t{i}" for i in range(num)),
        prompt_ids=tuple(range(num)),
        is_template=(False,) * num,
        scores=((1 / num,) * num, (1 / (num + 1),) * (num + 1)),
    )
    lines = printed(long, width=70).splitlines()
    assert max(map(len, lines)) <= 70
    heads = [line for line in lines if line.startswith("generated")]
    assert len(heads) > 1
    shown = [word for line in heads for word in line.split()[4:]]
    assert shown == [f"·t{i}" for i in range(num)]


def test_text_is_never_read_as_markup_or_as_terminal_codes():
    hostile = dataclasses.replace(EXAMPLE, prompt_pieces=("[bold]", "\x1b[31m", "<script>"))
    text = printed(hostile)
    assert "[bold]" in text and "\x1b" not in text
    seen = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: seen.append(tag)
    parser.feed(page(hostile))
    assert "script" not in seen
    assert "&lt;script&gt;" in page(hostile)


def test_the_page_loads_nothing_and_holds_every_measure():
    html = page(EXAMPLE)
    assert "http" not in html and "src=" not in html and "<script" not in html
    assert "<td>0.900</td><td>1.500</td><td>1.000</td>" in html
    assert html.count('<tr><th scope="row"') == 4  # two rows each in the heat map and in the table


# the command line


def test_the_command_prints_the_table_and_writes_both_files(root, monkeypatch):
    monkeypatch.chdir(root)
    arguments = ["explain", "--checkpoint", "models/m/base", "--prompt", "Zorgons are", "--completion", "lazy."]
    done = CliRunner().invoke(cli.app, [*arguments, "--html", "out/map.html", "--json", "out/map.json"])
    assert done.exit_code == 0, done.output
    assert "mean prompt entropy" in done.output
    assert "Zorgons" in (root / "out/map.html").read_text(encoding="utf-8")
    import inseq

    loaded = inseq.FeatureAttributionOutput.load(root / "out/map.json")
    assert [t.token for t in loaded.sequence_attributions[0].source] == list(
        run(root, template=NO_TEMPLATE).prompt_pieces
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--method", "saliencyy"], "--method saliencyy is not known. Did you mean 'saliency'?"),
        (["--target", "odds"], "--target odds is not known."),
        (["--dtype", "float8"], "--dtype float8 is not known."),
        (["--device", "abacus"], "--device abacus cannot be used"),
        (["--html", "map.pdf"], "--html map.pdf: give a file name that ends in .html"),
        (["--method", "attention", "--target", "contrastive"], "goes with occlusion and the gradient methods"),
        (["--max-new-tokens", "4000"], "exceeds the model's context"),
    ],
)
def test_a_mistake_is_one_paragraph(root, monkeypatch, capsys, wrong, message):
    monkeypatch.setattr(
        sys,
        "argv",
        ["detoxlens", "--root", str(root), "explain", "--checkpoint", "models/m/base", "--prompt", "Zorgons", *wrong],
    )
    with pytest.raises(SystemExit) as stop:
        cli.main()
    said = capsys.readouterr().err
    assert stop.value.code == 2
    assert message in said and "Traceback" not in said


def test_a_token_is_shown_on_one_line():
    assert terminal.shown(" Zorgons\n") == "·Zorgons⏎"
    assert terminal.shown("") == "∅"
    assert terminal.shown("a" * 30) == "a" * 11 + "…"
    assert isinstance(terminal._cell(0.5, [0.5], "ab"), Text)


# words


def test_words_sum_over_their_tokens_and_a_generated_one_keeps_its_share_on_itself():
    tokens = dataclasses.replace(
        EXAMPLE,
        completion_pieces=(" la", "zy", "\n"),
        completion_ids=(8, 9, 3),
        scores=((0.5, 0.25, 0.25), (0.0, 0.4, 0.4, 0.2), (0.1, 0.2, 0.3, 0.3, 0.1)),
        token_prob=(0.9, 0.5, 0.25),
    )
    found = by_words(tokens)
    assert (found.prompt_pieces, found.completion_pieces) == (("<bot>", " Zorgons"), (" lazy", "\n"))
    assert found.is_template == (True, False)
    # lazy: the mean of (.5, .5, 0) and (0, .8, .2); the line break: (.1, .5, .4, 0)
    assert found.scores[0] == pytest.approx((0.25, 0.65, 0.1))
    assert found.scores[1] == pytest.approx((0.1, 0.5, 0.4, 0.0))
    assert found.token_prob == pytest.approx((0.45, 0.25))
    assert "2 prompt words, 2 generated" in found.summary()
    assert "Zorgons" in printed(found) and "Per generated word" in page(found)


def test_words_and_contrastive_do_not_go_together():
    with pytest.raises(UserError, match="--words does not go with --target contrastive"):
        by_words(dataclasses.replace(EXAMPLE, contrast_pieces=(" is", "!")))
