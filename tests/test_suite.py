"""What tools/suite.py takes of the pictures that it finds, on made-up files."""

import numpy
import suite
from PIL import Image

from trainers.common.errors import UserError


def noise(seed, size=32):
    """An RGB picture like no other."""
    grey = numpy.random.default_rng(seed).integers(0, 200, (4, 4), dtype=numpy.uint8)
    return Image.fromarray(grey).convert("RGB").resize((size, size), Image.Resampling.NEAREST)


def test_a_task_is_laid_out_as_class_folders_and_without_its_source_skipped(
    tmp_path, monkeypatch, capsys
):
    """A class has the files with its word that no other class claims, of those that look alike one."""
    framed = Image.new("RGBA", (99, 70))
    framed.paste(noise(1, 64), (5, 3))
    cats = {
        "big/cat-1": noise(1),
        "big/cat-2": noise(1).transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        "set/big-cats-3": noise(1, 96),
        "lion": framed,
        "my_cat.left": noise(2),
        "cat-white": Image.new("RGB", (9, 9), "white"),
    }
    others = ("cat/dog", "dog", "dog-2", "dog-3", "cat-dog", "dog-cat-off", "dog-off", "category")
    place = tmp_path / "found"
    for name, picture in (cats | {name: noise(3 + at) for at, name in enumerate(others)}).items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(place / f"{name}.png")
    (place / "small-dog.svg").write_text("<svg", encoding="utf-8")
    (place / "big/cat-9.png").symlink_to(place / "dog.png")

    def none(work, clones):
        raise UserError("there is no such package")

    monkeypatch.setattr(suite, "KEPT", 3)
    monkeypatch.setattr(suite, "SOURCES", {"here": lambda *_: suite.files_of(place), "no": none})
    classes = {"cat": suite.word("cat lion"), "dog": suite.word("dog")}
    tasks = {"gone": suite.Task(["no"], classes), "pets": suite.Task(["here"], classes, "-off$")}
    monkeypatch.setattr(suite, "TASKS", tasks)
    assert suite.main(["--root", str(tmp_path)]) == 0
    folder = suite.folder_of(tmp_path, "pets")
    assert {of.name: len([*of.iterdir()]) for of in folder.iterdir()} == {"cat": 2, "dog": 3}
    assert all(Image.open(of).size == (suite.SIZE,) * 2 for of in folder.glob("*/*"))
    assert [of.name for of in folder.parent.iterdir()] == ["pets"]
    assert "gone is skipped: there is no such package" in capsys.readouterr().err
