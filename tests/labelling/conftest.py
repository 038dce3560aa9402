"""The pictures and the finished run of each task, made once, and copies of them to be changed."""

import functools
import shutil

import pytest

from .cases import train


@pytest.fixture(scope="session")
def pictures_of(tmp_path_factory):
    """``pictures_of(task)``: the folder of its pictures, with ``labels.csv``, to be left as it is."""

    @functools.cache
    def draw(task):
        folder = tmp_path_factory.mktemp("pictures")
        task.draw(folder)
        return folder

    return draw


@pytest.fixture(scope="session")
def run_of(pictures_of, small_clip_file, tmp_path_factory):
    """``run_of(task, *options, settings=())``: the folder of a run on these, to be left as it is."""

    @functools.cache
    def make(task, *more, settings=()):
        folder = tmp_path_factory.mktemp("runs") / "run"
        file = pictures_of(task) / "labels.csv"
        assert train(task, file, folder, small_clip_file, *more, settings=settings) == 0
        return folder

    return make


@pytest.fixture
def own_run(run_of, tmp_path):
    """``own_run(task, *options)``: a copy of such a run, to be changed."""
    return lambda task, *more: shutil.copytree(run_of(task, *more), tmp_path / "run")


@pytest.fixture
def own_pictures(pictures_of, tmp_path):
    """``own_pictures(task)``: a copy of the pictures, to be changed."""
    return lambda task: shutil.copytree(
        pictures_of(task), tmp_path / "pictures", dirs_exist_ok=True
    )
