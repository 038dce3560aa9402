"""Figures and record keys of short runs, which stay what they are while code is moved."""

import json

import pytest
import yaml

from tests.conftest import REPOSITORY

GOLDEN = yaml.safe_load((REPOSITORY / "tests" / "golden" / "figures.yaml").read_text())


@pytest.mark.parametrize("name", GOLDEN["figures"])
def test_a_run_measures_and_records_what_it_did(trained, name):
    _, folder = trained(name)
    record = json.loads((folder / "results.json").read_text())
    measured = record["metrics"]["test"]
    metrics = sorted(GOLDEN["metrics"] + GOLDEN["further_metrics"].get(name, []))
    assert sorted(record) == GOLDEN["record"] and sorted(measured) == metrics
    assert {key: measured[key] for key in GOLDEN["figures"][name]} == pytest.approx(
        GOLDEN["figures"][name], rel=1e-3
    )
