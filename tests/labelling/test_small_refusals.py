"""Small things that are refused in one line before any work, and depths that are walked."""

import errno
import inspect
import os
import sys

import pytest
import torch

from labelling import export
from labelling.answers.label_studio import address
from tests.runs import refuses
from trainers.common.config_files import check_range
from trainers.common.image_files import files_below
from trainers.gda import SETTINGS as GDA
from trainers.tipadapter import SETTINGS as TIP


def test_a_name_that_is_no_text_is_no_task():
    with refuses("is not UTF-8, and Label Studio reads no other: rename"):
        address(os.fsdecode(b"/pictures/\xff.png"), "/pictures")


@pytest.mark.parametrize("settings", [GDA, TIP])
def test_views_of_an_image_are_as_many_as_can_be_looked_at(settings):
    takes = settings["AUGMENT_EPOCH"].takes
    check_range("AUGMENT_EPOCH", 1000, takes)
    with refuses("AUGMENT_EPOCH is 1001, it must be at most 1000"):
        check_range("AUGMENT_EPOCH", 1001, takes)


def test_a_folder_of_any_depth_is_walked(tmp_path):
    names = ["d"] * 300
    deep = tmp_path.joinpath(*names)
    deep.mkdir(parents=True)
    (deep / "deep.png").touch()
    (tmp_path / "first.png").touch()
    (tmp_path / "again").symlink_to(tmp_path)
    known = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 100)  # fewer calls than there are levels
    try:
        found = [*files_below(str(tmp_path))]
    finally:
        sys.setrecursionlimit(known)
    assert found == [f"{tmp_path}/first.png", f"{deep}/deep.png"]


def test_a_disk_that_cannot_be_written_ends_an_export_before_the_work(
    loaded, tmp_path, monkeypatch
):
    def fail(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(export, "mark_folder", fail)
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: pytest.fail("it has begun"))
    with pytest.raises(OSError, match="Read-only"):
        loaded("CoOp").export(tmp_path / "exported")
