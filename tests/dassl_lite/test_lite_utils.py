"""Registry, names, seeds, files, meters, the log."""

import json
import os
import random
import sys

import numpy as np
import pytest
import torch
import torch.nn as nn
from dassl.utils import (
    AverageMeter,
    MetricMeter,
    Registry,
    check_availability,
    check_isfile,
    count_num_param,
    get_most_similar_str_to_a_from_b,
    listdir_nohidden,
    mkdir_if_missing,
    read_image,
    read_json,
    set_random_seed,
    setup_logger,
    tolist_if_not,
    write_json,
)
from PIL import Image

MODEL = nn.Linear(3, 2)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (
            lambda: check_availability("Coop", ["MaPLe", "CoOp"], key="X.Y"),
            ValueError,
            r"^X.Y: The requested one is expected to belong to \['MaPLe', 'CoOp'\], but got \[Coop\] "
            r"\(do you mean \[CoOp\]\?\)$",
        ),
        (lambda: count_num_param(), ValueError, "needs a model or params"),
        (lambda: set_random_seed(-1), ValueError, r"between 0 and 2\*\*32 - 1"),
        (lambda: read_image("no/where.png"), OSError, 'Cannot read image "no/where.png"'),
        (lambda: Registry("THING").get("X"), KeyError, '"X" does not exist in "THING" registry'),
    ],
)
def test_mistakes_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_registry_stores_under_the_objects_own_name_once_unless_forced():
    registry, first, other = Registry("THING"), type("B", (), {}), type("B", (), {})
    assert registry.register()(first) is first
    assert registry.register(mkdir_if_missing) is None
    assert registry.registered_names() == ["B", "mkdir_if_missing"]
    with pytest.raises(KeyError, match='"B" was already registered in "THING" registry'):
        registry.register(other)
    assert registry.get("B") is first
    registry.register(other, force=True)
    assert registry.get("B") is other


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_every_seed_fixes_all_generators_zero_included(seed):
    set_random_seed(seed)
    assert random.random() == random.Random(seed).random()
    assert np.random.rand() == np.random.RandomState(seed).rand()
    expected = torch.rand(3, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(torch.rand(3), expected)


def test_json_is_written_with_indent_four_into_a_new_folder_or_the_old_file_stays(tmp_path):
    path = tmp_path / "a" / "b.json"
    write_json({"x": [1, "é"]}, str(path))
    assert path.read_text() == '{\n    "x": [\n        1,\n        "\\u00e9"\n    ]\n}'
    with pytest.raises(TypeError):
        write_json({"x": object()}, path)
    assert read_json(path) == json.loads(path.read_text()) == {"x": [1, "é"]}
    assert os.listdir(path.parent) == ["b.json"]


def test_small_functions(tmp_path):
    assert tolist_if_not("a") == tolist_if_not(["a"]) == ["a"]
    assert get_most_similar_str_to_a_from_b("ab", ["abc", "abd", "zz"]) == "abd", "the later one"
    groups = [{"params": MODEL.weight}, MODEL.bias]
    assert (count_num_param(MODEL), count_num_param(params=groups)) == (8, 8)
    for name in ("a", "a", ".hidden", "c"):
        mkdir_if_missing(str(tmp_path / name))
    assert listdir_nohidden(str(tmp_path), sort=True) == ["a", "c"]
    with pytest.warns(UserWarning, match='No file found at ".*nothing"'):
        assert not check_isfile(str(tmp_path / "nothing"))
    path = tmp_path / "image.png"
    Image.new("L", (3, 2), 77).save(path)
    image = read_image(str(path))
    assert (image.mode, image.size, image.getpixel((0, 0))) == ("RGB", (3, 2), (77, 77, 77))
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(OSError, match='Cannot read image ".*image.png"'):
        read_image(str(path))


def test_meters_average_by_weight_or_exponentially_and_print_value_and_average():
    weighted, exponential, both = AverageMeter(), AverageMeter(ema=True), MetricMeter()
    for value, count in ((1.0, 1), (torch.tensor(4.0), 3)):
        weighted.update(value, count)
        exponential.update(value)
        both.update({"loss": value, "acc": 50})
    assert vars(weighted).items() >= {"val": 4.0, "avg": 13 / 4, "sum": 13.0, "count": 4}.items()
    assert exponential.avg == pytest.approx(0.9 * 0.1 + 0.4)
    both.update(None)
    assert str(both) == "loss 4.0000 (2.5000) acc 50.0000 (50.0000)"


# The log


def test_the_log_gets_what_the_console_gets_and_a_second_run_appends(tmp_path, capsys):
    setup_logger(str(tmp_path / "a"))
    print("first")
    print("half", end="")
    sys.stdout.flush()
    assert (tmp_path / "a" / "log.txt").read_text() == "first\nhalf"
    setup_logger(str(tmp_path / "my.log"))  # ends the first
    print("second")
    setup_logger(str(tmp_path / "a"))
    print("third")
    assert (tmp_path / "my.log").read_text() == "second\n"
    assert (tmp_path / "a" / "log.txt").read_text() == "first\nhalfthird\n"
    sys.stdout.close()
    print("after closing")
    assert capsys.readouterr().out == "first\nhalfsecond\nthird\nafter closing\n"
