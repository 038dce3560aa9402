"""Runs measure what they did, and their records say it under the same names."""

import pytest

from tests.conftest import GOLDEN
from tests.runs import record_of

FIGURES = GOLDEN["figures"]


@pytest.mark.parametrize("name", FIGURES["figures"])
def test_a_run_measures_and_records_what_it_did(trained, name):
    folder = trained(name)
    record = record_of(folder)
    measured = record["metrics"]["test"]
    metrics = sorted(FIGURES["metrics"] + FIGURES["further_metrics"].get(name, []))
    assert sorted(record) == FIGURES["record"]
    assert sorted(measured) == metrics
    assert {key: measured[key] for key in FIGURES["figures"][name]} == pytest.approx(
        FIGURES["figures"][name], rel=1e-3
    )
