"""A record says what its run is: handed over by the protocol, or, in records from before, told from the folder."""

import json
import shlex
from pathlib import Path

import pytest

from protocols.command_line import parse_arguments
from tests.conftest import GOLDEN, refuses
from trainers.common.record_file import read_record


def test_a_record_says_what_the_protocol_handed_over(run):
    given = {"protocol": "ablation", "part": "train_base", "row": "text", "dataset": "mine"}
    _, record, folder = run("CoOp", flags=("--run", json.dumps({**given, "shots": 3})))
    assert read_record(folder / "results.json")["run"] == record["run"]
    own = {"classes": "all", "trainer": "CoOp", "recipe": "small", "seed": 1}
    assert record["run"] == {**given, **own, "shots": 3}


@pytest.mark.parametrize("words", GOLDEN["runs"])
def test_the_folder_of_an_older_record_tells_the_same(words, tmp_path, older_record):
    for line in GOLDEN["runs"][words].splitlines():
        arguments = parse_arguments(shlex.split(line))
        options = dict(zip(arguments.opts[::2], arguments.opts[1::2]))
        own = {"classes": options.get("DATASET.SUBSAMPLE_CLASSES", "all")}
        own |= {"trainer": arguments.trainer, "seed": arguments.seed}
        expected = {**arguments.run, **own}
        if expected["row"]:  # the folder holds the row's name only
            expected["recipe"] = None
        path = tmp_path / words.split()[0] / arguments.output_dir.removeprefix("o/")
        assert read_record(record_in(path, {**older_record, **own, "shots": -1}))["run"] == expected


def test_a_run_by_hand_belongs_to_no_protocol(older_record, tmp_path):
    read = read_record(record_in(tmp_path / "train_base/seed1", older_record))["run"]
    names = ("dataset", "classes", "trainer", "shots", "seed")
    facts = {name: older_record[name] for name in names}
    assert read == dict.fromkeys(("protocol", "part", "recipe", "row")) | facts


@pytest.mark.parametrize("name, value", GOLDEN["cases"]["odd descriptions"])
def test_a_run_of_another_kind_is_refused(name, value, older_record, tmp_path):
    path = record_in(tmp_path / "run", {**older_record, "run": {name: value}})
    with refuses(rf"its run\.{name} is missing or of another kind"):
        read_record(path)


@pytest.fixture(scope="module")
def older_record(trained):
    record = json.loads((trained("ZeroshotCLIP")[1] / "results.json").read_text())
    del record["run"]
    return record


def record_in(folder, record):
    path = Path(folder, "results.json")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(record))
    return path
