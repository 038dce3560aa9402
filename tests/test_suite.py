"""What tools/suite.py takes of the pictures that it finds, on made-up files."""

import sys

import clip
import numpy
from PIL import Image

from tests.runs import REPOSITORY
from trainers.common.errors import UserError

sys.path.insert(0, str(REPOSITORY / "tools"))
import suite  # noqa: E402


def noise(seed, size=32):
    """An RGB picture like no other."""
    grey = numpy.random.default_rng(seed).integers(0, 200, (4, 4), dtype=numpy.uint8)
    return Image.fromarray(grey).convert("RGB").resize((size, size), Image.Resampling.NEAREST)


def test_a_class_has_the_files_with_its_word_that_no_other_class_claims():
    task = suite.Task([], {"cat": suite.word("cat lion"), "dog": suite.word("dog")}, "-off$")
    cats = ["cat-1", "my_cat.left", "set/big-cats-2"]
    others = ["cat-dog", "dog-cat-off", "dog-off", "cow", "cat/dog", "category"]
    found = suite.by_class(task, [*others, *cats, "dog"])
    assert {label: sorted(of) for label, of in found.items()} == {
        "cat": cats,
        "dog": ["cat/dog", "dog"],
    }


def test_pictures_that_look_alike_are_one_and_so_are_mirrored_and_larger_ones(monkeypatch):
    monkeypatch.setattr(suite, "KEPT", 2)
    mirrored = noise(1).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    framed = Image.new("RGBA", (99, 70))
    framed.paste(noise(1, 64), (5, 3))
    pictures = {"a": noise(1), "b": mirrored, "c": noise(1, 96), "d": framed, "e": noise(2)}
    pictures |= {"f": Image.new("RGB", (9, 9), "white"), "g": OSError("broken"), "h": noise(3)}

    def opened(name):
        if isinstance(pictures[name], OSError):
            raise pictures[name]
        return pictures[name]

    chosen = suite.choose({"one": "agfeh", "other": "bcd"}, opened)
    assert {label: [*of] for label, of in chosen.items()} == {"one": ["a", "e"], "other": []}
    assert all(picture.size == (suite.SIZE,) * 2 for picture in chosen["one"].values())


def test_a_task_is_laid_out_as_class_folders_and_without_its_source_skipped(
    tmp_path, monkeypatch, capsys
):
    place = tmp_path / "found"
    for number, name in enumerate(("big/cat-1", "big/cat-2", "small/dog")):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        noise(number).save(place / f"{name}.png")
    (place / "small/dog-2.svg").write_text("<svg", encoding="utf-8")
    (place / "big/cat-3.png").symlink_to(place / "small/dog.png")

    def none(work, clones):
        raise UserError("there is no such package")

    monkeypatch.setattr(suite, "SOURCES", {"here": lambda *_: suite.files_of(place), "no": none})
    classes = {name: suite.word(name) for name in ("cat", "dog")}
    tasks = {"gone": suite.Task(["no"], classes), "pets": suite.Task(["here"], classes)}
    monkeypatch.setattr(suite, "TASKS", tasks)
    assert suite.main(["--root", str(tmp_path)]) == 0
    folder = suite.folder_of(tmp_path, "pets")
    assert {of.name: len([*of.iterdir()]) for of in folder.iterdir()} == {"cat": 2, "dog": 1}
    assert [of.name for of in folder.parent.iterdir()] == ["pets"]
    assert "gone is skipped: there is no such package" in capsys.readouterr().err


def test_each_class_name_is_made_of_tokens_that_the_tiny_clip_has_learned():
    weights = REPOSITORY / "trainers/prompting/weights/tiny.pt"
    model, _ = clip.load(str(weights), device="cpu")
    learned = model.token_embedding.weight.abs().sum(dim=1) > 0  # (V,), rows that were trained
    for label in (label for task in suite.TASKS.values() for label in task.classes):
        ids = clip.tokenize(label)[0]
        assert learned[ids[ids > 0]].all(), label
