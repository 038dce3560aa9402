"""Pictures as people have them: transparent, turned, in folders below, of formats that are not
read, animated, broken."""

import shutil

import numpy
import pytest
from PIL import Image

import predict
from report.pictures import find_images
from results.runs import collect
from tests.runs import call
from tests.same_run import kept_answers
from trainers.common.image_files import read_picture

SIZE = 40


def drawn(seed, colour):
    generator = numpy.random.default_rng(seed)
    return numpy.clip(generator.normal(0, 40, (SIZE, SIZE, 3)) + colour, 0, 255).astype("uint8")


def transparent(pixels):
    """The left half as it is, the right half transparent; what is stored there is black, as most
    programs leave it."""
    alpha = numpy.full((SIZE, SIZE, 1), 255, dtype="uint8")
    alpha[:, SIZE // 2 :] = 0
    return Image.fromarray(numpy.concatenate([pixels * (alpha > 0), alpha], axis=2))


@pytest.fixture
def folder(tmp_path):
    """Two classes of ten transparent pictures, half of them in folders below."""
    for label, (name, colour) in enumerate((("ant", (200, 0, 0)), ("bee", (0, 0, 200)))):
        (tmp_path / f"mine/{name}/more/deep").mkdir(parents=True)
        for index in range(10):
            place = tmp_path / f"mine/{name}" / ("more/deep" if index % 2 else "")
            transparent(drawn(10 * label + index, colour)).save(f"{place}/{index}.png")
    return tmp_path / "mine"


def test_transparent_pictures_are_seen_on_white_and_counted(folder, train_on, tmp_path, capsys):
    counted = "Transparent parts, in 20 of 20 images, are"
    code, record, log = train_on(folder, trainer="ZeroshotCLIP")
    assert code == 0
    assert f"{counted} put on white (INPUT.BACKGROUND)" in log
    flat = shutil.copytree(folder, tmp_path / "flat/mine")
    for path in flat.rglob("*.png"):
        with Image.open(path) as image:
            white = Image.new("RGB", image.size, "white")
            white.paste(image, mask=image.getchannel("A"))
        white.save(path)
    _, flat_record, log = train_on(flat, trainer="ZeroshotCLIP", name="flat_out")
    assert "ransparent parts" not in log
    assert record["metrics"] == flat_record["metrics"]
    stored = ("INPUT.BACKGROUND", "")
    _, stored_record, log = train_on(folder, *stored, trainer="ZeroshotCLIP", name="stored")
    assert f"{counted} taken as stored" in log
    assert record["metrics"] != stored_record["metrics"]
    assert call(predict.main, "--run", tmp_path / "out", folder) == 0
    assert "20 of 20 images can have transparent parts, put on white" in capsys.readouterr().err


def test_pictures_in_folders_below_are_told_apart_by_name_and_shown_in_the_report(
    folder, train_on, tmp_path
):
    assert train_on(folder, trainer="ZeroshotCLIP")[0] == 0
    names = kept_answers(tmp_path / "out", "test")["image"].tolist()
    there = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    assert sorted(names) == there, "few: all are tested"
    (run,) = collect(tmp_path / "out")
    assert sorted(find_images(run, str(folder))) == there


UPRIGHT = drawn(1, (90, 90, 90))[:, :30]


@pytest.mark.parametrize(
    "turn, stored", [(5, UPRIGHT.transpose(1, 0, 2)), (6, numpy.rot90(UPRIGHT))]
)
def test_a_photograph_is_turned_as_its_exif_data_say(tmp_path, turn, stored):
    """Against a picture that was drawn upright, stored turned with the EXIF tag of a camera held
    that way."""
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(numpy.ascontiguousarray(stored)).save(f"{tmp_path}/x.png", exif=exif)
    assert (numpy.asarray(read_picture(f"{tmp_path}/x.png", "white")) == UPRIGHT).all()
    assert (numpy.asarray(read_picture(f"{tmp_path}/x.png")) == stored).all(), "as stored"


def test_what_is_left_out_is_counted_and_named(folder, train_on, monkeypatch):
    (folder / "ant/drawing.svg").write_text("<svg/>")
    for name in ("x.heic", "y.HEIC"):
        (folder / f"bee/more/{name}").write_bytes(b"")
    shutil.copy(folder / "ant/0.png", folder / "loose.png")
    frames = [Image.fromarray(drawn(seed, (200, 0, 0))) for seed in range(3)]
    frames[0].save(f"{folder}/ant/moves.gif", save_all=True, append_images=frames[1:])
    files = "trainers.common.image_files"
    monkeypatch.setattr(f"{files}.IMAGE_ENDINGS", (".png", ".gif"))  # as without pillow-heif
    _, record, log = train_on(folder, trainer="ZeroshotCLIP")
    for line in (
        "Left out: 2 .heic (x.heic, y.HEIC); 1 .svg (drawing.svg). "
        "To take HEIC: pip install pillow-heif. "
        "Of 1 moving pictures the first frame is taken (moves.gif)",
        "Left out, since they lie in no class folder: 1 image (loose.png)",
    ):
        assert line in log
        assert line in record["notes"]


def test_all_broken_images_are_named_at_the_start_and_the_run_goes_on(folder, train_on):
    (folder / "ant/0.png").write_bytes((folder / "ant/0.png").read_bytes()[:200])
    (folder / "bee/more/deep/3.png").write_bytes(b"no image")
    code, record, log = train_on(folder)
    assert code == 0
    assert "Left out, since they can't be read: 2 images (ant/0.png (image file" in log
    assert "bee/more/deep/3.png (it is not an image of a known format)" in log
    skipped = sum(record["skipped_images"].values(), [])
    assert sorted(skipped) == ["ant/0.png", "bee/more/deep/3.png"]
    code, record, log = train_on(folder, "DATALOADER.BROKEN_IMAGES", "error", name="strict")
    assert code == 2
    assert record is None
    assert "error: 2 of the images in" in log


def test_a_class_of_broken_images_is_named(folder, train_on):
    for path in (folder / "ant").rglob("*.png"):
        path.write_bytes(b"no image")
    code, _, log = train_on(folder, trainer="ZeroshotCLIP")
    assert code == 2
    assert "can't be read: ant/" in log
    assert "if each class and the test" in log
