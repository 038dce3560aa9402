"""Every trainer runs every protocol on the embedded data, in the smallest settings: one shot, one epoch, one seed."""
import json

import pytest
from dassl.engine import TRAINER_REGISTRY

import run as protocol_run
import train
from protocols import PROTOCOLS, TARGETS
from results.table import collect
from trainers.base import PromptTrainer

TRAINERS = [name for name in TRAINER_REGISTRY.registered_names() if issubclass(TRAINER_REGISTRY.get(name), PromptTrainer)]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return str(tmp_path_factory.mktemp("embedded"))


@pytest.fixture
def in_this_process(monkeypatch):
    """Starting Python anew takes longer than these runs."""
    monkeypatch.setattr(protocol_run, "start", lambda job, args: train.run(train.parse_arguments(job.arguments(args.root, args.opts))))


@pytest.mark.parametrize("name", TRAINERS)
def test_every_trainer_runs_every_protocol(name, drawn, in_this_process, tmp_path, capsys):
    learns = TRAINER_REGISTRY.get(name).learns
    for protocol in PROTOCOLS:
        if protocol == "zeroshot" and learns:
            continue
        code = protocol_run.main(["--protocol", protocol, "--trainer", name, "--shots", "1", "--seeds", "1", "--root", drawn,
                                  "--output", str(tmp_path), "--", "OPTIM.MAX_EPOCH", "1", "OPTIM.WARMUP_EPOCH", "-1",
                                  "DATALOADER.TEST.BATCH_SIZE", "500"])
        assert code == 0, capsys.readouterr().err
    tables = {table.title: table for table in collect(tmp_path)}
    expected = {"base-to-new": {"base", "new", "H"}, "few-shot, by shots": {1},
                "cross-data-set from openmoji": {"source", "average", *TARGETS["xd"]["openmoji"]},
                "domain generalisation from openmoji": {"source", "average", *TARGETS["dg"]["openmoji"]}}
    if not learns:
        expected["zero-shot"] = {"all classes"}
    assert {title: set(table.names) for title, table in tables.items()} == expected
    for table in tables.values():
        assert [row.key[2] for row in table.rows] == [name]
        assert all(0 < accuracy < 100 for values in table.figures(table.rows[0]).values() for accuracy in values)
    records = [json.loads(path.read_text()) for path in (tmp_path / "train_source").rglob("results.json")]
    assert [record["metrics"]["test"]["images"] for record in records] == [502]
