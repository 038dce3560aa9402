"""tools/check_data.py: present, incomplete and missing sets, and never a traceback."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from dassl.data.datasets import DATASET_REGISTRY

from tests.conftest import REPOSITORY, load_tool
from trainers.common.fingerprints import split_hash

from .miniatures import MINIATURES, SPLIT_FILES, files_below
from .test_every_dataset import ALL, build

LISTED = [name for name in ALL if name != "ImageFolder"]


@pytest.fixture(scope="module")
def tool():
    return load_tool("check_data")


@pytest.fixture
def check(tool, tmp_path):
    """``check(name)``: the row of a data set in tmp_path, as a dict."""

    def row(name):
        tool.files_in.cache_clear()
        cells = tool.check(DATASET_REGISTRY.get(name), str(tmp_path))
        assert len(cells) == len(tool.HEADERS) and all(
            isinstance(cell, str) and "\n" not in cell for cell in cells
        )
        return dict(
            zip(
                (
                    "name",
                    "state",
                    "classes",
                    "train",
                    "val",
                    "test",
                    "split",
                    "protocols",
                    "remark",
                ),
                cells,
            )
        )

    return row


def test_every_data_set_is_listed_with_its_protocols(tool):
    assert sorted(tool.EXPECTED) == LISTED
    needed = {name: row[4].split() for name, row in tool.EXPECTED.items()}
    for protocol, count in (("base2new", 15), ("fewshot", 20), ("xd", 13), ("dg", 17)):
        assert sum(protocol in protocols for protocols in needed.values()) == count
    assert {name for name in LISTED if DATASET_REGISTRY.get(name).test_only} == {
        name for name in LISTED if needed[name] == ["dg"]
    }


@pytest.mark.parametrize("name", ["OpenMoji", "OpenMojiPeople", "OpenMojiSketch"])
def test_the_expected_numbers_of_the_embedded_sets_are_those_of_their_lists(tool, name):
    parts = DATASET_REGISTRY.get(name).list_images("anywhere")
    classes, *numbers = tool.EXPECTED[name][:4]
    assert [number or 0 for number in numbers] == [len(part) for part in parts] and classes == len(
        {image.label for image in parts[2]}
    )


@pytest.mark.parametrize("name", LISTED)
def test_what_is_not_there_is_missing_and_says_where_to_get_it(check, tool, name):
    row = check(name)
    assert (
        row["state"] == "missing"
        and row["remark"] == tool.EXPECTED[name][5]
        and row["test"] == f"– of {tool.EXPECTED[name][3]:,}"
    )


@pytest.mark.parametrize("name", LISTED)
def test_a_whole_set_is_present(check, tool, tmp_path, drawn_root, monkeypatch, name):
    MINIATURES[name](tmp_path)
    if name.startswith("OpenMoji"):
        drawn = Path(
            build(name, drawn_root).dataset_dir
        )  # where other tests are at work too: what is theirs stays
        shutil.copytree(
            drawn,
            tmp_path / drawn.name,
            ignore=shutil.ignore_patterns(".*", "split_fewshot"),
            copy_function=os.link,
        )
    dataset = build(name, tmp_path)
    parts = (dataset.train_x, dataset.val or (), dataset.test)
    numbers = [
        None if expected is None else len(part)
        for expected, part in zip(tool.EXPECTED[name][1:4], parts)
    ]
    monkeypatch.setitem(
        tool.EXPECTED, name, (dataset.num_classes, *numbers, *tool.EXPECTED[name][4:])
    )
    before = files_below(tmp_path)
    row = check(name)
    assert row["state"] == "present"
    assert [row[part] for part in ("train", "val", "test")] == [
        "–" if number is None else f"{number:,}" for number in numbers
    ]
    if not dataset.test_only:
        assert row["split"] == split_hash(dataset)
    assert files_below(tmp_path) == before, "nothing is written"


@pytest.mark.parametrize("name", [name for name in LISTED if "OpenMoji" not in name])
def test_a_whole_set_of_another_size_is_told(check, tmp_path, name):
    MINIATURES[name](tmp_path)
    row = check(name)
    assert (
        row["state"] == "incomplete"
        and "another size than papers report" in row["remark"]
        and " of " in row["test"]
    )


@pytest.mark.parametrize("name", SPLIT_FILES)
def test_a_missing_image_is_counted_and_named(check, tmp_path, name):
    MINIATURES[name](tmp_path)
    (tmp_path / SPLIT_FILES[name] / "one" / "val1.jpg").unlink()
    row = check(name)
    assert (
        row["state"] == "incomplete"
        and row["val"].startswith("14 of ")
        and row["remark"].endswith("one/val1.jpg is missing")
    )


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[]", b'{"train": [["a", "b", "c"]], "val": [], "test": []}', b"\xff\xfe"],
)
def test_a_broken_set_is_reported_like_the_others(check, tmp_path, damage):
    MINIATURES["EuroSAT"](tmp_path)
    (tmp_path / "eurosat" / "split_zhou_EuroSAT.json").write_bytes(damage)
    row = check("EuroSAT")
    assert (
        row["state"] == "incomplete"
        and "split file" in row["remark"]
        and row["train"] == "– of 13,500"
    )


def test_anything_at_all_may_go_wrong_with_a_set(check, tmp_path, monkeypatch):
    (tmp_path / "eurosat").mkdir()

    def broken(folder):
        raise ZeroDivisionError

    monkeypatch.setattr(DATASET_REGISTRY.get("EuroSAT"), "list_images", broken)
    assert check("EuroSAT")["remark"] == "ZeroDivisionError"


def test_the_command_prints_one_table_and_ends_well(tmp_path):
    MINIATURES["EuroSAT"](tmp_path)
    (tmp_path / "dtd").mkdir()
    (tmp_path / "dtd" / "split_zhou_DescribableTextures.json").write_text(json.dumps({}))
    done = subprocess.run(
        [sys.executable, REPOSITORY / "tools" / "check_data.py", "--root", tmp_path],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr
    rows = {line.split()[0]: line for line in done.stdout.splitlines()[2:]}
    assert sorted(rows) == LISTED
    assert (
        "incomplete" in rows["EuroSAT"]
        and "incomplete" in rows["DescribableTextures"]
        and "missing" in rows["ImageNet"]
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dtd", "eurosat"]
