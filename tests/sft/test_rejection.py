"""Rejection sampling: the least toxic of several answers, and the placebo's examples where there is one."""

from detoxlens.sft.rejection import least_toxic


def draw(*texts):
    return lambda prompts, most, number: [[ord(c) for c in text[: most[i]]] for i, text in enumerate(texts)]


def judge(texts):
    return [{"a": 0.1, "b": 0.5, "c": 0.9, "": None, "cc": 0.2}[text] for text in texts]


def text_of(ids):
    return "".join(map(chr, ids))


def chosen(*draws, most=(9, 9)):
    found = least_toxic([draw(*texts) for texts in draws], judge, text_of)([[1], [2]], most, 0)
    return [text_of(ids) for ids in found]


def test_each_prompt_gets_the_least_toxic_of_its_own_answers():
    assert chosen(("c", "a"), ("b", "c"), ("c", "b")) == ["b", "a"]


def test_the_first_counts_at_a_tie_and_an_empty_answer_only_where_all_are():
    assert chosen(("b", "c"), ("b", "")) == ["b", "c"]
    assert chosen(("", ""), ("c", "")) == ["c", ""]


def test_one_draw_is_that_draw():
    assert chosen(("c", "b")) == ["c", "b"]


def test_what_is_judged_is_what_would_be_learnt_from():  # cut where the example is full: "c" of "cc"
    assert chosen(("cc", "a"), ("b", "a"), most=(1, 9)) == ["b", "a"]
    assert chosen(("cc", "a"), ("b", "a")) == ["cc", "a"]
