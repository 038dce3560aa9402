"""What was trained on is no test, and no test takes a training's place: on every road."""

import shutil

import numpy
import pytest
from PIL import Image

import train
from labelling import PromptedClassifier
from tests.bursts import SIZE, textures
from tests.runs import REPOSITORY, call, contents_of, make_pictures, prompts_of, record_of
from trainers.common.image_files import COARSE
from trainers.common.trained_on import TrainedOn, thumbnail

OWN = "--images"
DASSL = "--root"


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """A folder of 20 pictures and a run that was trained on all of them."""
    place = tmp_path_factory.mktemp("mine")
    pictures = make_pictures(place / "pictures")
    PromptedClassifier.fit(pictures, trainer="GDA", backbone="tiny", folder=place / "run", shots=-1)
    return pictures, place / "run"


def all_trained_on(number):
    """The remark that each of a number of tested images was trained on."""
    return f"{number} of {number} images tested were trained on, byte for byte: an accuracy on these is not a test"


def make_test(road, pictures, run, output):
    """The exit code of a test of a run's prompts on pictures."""
    recipe = REPOSITORY / "configs/trainers/GDA/tiny.yaml"
    words = [road, pictures, "--trainer", "GDA", "--backbone", "tiny", "--config-file", recipe]
    if road == DASSL:
        words += ["--dataset-config-file", REPOSITORY / "configs/datasets/image_folder.yaml"]
    shots = ["DATASET.NUM_SHOTS", -1, "DATALOADER.NUM_WORKERS", 0]
    return call(train.main, *words, *prompts_of(run), "--output-dir", output, *shots)


@pytest.mark.parametrize("road", [OWN, DASSL])
def test_a_test_notes_how_many_of_its_images_were_trained_on(mine, tmp_path, capsys, road):
    pictures, run = mine
    copy = shutil.copytree(pictures, tmp_path / "copy")
    others = make_pictures(tmp_path / "others", seed=1)
    assert make_test(road, copy, run, tmp_path / "of copies") == 0
    assert make_test(road, others, run, tmp_path / "of others") == 0
    record = record_of(tmp_path / "of copies")
    number = record["metrics"]["test"]["images"]
    line = all_trained_on(number)
    assert line in record["notes"]
    assert line in "".join(capsys.readouterr())
    assert not [n for n in record_of(tmp_path / "of others")["notes"] if "trained on, byte" in n]


def test_an_evaluation_counts_the_images_that_were_trained_on(mine, tmp_path, caplog):
    pictures, run = mine
    classifier = PromptedClassifier.load(run)
    mixed = make_pictures(tmp_path / "mixed", seed=1, count=5)
    for number in range(3):
        shutil.copyfile(pictures / f"ant/{number}.bmp", mixed / f"ant/again {number}.bmp")
    for asked in (classifier, classifier.with_classes(["bee", "ant"])):
        assert asked.evaluate(mixed).trained_on == 3
    assert "3 of 13 images tested were trained on, byte for byte" in caplog.text
    caplog.clear()
    assert classifier.evaluate(make_pictures(tmp_path / "others", seed=2)).trained_on == 0
    assert not caplog.messages


def test_images_that_a_program_holds_are_known_again(tmp_path):
    generator = numpy.random.default_rng(0)
    images = [*generator.integers(0, 256, (20, 32, 32, 3), dtype="uint8")]
    names = ["ant", "bee"] * 10
    classifier = PromptedClassifier.fit(
        images, names, trainer="GDA", backbone="tiny", folder=tmp_path / "run"
    )
    others = [*generator.integers(0, 256, (4, 32, 32, 3), dtype="uint8")]
    again = [images[0], Image.fromarray(images[1])]
    evaluation = classifier.evaluate(again + others, names[:6])
    assert evaluation.trained_on == 2


def test_what_is_kept_of_a_training_image_are_eight_bytes_and_a_thumbnail_of_176(mine):
    pictures, run = mine
    known = PromptedClassifier.load(run).trained_on
    assert len(known.files) == 20
    assert all(-(2**63) <= number < 2**63 for number in known.files)
    assert known.thumbnails.shape == (20, 176)
    assert known.thumbnails.dtype == numpy.uint8


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of 20 textures in two classes and a run that was trained on all of them."""
    place = tmp_path_factory.mktemp("photos")
    for number, (picture, name) in enumerate(textures(2, 14)):
        folder = place / ("pictures" if number % 14 < 10 else "others") / name
        folder.mkdir(parents=True, exist_ok=True)
        picture.save(folder / f"{number}.png")
    pictures = place / "pictures"
    PromptedClassifier.fit(pictures, trainer="GDA", backbone="tiny", folder=place / "run", shots=-1)
    return pictures, place / "run"


def test_training_pictures_that_were_saved_again_are_known(photos, tmp_path, caplog):
    """A copy beside a file of the training's own and 8 new pictures."""
    pictures, run = photos
    mixed = shutil.copytree(pictures.parent / "others", tmp_path / "mixed")
    first, *more = sorted(pictures.glob("*/*.png"))
    shutil.copy(first, mixed / first.parent.name)
    for path, ending in zip(more, ("png", "jpg", "bmp")):
        # other bytes in the training's own format, too
        again = mixed / path.parent.name / f"again {path.stem}.{ending}"
        Image.open(path).save(again, quality=90, dpi=(300, 300))
    assert PromptedClassifier.load(run).evaluate(mixed).trained_on == 4
    assert "4 of 12 images tested were trained on, 3 of them saved again (again " in caplog.text


def test_a_test_notes_pictures_that_were_saved_again(photos, tmp_path):
    pictures, run = photos
    again = tmp_path / "again"
    for path in pictures.glob("*/*.png"):
        (again / path.parent.name).mkdir(parents=True, exist_ok=True)
        Image.open(path).save(again / path.parent.name / f"{path.stem}.jpg", quality=90)
    assert make_test(OWN, again, run, tmp_path / "run") == 0
    record = record_of(tmp_path / "run")
    number = record["metrics"]["test"]["images"]
    line = f"{number} of {number} images tested were trained on, {number} of them saved again ("
    assert any(note.startswith(line) for note in record["notes"])


def thumbnails(pictures):
    """Thumbnails (N, 176) of pictures."""
    small = [picture.resize((COARSE, COARSE), Image.Resampling.BOX) for picture in pictures]
    return numpy.array([thumbnail(numpy.asarray(each).ravel()) for each in small])


def test_independent_pictures_are_not_taken_for_those_that_were_trained_on():
    """Nor are two pictures that show nothing one picture."""
    made = [picture for picture, _ in textures(4, 20)]
    blank = [Image.new("RGB", (SIZE, SIZE), (light,) * 3) for light in (255, 254, 0)]
    for some in (made, blank):
        half = len(some) // 2
        known = TrainedOn(frozenset(), thumbnails(some[:half]))
        assert not known.saved_again(thumbnails(some[half:])).any()


def test_thumbnails_are_compared_by_their_root_mean_square():
    draws = numpy.random.default_rng(0)
    known = draws.integers(0, 256, (20, 176), dtype="uint8")
    known[:, :144] |= 128 * (numpy.arange(144) % 2).astype("uint8")  # a clear contrast
    whole = known.repeat(15, axis=0).astype(int)  # more than a block
    asked = (whole + draws.integers(-4, 5, whole.shape)).clip(0, 255)
    rest = asked[:, None] - known[None].astype(int)  # (N, T, D)
    expected = ((rest**2).mean(axis=2) < 4).any(axis=1)
    found = TrainedOn(frozenset(), known).saved_again(asked.astype("uint8"))
    assert (found == expected).all()
    close = (known.astype(int) + draws.integers(-2, 3, known.shape)).clip(0, 255)
    assert TrainedOn(frozenset(), known).saved_again(close.astype("uint8")).all()


@pytest.mark.parametrize("road", [OWN, DASSL])
@pytest.mark.parametrize("place", ["run", "run/", "link"])
def test_a_test_does_not_replace_the_record_of_a_training(mine, error_of, road, place):
    pictures, run = mine
    link = run.parent / "link"
    if not link.exists():
        link.symlink_to(run)
    before = contents_of(run)
    output = f"{run.parent}/{place}"
    for prompts in (run, pictures):
        line = error_of(lambda _: make_test(road, pictures, prompts, output))
        assert "holds a training, whose record the test would replace" in line
    assert contents_of(run) == before
