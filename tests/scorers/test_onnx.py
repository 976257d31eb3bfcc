import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from detoxlens.common.errors import UserError
from detoxlens.scorers import make_scorer

TOXIC = {"rude": 0.9, "blunt": 0.3}


def write_graph(path, *, classes=("civil", "rude"), locale="xx_XX.UTF-8", zipped=True, given=TensorProto.STRING):
    """As skl2onnx writes them: the text, lower-cased, is looked up; P(rude) = .9 for "rude", .3 for "blunt", else 0."""
    shape = ["n", 1]
    nodes = [helper.make_node("StringNormalizer", ["flat"], ["lower"], case_change_action="LOWER", locale=locale)]
    nodes = [
        helper.make_node("Reshape", ["text", "all"], ["flat"]),
        *nodes,
        helper.make_node(
            "LabelEncoder",
            ["lower"],
            ["p"],
            domain="ai.onnx.ml",
            keys_strings=list(TOXIC),
            values_floats=list(TOXIC.values()),
            default_float=0.0,
        ),
        helper.make_node("Reshape", ["p", "column"], ["toxic"]),
        helper.make_node("Sub", ["one", "toxic"], ["civil"]),
        helper.make_node("Concat", ["civil", "toxic"], ["probs"], axis=1),
    ]
    constants = [
        helper.make_tensor("all", TensorProto.INT64, [1], [-1]),
        helper.make_tensor("column", TensorProto.INT64, [2], [-1, 1]),
        helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0]),
    ]
    output = helper.make_tensor_value_info("probs", TensorProto.FLOAT, ["n", 2])
    if zipped:
        nodes.append(
            helper.make_node("ZipMap", ["probs"], ["named"], domain="ai.onnx.ml", classlabels_strings=list(classes))
        )
        row = helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
        output = helper.make_value_info("named", helper.make_sequence_type_proto(row))
    if given != TensorProto.STRING:
        nodes = [helper.make_node("Identity", ["text"], ["probs"])]
        output = helper.make_tensor_value_info("probs", given, shape)
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("text", given, shape)], [output], constants)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString())


def test_toxicity_is_the_probability_of_the_named_class_whatever_the_machines_locales(tmp_path):
    write_graph(tmp_path / "g.onnx")  # asks for a locale that no machine has
    scorer = make_scorer("onnx:g.onnx#rude", root=tmp_path)
    verdicts = scorer.score(["RUDE", "kind", " ", "Blunt"])
    assert [v.toxicity for v in verdicts] == [pytest.approx(0.9), 0.0, None, pytest.approx(0.3)]
    assert [v.status for v in verdicts] == ["ok", "ok", "empty", "ok"]
    assert (scorer.name, scorer.label, len(scorer.version)) == ("onnx:g.onnx#rude", "rude", 16)


def test_classes_are_added_and_may_be_numbers(tmp_path):
    write_graph(tmp_path / "g.onnx", zipped=False)
    toxicity = [make_scorer(f"onnx:g.onnx#{c}", root=tmp_path).score(["rude"])[0].toxicity for c in ("0", "1", "0+1")]
    assert toxicity == pytest.approx([0.1, 0.9, 1.0])


def test_many_texts_are_read_in_their_order(tmp_path):
    write_graph(tmp_path / "g.onnx")
    texts = ["rude", "kind", "blunt"] * 200
    found = [v.toxicity for v in make_scorer("onnx:g.onnx#rude", root=tmp_path).score(texts)]
    assert np.allclose(found, [0.9, 0.0, 0.3] * 200)


def test_equal_files_have_equal_versions_and_others_not(tmp_path):
    write_graph(tmp_path / "a.onnx")
    write_graph(tmp_path / "b.onnx", classes=("civil", "harsh"))
    a, b = make_scorer("onnx:a.onnx#rude", root=tmp_path), make_scorer("onnx:b.onnx#harsh", root=tmp_path)
    (tmp_path / "c.onnx").write_bytes((tmp_path / "a.onnx").read_bytes())
    assert a.version == make_scorer("onnx:c.onnx#civil", root=tmp_path).version != b.version


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("onnx:g.onnx", "onnx:<file>#<class>"),
        ("onnx:g.onnx#", "onnx:<file>#<class>"),
        ("onnx:g.onnx#vile", "has no class 'vile'; its classes: civil, rude"),
        ("onnx:none.onnx#rude", "is no file"),
        ("onnx:broken.onnx#rude", "cannot be loaded as an ONNX graph"),
        ("onnx:numbers.onnx#rude", r"takes text: tensor\(float\); a scorer's graph takes one tensor\(string\)"),
        ("onnx:package:no-such-dist/m.onnx#0", "no distribution 'no-such-dist' is installed"),
    ],
)
def test_what_cannot_be_used_says_why(tmp_path, name, message):
    write_graph(tmp_path / "g.onnx")
    write_graph(tmp_path / "numbers.onnx", given=TensorProto.FLOAT)
    (tmp_path / "broken.onnx").write_bytes((tmp_path / "g.onnx").read_bytes()[:100])
    with pytest.raises(UserError, match=message):
        make_scorer(name, root=tmp_path)


def test_a_graph_of_none_of_these_is_a_valid_onnx_file(tmp_path):
    write_graph(tmp_path / "g.onnx")
    onnx.checker.check_model(str(tmp_path / "g.onnx"))
