"""`detoxlens distil`: what is held out, what is learnt, and that a kill costs nothing."""

import csv
import json
import math

import pytest
import torch

from detoxlens.common.errors import UserError
from detoxlens.models.tiny import train_tokenizer
from detoxlens.params.report import Bootstrap
from detoxlens.recorded import student as student_module
from detoxlens.recorded.distil import Columns, columns_of, distil, is_held_out, read_examples
from detoxlens.recorded.student import Student, build, loss
from detoxlens.scorers import make_scorer

SMALL = Student(
    vocab_size=300,
    hidden_size=16,
    num_layers=1,
    num_heads=2,
    context_length=64,
    batch_size=16,
    num_epochs=6,
    learning_rate=1e-2,
)
COLUMNS = Columns(text="text", prompt="prompt", scores={"toxicity": "tox", "insult": "ins"})


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two files; a text with the word `grumpy` has .9, another .1; insult was recorded for the first file alone."""
    folder = tmp_path_factory.mktemp("scored")
    for part in ("it", "ft"):
        with (folder / f"{part}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["prompt", "text", "tox", "ins"])
            for n in range(700):
                word = "grumpy" if n % 3 == 0 else "cheerful"
                tox = 0.9 if n % 3 == 0 else 0.1
                writer.writerow([f"p{n // 2}", f"the {word} tram {part} of line {n}", tox, tox if part == "it" else ""])
            writer.writerow(["p0", "", 0.5, ""])
            writer.writerow(["p0", "never scored", "", ""])
    return [folder / "it.csv", folder / "ft.csv"]


def make(root, files, **more):
    settings = {"name": "standin", "seed": 0, "num_threads": 1, "student": SMALL} | more
    return distil(root, files, COLUMNS, bootstrap=Bootstrap(num_resamples=100, seed=0), **settings)


@pytest.fixture(scope="module")
def root(tmp_path_factory, files):
    root = tmp_path_factory.mktemp("root")
    make(root, files)
    return root


def test_texts_of_one_prompt_are_on_one_side_and_a_fifth_is_held_out(files):
    examples, num_without = read_examples(files, COLUMNS)
    assert (len(examples), num_without) == (1400, 4)
    held = {e.prompt for e in examples if is_held_out(e.prompt)}
    assert held.isdisjoint(e.prompt for e in examples if not is_held_out(e.prompt))
    share = sum(map(is_held_out, map(str, range(10_000)))) / 10_000
    assert abs(share - 0.2) < 4 * math.sqrt(0.2 * 0.8 / 10_000)


def test_the_folder_is_a_scorer_that_has_learnt_what_the_words_say(root):
    scorer = make_scorer("hf:data/recorded/scorers/standin#toxicity", root=root)
    rude, kind = (scorer.score([f"the {w} tram it of line 5000"])[0].toxicity for w in ("grumpy", "cheerful"))
    assert rude > 0.7 > 0.3 > kind
    found = json.loads((root / "data/recorded/scorers/standin/calibration.json").read_text())
    assert found["scorer_version"] == scorer.version
    assert found["held_out"]["auroc"]["value"] > 0.99
    assert set(found["by_split"]) == {"it", "ft"} and found["num_without_reference"] == 4
    assert "AUROC" in (root / "data/recorded/scorers/standin/README.md").read_text()


def test_a_killed_training_gives_the_same_bytes(root, files, tmp_path, monkeypatch):
    real, calls = student_module.loss, 0

    def killed(*args):
        nonlocal calls
        calls += 1
        if calls == 150:  # behind the checkpoint of step 100
            raise KeyboardInterrupt
        return real(*args)

    with monkeypatch.context() as m:
        m.setattr(student_module, "loss", killed)
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path, files)
    assert not (tmp_path / "data").exists()
    make(tmp_path, files)
    for file in (root / "data/recorded/scorers/standin").iterdir():
        assert (tmp_path / "data/recorded/scorers/standin" / file.name).read_bytes() == file.read_bytes(), file.name


def test_the_loss_is_the_cross_entropy_of_the_known_scores_by_hand():
    torch.manual_seed(0)
    tokenizer = train_tokenizer(["the tram"] * 4, 300)
    network = build(SMALL, ["toxicity", "insult"], tokenizer).eval()
    ids = [[2, 7, 9, 3], [2, 8, 3]]
    with torch.no_grad():
        p = [network(torch.tensor([i])).logits[0].sigmoid().tolist() for i in ids]
        got = loss(network, ids, [(0.9, None), (0.2, 0.5)]).item()

    def nats(score, prob):
        return -score * math.log(prob) - (1 - score) * math.log(1 - prob)

    assert got == pytest.approx((nats(0.9, p[0][0]) + nats(0.2, p[1][0]) + nats(0.5, p[1][1])) / 3, rel=1e-5)


def test_the_published_studys_files_have_their_columns():
    assert columns_of("rewardlm", text=None, prompt=None, scores=["hate=response_score"]) == Columns(
        text="responses", prompt="prompts", scores={"hate": "response_score"}
    )
    assert columns_of("plain", text=None, prompt=None, scores=[]).scores == {"toxicity": "toxicity"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": {"toxicity": "TOX"}}, r"no column 'TOX'.*--score"),
        ({"text": "words"}, r"no column 'words'"),
        ({"scores": {"toxicity": "prompt"}}, "prompt='p0' is no number"),
    ],
)
def test_columns_that_are_not_there_are_named(files, change, message):
    columns = {"text": "text", "prompt": "prompt", "scores": {"toxicity": "tox"}} | change
    with pytest.raises(UserError, match=message):
        read_examples(files, Columns(**columns))


def test_too_few_texts_are_refused(files, tmp_path):
    short = tmp_path / "short.csv"
    short.write_text("\n".join(files[0].read_text().splitlines()[:300]))
    with pytest.raises(UserError, match="scored texts to train on"):
        make(tmp_path, [short])


def test_a_score_outside_0_to_1_and_an_option_of_another_form_are_refused(tmp_path):
    (tmp_path / "f.csv").write_text("text,toxicity\nhello,1.5\n")
    with pytest.raises(UserError, match=r"row 1: toxicity=1\.5 is not between 0 and 1"):
        read_examples([tmp_path / "f.csv"], columns_of("plain", text=None, prompt=None, scores=[]))
    with pytest.raises(UserError, match=r"--score 'tox' is not of the form <attribute>=<column>"):
        columns_of("plain", text=None, prompt=None, scores=["tox"])
