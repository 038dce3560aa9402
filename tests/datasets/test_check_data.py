"""tools/check_data.py: present, incomplete and missing sets, and never a traceback."""

import os
import shutil
from pathlib import Path

import pytest
from dassl.data.datasets import DATASET_REGISTRY

from tests.conftest import load_tool
from trainers.common.fingerprints import split_hash

from .miniatures import MINIATURES, files_below
from .test_every_dataset import ALL, build

LISTED = [name for name in ALL if name != "ImageFolder"]
CELLS = "name state classes train val test split protocols remark".split()


@pytest.fixture(scope="module")
def tool():
    return load_tool("check_data")


@pytest.fixture
def check(tool, tmp_path):
    """``check(name)``: the row of a data set in tmp_path, as a dict."""

    def row(name):
        tool.files_in.cache_clear()
        cells = tool.check(DATASET_REGISTRY.get(name), str(tmp_path))
        assert all(isinstance(cell, str) and "\n" not in cell for cell in cells)
        return dict(zip(CELLS, cells, strict=True))

    return row


def test_every_data_set_is_listed_with_its_protocols(tool):
    assert sorted(tool.EXPECTED) == LISTED and len(tool.HEADERS) == len(CELLS)
    needed = {name: protocols.split() for name, (_, protocols, _) in tool.EXPECTED.items()}
    for protocol, count in (("base2new", 15), ("fewshot", 20), ("xd", 13), ("dg", 17)):
        assert sum(protocol in protocols for protocols in needed.values()) == count
    test_only = {name for name in LISTED if DATASET_REGISTRY.get(name).test_only}
    assert test_only == {name for name in LISTED if needed[name] == ["dg"]}


@pytest.mark.parametrize("name", LISTED)
def test_a_set_is_missing_then_of_another_size_then_present(
    check, tool, tmp_path, drawn_root, monkeypatch, name
):
    numbers, protocols, source = tool.EXPECTED[name]
    missing = check(name)
    assert missing["state"] == "missing" and missing["remark"] == source
    assert missing["test"] == f"– of {numbers[3]:,}"
    MINIATURES[name](tmp_path)
    if name.startswith("OpenMoji"):
        drawn = Path(build(name, drawn_root).dataset_dir)  # where other tests are at work too
        ours = shutil.ignore_patterns(".*")
        shutil.copytree(drawn, tmp_path / drawn.name, ignore=ours, copy_function=os.link)
    else:
        other = check(name)
        assert other["state"] == "incomplete" and "another size than papers" in other["remark"]
    dataset = build(name, tmp_path)
    parts = (dataset.train_x, dataset.val or (), dataset.test)
    counts = [None if n is None else len(part) for n, part in zip(numbers[1:], parts)]
    expected = ([dataset.num_classes, *counts], protocols, source)
    if name.startswith("OpenMoji"):
        assert tool.EXPECTED[name] == expected
    monkeypatch.setitem(tool.EXPECTED, name, expected)
    before, row = files_below(tmp_path), check(name)
    assert row["state"] == "present"
    assert [row[part] for part in ("train", "val", "test")] == [
        "–" if count is None else f"{count:,}" for count in counts
    ]
    assert dataset.test_only or row["split"] == split_hash(dataset)
    assert files_below(tmp_path) == before, "nothing is written"


def test_what_is_wrong_with_a_set_is_told_whatever_it_is(check, tmp_path, monkeypatch):
    MINIATURES["EuroSAT"](tmp_path)
    (tmp_path / "eurosat" / "2750" / "one" / "val1.jpg").unlink()
    row = check("EuroSAT")
    assert row["state"] == "incomplete" and row["val"].startswith("14 of ")
    assert row["remark"].endswith("one/val1.jpg is missing")
    (tmp_path / "eurosat" / "split_zhou_EuroSAT.json").write_bytes(b"{")
    row = check("EuroSAT")
    assert row["state"] == "incomplete" and row["train"] == "– of 13,500"
    assert "split file" in row["remark"]

    def broken(folder):
        raise ZeroDivisionError

    monkeypatch.setattr(DATASET_REGISTRY.get("EuroSAT"), "list_images", broken)
    assert check("EuroSAT")["remark"] == "ZeroDivisionError"


def test_the_command_prints_what_is_there_or_what_is_asked_for(tool, tmp_path, capsys):
    MINIATURES["EuroSAT"](tmp_path)
    (tmp_path / "dtd").mkdir()
    before = files_below(tmp_path)
    for names in ([], ["UCF101", "EuroSAT"]):
        assert tool.main([*names, "--root", str(tmp_path)]) == 0
        rows = [line.split()[:2] for line in capsys.readouterr().out.splitlines()[2:]]
        if names:
            assert rows == [["UCF101", "missing"], ["EuroSAT", "incomplete"]]
        else:
            assert rows[:-1] == [["DescribableTextures", "incomplete"], ["EuroSAT", "incomplete"]]
            assert rows[-1] == ["Not", "there:"]
    with pytest.raises(SystemExit):
        tool.main(["EuroSat"])
    assert "there is no data set EuroSat (did you mean EuroSAT?)" in capsys.readouterr().err
    assert files_below(tmp_path) == before
