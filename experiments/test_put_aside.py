"""Tasks put aside: which pictures are taken, and the hash by which they are known again."""

from functools import partial

import pytest
from PIL import Image, ImageDraw

from experiments import put_aside
from trainers.common.readers import read_yaml


def drawing(corner: int) -> Image.Image:
    """A square in a place of its own on a transparent ground."""
    picture = Image.new("RGBA", (64, 64))
    ImageDraw.Draw(picture).rectangle((0, 0, 20 + corner, 20), fill="red")
    ImageDraw.Draw(picture).ellipse((corner, 30, corner + 25, 60), fill="blue")
    return picture


def test_each_task_names_sources_that_there_are():
    stated = read_yaml(put_aside.TASKS)
    assert {kind for kind, *_ in stated["sources"].values()} <= put_aside.KINDS.keys()
    for name, task in stated["tasks"].items():
        assert stated["sources"].keys() >= set(task["sources"]), name


def test_a_picture_that_two_classes_claim_is_left_out():
    patterns = {
        "mammal": put_aside.words_pattern("cat dog"),
        "bird": put_aside.words_pattern("bird"),
    }
    names = ["set-cat", "set-cats-off", "set-bird", "set-cat-bird", "set-catalogue", "other-dog"]
    assert put_aside.by_class(names, patterns, only="^set", without="-off$") == {
        "mammal": ["set-cat"],
        "bird": ["set-bird"],
    }


def test_of_pictures_that_look_alike_the_first_stays():
    pictures = {str(corner): partial(drawing, corner) for corner in range(0, 40, 5)}
    pictures["again"] = partial(drawing, 5)
    pictures["mirrored"] = lambda: drawing(10).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    chosen = put_aside.choose({"shape": list(pictures), "none": []}, pictures)
    assert list(chosen) == ["shape"]
    assert {"again", "mirrored"}.isdisjoint(chosen["shape"])


def test_the_hash_is_that_of_the_pictures(tmp_path):
    chosen = {"shape": {"a b": drawing(0).convert("RGB")}}
    first = put_aside.write_task(chosen, tmp_path / "first")
    assert put_aside.write_task(chosen, tmp_path / "again") == first
    chosen["shape"]["a b"].putpixel((0, 0), (1, 2, 3))
    assert put_aside.write_task(chosen, tmp_path / "other") != first


def test_a_task_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    chosen = {"shape": {"one": drawing(0), "two": drawing(5)}}
    save = Image.Image.save

    def save_the_first(picture, path):
        if path.name.startswith("two"):
            raise KeyboardInterrupt
        save(picture, path)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Image.Image, "save", save_the_first)
        put_aside.write_task(chosen, tmp_path / "task")
    assert not list(tmp_path.iterdir())
    put_aside.write_task(chosen, tmp_path / "task")
    assert len(list(tmp_path.glob("task/shape/*.png"))) == 2


def test_a_task_that_is_there_is_left_as_it_is(tmp_path, capsys):
    for name in read_yaml(put_aside.TASKS)["tasks"]:
        (tmp_path / "put_aside" / name).mkdir(parents=True)
    put_aside.main(["--root", str(tmp_path)])
    assert capsys.readouterr().out.count("is there already") == 6
