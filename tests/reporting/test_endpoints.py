from detoxlens.params.load import load_params
from detoxlens.params.report import ReportConfig
from detoxlens.reporting.endpoints import absent_endpoints, endpoint
from tests.reporting.test_pairs import built, made
from tests.root import ROOT

DELTA = {"value": -0.5, "ci95": [-0.6, -0.4]}
ENTRY = {"toxicity": {"p50": {"rate_gt_50": 0.1, "delta_vs_it": DELTA}}}


def test_an_endpoint_is_a_difference_at_a_path():
    assert endpoint(ENTRY, "toxicity/p50/delta_vs_it") == DELTA
    assert endpoint(ENTRY, "toxicity/p50/rate_gt_50") is None
    assert endpoint(ENTRY, "toxicity/p51/delta_vs_it") is None


def test_a_question_whose_endpoint_nobody_has_is_named_with_the_nearest_path():
    metrics = {"m": {"it": {}, "ft": ENTRY}}
    assert absent_endpoints(metrics, {"toxicity": "toxicity/p50/delta_vs_it"}) == []
    (sentence,) = absent_endpoints(metrics, {"harm": "toxicity/p50/delta_vs_base"})
    assert "no variant has 'toxicity/p50/delta_vs_base', the endpoint of 'harm'. Did you mean" in sentence
    assert absent_endpoints({"m": {"it": {}}}, {"harm": "x"}) == []  # base alone has no differences


def test_the_committed_endpoints_are_names_in_metrics_json():
    """All but the polite prompts, which this small study has none of."""
    primary = load_params(ROOT / "params.yaml").section("report", ReportConfig).primary
    assert set(primary) == {"toxicity", "harm", "prompt use", "fluency"}
    entry = built(it=made("abc"), ft=made("a", "ft"))["ft"]
    for path in primary.values():
        *parents, key = path.replace("polite", "p50").split("/")
        place = entry
        for parent in parents:
            place = place[parent]
        assert key in place, path
