"""Registry, names, seeds, files, meters, the log."""

import os
import random
import sys

import numpy as np
import pytest
import torch
import torch.nn as nn
from dassl.utils import (
    Registry,
    check_availability,
    check_isfile,
    count_num_param,
    listdir_nohidden,
    mkdir_if_missing,
    read_image,
    read_json,
    set_random_seed,
    setup_logger,
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
        (lambda: Registry("THING").get("X"), KeyError, '"X" does not exist in "THING" registry'),
    ],
)
def test_mistakes_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_registry_stores_under_the_objects_own_name_once_unless_forced():
    registry, first, other = Registry("THING"), type("B", (), {}), type("B", (), {})
    assert registry.register()(first) is first
    with pytest.raises(KeyError, match='"B" was already registered in "THING" registry'):
        registry.register(other)
    registry.register(other, force=True)
    assert registry.registered_names() == ["B"]
    assert registry.get("B") is other


def test_a_seed_fixes_all_generators_zero_included():
    set_random_seed(0)
    assert random.random() == random.Random(0).random()
    assert np.random.rand() == np.random.RandomState(0).rand()
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(0)))


def test_json_is_written_into_a_new_folder_or_the_old_file_stays(tmp_path):
    path = tmp_path / "a" / "b.json"
    write_json({"x": [1, "é"]}, str(path))
    with pytest.raises(TypeError):
        write_json({"x": object()}, path)
    assert read_json(path) == {"x": [1, "é"]}
    assert os.listdir(path.parent) == ["b.json"]


def test_small_functions(tmp_path):
    groups = [{"params": MODEL.weight}, MODEL.bias]
    assert count_num_param(MODEL) == count_num_param(params=groups) == 8
    for name in ("a", "a", ".hidden", "c"):
        mkdir_if_missing(str(tmp_path / name))
    assert listdir_nohidden(str(tmp_path), sort=True) == ["a", "c"]
    with pytest.warns(UserWarning, match='No file found at ".*nothing"'):
        assert not check_isfile(str(tmp_path / "nothing"))


def test_an_image_is_read_in_colours_and_a_damaged_one_is_named(tmp_path):
    path = tmp_path / "image.png"
    Image.new("L", (3, 2), 77).save(path)
    image = read_image(str(path))
    assert image.mode == "RGB"
    assert image.getpixel((0, 0)) == (77, 77, 77)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(OSError, match='Cannot read image ".*image.png"'):
        read_image(str(path))


# The log


def test_the_log_gets_what_the_console_gets_and_a_second_run_appends(tmp_path, capsys):
    setup_logger(str(tmp_path / "a"))
    print("half", end="")
    sys.stdout.flush()
    assert (tmp_path / "a/log.txt").read_text() == "half"
    setup_logger(str(tmp_path / "my.log"))  # ends the first
    print("second")
    setup_logger(str(tmp_path / "a"))
    print("third")
    sys.stdout.close()
    print("after closing")
    assert (tmp_path / "my.log").read_text() == "second\n"
    assert (tmp_path / "a/log.txt").read_text() == "halfthird\n"
    assert capsys.readouterr().out == "halfsecond\nthird\nafter closing\n"
