"""Which images belong together by a rule, and what becomes of a film."""

from pathlib import Path

import numpy
import PIL.Image
import PIL.ImageOps
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelling import PromptedClassifier, groups
from labelling.groups import FILM, STRETCHES, in_stretches, named_by
from labelling.request import ask
from tests import plain
from tests.labelling.tables import CFG, images_in
from tests.same_run import kept_answers
from trainers.common.errors import UserError
from trainers.common.fingerprints import BELOW_MARK, listed_path
from trainers.data.lists import Image


def image(path, label=0):
    return Image(path, label, f"class {label}")


def test_a_rule_groups_by_the_folder_below_the_class_or_by_the_names_beginning():
    below = f"/data/cat{BELOW_MARK}anna/1.png"
    alone = "/data/cat/2.png"
    listed = listed_path("/data", "scans/anna/3.png")
    every = [image(path) for path in (below, alone, listed)]
    assert named_by("folder", every) == {below: "anna", listed: "scans/anna"}
    assert named_by("([0-9])", every) == {
        below: "class 0/1",
        alone: "class 0/2",
        listed: "class 0/3",
    }
    assert {*named_by("(1|2)?", every)} == {below, alone}, "an empty group is none"


def test_a_patterns_groups_are_of_one_class_unless_it_says_otherwise():
    every = [image("/data/cat/0.jpg", 0), image("/data/dog/0.jpg", 1)]
    assert len({*named_by("(.+)", every).values()}) == 2
    assert len({*named_by("across:(.+)", every).values()}) == 1
    assert len({*named_by("(.+)", every, across=True).values()}) == 1, "of multi-label images"


def test_a_pattern_that_hangs_is_refused():
    name = 40 * "a" + "!.png"
    with pytest.raises(UserError, match="takes more than 1 s for a+!.png: write it without"):
        named_by("((?:a|aa)+)$", [image(f"/data/cat/{name}")])


def test_by_none_each_image_is_alone_and_images_without_a_named_group_are_looked_at(
    tmp_path, caplog
):
    """Of eight scenes with a copy each; two files of one class fit the pattern."""
    draws = numpy.random.default_rng(0)
    for name in ("one", "two"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for scene in range(4):
            cells = draws.integers(40, 256, (12, 12, 3), dtype="uint8")
            picture = PIL.Image.fromarray(cells.repeat(8, axis=0).repeat(8, axis=1))
            picture.save(tmp_path / "data" / name / f"scene{scene}.png")
            PIL.ImageOps.mirror(picture).save(tmp_path / "data" / name / f"mirror{scene}.png")
    run = {"trainer": "GDA", "backbone": "tiny"}
    none = PromptedClassifier.fit(tmp_path / "data", group_by="none", folder=tmp_path / "n", **run)
    assert none.record["metrics"]["test"].get("effective_images", 16) == 16
    assert "By --group-by none each image is independent" in " ".join(none.record["notes"])
    some = PromptedClassifier.fit(
        tmp_path / "data", group_by="(scene[01])", folder=tmp_path / "s", **run
    )
    said = " ".join(some.record["notes"])
    assert "have a group: 4 groups, of one class each" in said
    assert "8 images belong together, in 4 groups" in said, "mirrored ones of the two other scenes"


@pytest.mark.parametrize(
    "rule, said",
    [
        ("(", "--group-by is '('"),
        ("film", "with 0 groups"),
        ("(a)(b)", "with 2 groups"),
    ],
)
def test_a_rule_that_can_not_work_is_refused_before_anything_is_read(rule, said):
    with pytest.raises(UserError, match="give none, folder, or a regular expression") as refused:
        ask("/no/such/folder", group_by=rule)
    assert said in str(refused.value)


def test_a_rule_has_one_way_in():
    with pytest.raises(UserError, match="has an argument of its own"):
        ask("/no/such/folder", settings={"DATASET.GROUP_BY": "folder"})


@pytest.mark.parametrize("rule", ["folder", "x(.+)"])
def test_a_rule_that_groups_nothing_is_refused(rule):
    with pytest.raises(UserError, match="no image has a group"):
        named_by(rule, [image("/data/cat/1.png")])


def test_by_a_rule_no_group_is_divided_and_another_rule_is_another_run(
    tmp_path,
):
    """Of six groups, each of which has images of both classes; in folds and in the promise."""
    for name in ("red", "blue"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for group in range(6):
            for shot in range(2):
                picture = PIL.Image.new("RGB", (8, 8), name)
                picture.putpixel((group, shot), (255, 255, 255))
                picture.save(tmp_path / "data" / name / f"{group}_{shot}.png")
    place = tmp_path / "run"
    rules = {"trainer": "GDA", "backbone": "tiny", "folder": place}
    classifier = PromptedClassifier.fit(tmp_path / "data", group_by="across:([0-9])_", **rules)
    assert classifier.record["config"]["DATASET"]["GROUP_BY"] == "across:([0-9])_"
    assert "24 images belong together, in 6 groups" in " ".join(classifier.record["notes"])
    kept = kept_answers(place, "test")
    counted = {(path.split("/")[-1][0], group) for path, group in zip(kept["image"], kept["group"])}
    assert sorted(name for name, _ in counted) == [*"012345"]
    assert kept["is_new"].all()
    with pytest.raises(UserError, match="belongs to another run"):
        PromptedClassifier.fit(tmp_path / "data", group_by="([0-9]_[0-9])", **rules)


@given(st.integers(2, 120), st.integers(0, 60), st.integers(0, 3))
def test_a_group_that_is_most_of_its_class_is_divided_and_every_other_one_is_whole(
    film, odd, of_another
):
    frames = [image(f"/data/belt/frame{number}.png") for number in range(film)]
    others = [image(f"/data/belt/odd{number}.png") for number in range(odd)]
    another = [image(f"/data/shop/{number}.png", 1) for number in range(of_another)]
    every = [*frames, *others, *another]
    known = {each.impath: 0 for each in frames}
    known |= {each.impath: place for place, each in enumerate([*others, *another], 1)}
    divided, said = in_stretches(every, known)
    assert [divided[each.impath] for each in others + another] == [*range(1, odd + of_another + 1)]
    stretches = [divided[each.impath] for each in frames]
    assert not {*stretches} & {*range(1, odd + of_another + 1)}
    if film <= FILM or film <= (film + odd) / 2:
        assert divided == known
        assert said == ""
        return
    assert stretches == sorted(stretches), "frame 2 comes before frame 10"
    sizes = [stretches.count(number) for number in {*stretches}]
    assert len(sizes) == STRETCHES
    assert max(sizes) - min(sizes) <= 1
    assert f"class 0 look like one another in a row, {film} images" in said
    assert groups.by_numbers("frame2") < groups.by_numbers("frame10")


@pytest.mark.parametrize("multi_label", [False, True], ids=["single-label", "multi-label"])
def test_a_belt_of_pictures_that_look_alike_is_divided_in_stretches(tmp_path, multi_label):
    """120 frames of one camera, whose labels may differ: neighbours in time are in one fold."""
    rng = numpy.random.default_rng(0)
    scene = rng.integers(0, 256, (32, 32, 3))
    rows = []
    for number in range(160):
        is_frame = number < 120
        shown = (
            scene + rng.normal(0, 2, scene.shape) if is_frame else rng.integers(0, 256, scene.shape)
        )
        PIL.Image.fromarray(shown.clip(0, 255).astype("uint8")).save(tmp_path / f"{number}.png")
        label = "belt" if is_frame else "other"
        if multi_label and number % 3 == 0:
            label += ";rare"
        rows.append(f"{number}.png,{label}")
    file = tmp_path / "labels.csv"
    file.write_text("\n".join(["image,label", *rows]))
    made = images_in(file, CFG, True, multi_label)
    assert f"divided into {STRETCHES} stretches" in " ".join(made.notes)
    group_of = {int(Path(path).stem): group for path, group in made.groups.items()}
    stretches = [group_of[number] for number in range(120)]
    assert [stretches.count(own) for own in dict.fromkeys(stretches)] == [12] * STRETCHES
    others = {group_of[number] for number in range(120, 160)}
    assert len(others) == 40
    assert not others & {*stretches}


@pytest.mark.parametrize("multi_label", [False, True], ids=["single-label", "multi-label"])
def test_plain_drawings_are_alone_and_nothing_is_said_of_copies(tmp_path, multi_label):
    rows = []
    for number, (picture, name) in enumerate(plain.shapes(numpy.random.default_rng(1))):
        picture.save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{name}")
    file = tmp_path / "labels.csv"
    file.write_text("\n".join(["image,label", *rows]))
    made = images_in(file, CFG, True, multi_label)
    assert not made.found_in_part
    assert len({*made.groups.values()}) >= 0.98 * len(rows)
    said = " ".join(made.notes)
    assert "--max-error" not in said and "film" not in said
