"""A labelling that was stopped goes on for the same question alone."""

import contextlib
import os
import sqlite3
from unittest.mock import patch

import pytest

import predict
from labelling.answers.part_file import ENDING, MARK, PREPARE, PartFile, part_file
from tests.runs import call, refuses
from trainers.common.errors import UserError

FORMS = ["--csv", "--parquet", "--label-studio"]
ROW = {"uncertainty": 0.5, "doubtful": None}


def replace_picture(path):
    path.write_bytes(b"another, of another size")


def touch_picture(path):
    os.utime(path, ns=(1, 1))


@pytest.fixture
def pictures(tmp_path):
    """Four files."""
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for path in paths:
        path.write_bytes(b"a picture")
    return paths


def stop_after_a_batch(words):
    add = PartFile.add

    def stopping(part, *answers):
        add(part, *answers)
        if any(answers):
            raise KeyboardInterrupt

    with patch.object(PartFile, "add", stopping):
        assert call(predict.main, *words) not in (0, 1, 2)


@pytest.mark.parametrize("change", [replace_picture, touch_picture, os.remove])
def test_a_picture_that_has_changed_is_another(pictures, tmp_path, change):
    table = f"{tmp_path}/labels.csv"
    images = [*map(str, pictures)]
    with pytest.raises(KeyboardInterrupt), part_file(table, {}, images) as part:
        part.add({0: ROW, 1: ROW}, {})
        raise KeyboardInterrupt
    change(pictures[0])
    with refuses("with other images: "), part_file(table, {}, images):
        pass


def test_each_image_has_an_answer_or_an_error_or_the_command_says_so(pictures):
    with part_file("", {}, map(str, pictures)) as part:
        part.add({0: ROW, 1: ROW}, {2: "broken", 3: "broken"})
        part.check_whole()
        assert [*part.missing(2)] == []
        part.database.execute("DELETE FROM answers WHERE position = 1")
        with refuses("has 3 answers to 4 images: delete it"):
            part.check_whole()
        (batch,) = part.missing(2)
        assert [position for position, _ in batch] == [0, 1], "answered anew, as a whole"
        part.add({0: ROW, 1: ROW, 4: ROW}, {})
        with refuses("has 5 answers to 4 images: delete it"):
            part.check_whole()


@pytest.mark.parametrize("statements", ["", PREPARE.format(int.from_bytes(MARK.encode(), "big"))])
def test_a_file_that_a_kill_has_left_unbegun_is_begun(pictures, statements):
    table = str(pictures[0].with_name("labels.csv"))
    with contextlib.closing(sqlite3.connect(table + ENDING)) as database:
        database.executescript(statements)
    with part_file(table, {}, map(str, pictures)) as part:
        assert part.counts() == (len(pictures), 0, 0)


def test_an_empty_file_behind_a_link_is_left_alone(pictures):
    table = str(pictures[0].with_name("labels.csv"))
    target = pictures[0].with_name("somebody's")
    target.touch()
    os.symlink(target, table + ENDING)
    with pytest.raises(UserError, match="part file"):
        with part_file(table, {}, map(str, pictures)):
            pass
    assert target.read_bytes() == b""
