"""The sections that each stage reads."""

from detoxlens.params.load import load_params
from detoxlens.params.reads import READS
from detoxlens.params.sections import CLASSES
from detoxlens.pipeline.run_stage import stage_params
from tests.root import ROOT


def test_every_section_is_validated_and_read_by_a_stage():
    params = load_params(ROOT / "params.yaml")
    assert set(CLASSES) == set(params.raw) - {"run", "models", "variants"}
    by_no_stage = {"sweep", "tracking"}  # what `detoxlens sweep` and the records of runs read
    assert {section for sections in READS.values() for section in sections} == set(CLASSES) - by_no_stage
    for name in READS:
        stage_params(params, name, "tiny-neox", "ft")
