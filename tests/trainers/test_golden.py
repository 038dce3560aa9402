"""Figures and record keys of short runs, which stay what they are while code is moved."""

import json

import pytest

from tests.conftest import GOLDEN

FIGURES = GOLDEN["figures"]


@pytest.mark.parametrize("name", FIGURES["figures"])
def test_a_run_measures_and_records_what_it_did(trained, name):
    _, folder = trained(name)
    record = json.loads((folder / "results.json").read_text())
    measured = record["metrics"]["test"]
    metrics = sorted(FIGURES["metrics"] + FIGURES["further_metrics"].get(name, []))
    assert sorted(record) == FIGURES["record"] and sorted(measured) == metrics
    assert {key: measured[key] for key in FIGURES["figures"][name]} == pytest.approx(
        FIGURES["figures"][name], rel=1e-3
    )
