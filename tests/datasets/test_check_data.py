"""datasets/check.py: present, incomplete and missing sets, and never a traceback."""

import pytest
from dassl.data.datasets import DATASET_REGISTRY

from datasets import check as check_data
from tests.datasets.miniatures import MINIATURES, files_below
from tests.datasets.test_every_dataset import ALL, TEST_ONLY, build

LISTED = [name for name in ALL if name != "ImageFolder"]
CELLS = "name state classes train val test split protocols remark".split()


def check(name, root):
    """The row of a data set, as a dict."""
    cells = check_data.check(DATASET_REGISTRY.get(name), str(root))
    assert all(isinstance(cell, str) and "\n" not in cell for cell in cells)
    return dict(zip(CELLS, cells, strict=True))


def test_every_data_set_is_listed_with_its_protocols():
    assert sorted(check_data.EXPECTED) == LISTED
    needed = {name: protocols for name, (_, protocols, _) in check_data.EXPECTED.items()}
    assert TEST_ONLY == [name for name in LISTED if needed[name] == "dg"]


@pytest.mark.parametrize("name", [name for name in LISTED if name.startswith("OpenMoji")])
def test_what_is_drawn_has_its_numbers(name):
    parts = DATASET_REGISTRY.get(name).list_images("")
    numbers = [len({image.label for image in parts[2]}), *map(len, parts)]
    assert [number or 0 for number in check_data.EXPECTED[name][0]] == numbers


@pytest.mark.parametrize(
    "name", ["CIFAR10", "EuroSAT", "FGVCAircraft", "GroceryStore", "ImageNetR", "OpenMoji"]
)
def test_a_set_is_missing_then_of_another_size_then_present(tmp_path, root_of, monkeypatch, name):
    numbers, protocols, source = check_data.EXPECTED[name]
    missing = check(name, tmp_path)
    assert missing["state"] == "missing"
    assert missing["remark"] == source
    root = root_of(name)
    dataset = build(name, root)
    other = check(name, root)
    assert other["state"] == "incomplete"
    assert "another size than papers" in other["remark"]
    parts = (dataset.train_x, dataset.val or (), dataset.test)
    counts = [None if n is None else len(part) for n, part in zip(numbers[1:], parts)]
    expected = ([dataset.num_classes, *counts], protocols, source)
    monkeypatch.setitem(check_data.EXPECTED, name, expected)
    monkeypatch.setattr(check_data, "SPLITS", {})  # its split is not CoOp's
    before, row = files_below(dataset.dataset_dir), check(name, root)
    assert row["state"] == "present"
    assert [row["train"], row["val"], row["test"]] == [str(count or "–") for count in counts]
    assert dataset.images.is_test_only or row["split"] == dataset.images.split_hash
    assert files_below(dataset.dataset_dir) == before


def test_what_is_wrong_with_a_set_is_told_whatever_it_is(tmp_path, monkeypatch):
    MINIATURES["EuroSAT"](tmp_path)
    (tmp_path / "eurosat/2750/one/val1.jpg").unlink()
    row = check("EuroSAT", tmp_path)
    assert row["state"] == "incomplete"
    assert row["val"].startswith("14 of ")
    assert row["remark"].endswith("one/val1.jpg is missing")
    (tmp_path / "eurosat/split_zhou_EuroSAT.json").write_bytes(b"{")
    assert "split_zhou_EuroSAT.json can't be read" in check("EuroSAT", tmp_path)["remark"]
    # no folder is broken in a way that nobody has thought of
    monkeypatch.setattr(DATASET_REGISTRY.get("EuroSAT"), "list_images", lambda folder: 1 / 0)
    assert check("EuroSAT", tmp_path)["remark"] == "division by zero"


@pytest.mark.parametrize(
    "names, expected",
    [
        ("", ["DescribableTextures incomplete", "EuroSAT incomplete", "Not there:"]),
        ("UCF101 EuroSAT", ["UCF101 missing", "EuroSAT incomplete"]),
    ],
)
def test_the_command_prints_what_is_there_or_what_is_asked_for(tmp_path, capsys, names, expected):
    MINIATURES["EuroSAT"](tmp_path)
    (tmp_path / "dtd").mkdir()
    assert check_data.main([*names.split(), "--root", str(tmp_path)]) == 0
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [" ".join(row.split()[:2]) for row in rows] == expected


def test_a_misspelt_name_is_refused(capsys):
    with pytest.raises(SystemExit):
        check_data.main(["EuroSat"])
    assert "there is no data set EuroSat (did you mean EuroSAT?)" in capsys.readouterr().err
