"""Pictures as people have them: transparent, turned, in folders below, of formats that are not read, animated, broken."""

import json
import shutil

import numpy
import pytest
from PIL import Image

import predict
from protocols import training as train
from results.report.gallery import find_images
from results.runs import collect
from tests.runs import REPOSITORY, call
from trainers.common.image_files import left_out, read_picture

SIZE = 40


def drawn(seed, colour):
    generator = numpy.random.default_rng(seed)
    return numpy.clip(generator.normal(0, 40, (SIZE, SIZE, 3)) + colour, 0, 255).astype("uint8")


def transparent(pixels):
    """The left half as it is, the right half transparent; what is stored there is black, as most programs leave it."""
    alpha = numpy.full((SIZE, SIZE, 1), 255, dtype="uint8")
    alpha[:, SIZE // 2 :] = 0
    return Image.fromarray(
        numpy.concatenate([numpy.where(alpha > 0, pixels, 0).astype("uint8"), alpha], axis=2)
    )


@pytest.fixture
def folder(tmp_path):
    """Two classes of ten transparent pictures, half of them in folders below."""
    for label, (name, colour) in enumerate((("ant", (200, 0, 0)), ("bee", (0, 0, 200)))):
        (tmp_path / f"mine/{name}/more/deep").mkdir(parents=True)
        for index in range(10):
            place = tmp_path / f"mine/{name}" / ("more/deep" if index % 2 else "")
            transparent(drawn(10 * label + index, colour)).save(f"{place}/{index}.png")
    return tmp_path / "mine"


@pytest.fixture
def start(small_clip_file, tmp_path, capsys):
    """Trains on a folder of one's own; returns the exit code, the record and what was logged."""

    def start(images, *options, trainer="ZeroshotCLIP", name="out"):
        code = call(
            train.main,
            "--trainer",
            trainer,
            "--images",
            images,
            "--backbone",
            small_clip_file,
            "--output-dir",
            tmp_path / name,
            "--config-file",
            f"{REPOSITORY}/tests/small.yaml",
            *options,
        )
        record = tmp_path / f"{name}/results.json"
        said = capsys.readouterr()
        return (
            code,
            json.loads(record.read_text()) if record.exists() else None,
            said.out + said.err,
        )

    return start


def test_transparent_pictures_are_seen_on_white_and_counted(folder, start, tmp_path, capsys):
    code, record, log = start(folder)
    assert (
        code == 0
        and "Transparent parts, in 20 of 20 images, are put on white (INPUT.BACKGROUND)" in log
    )
    shutil.copytree(folder, f"{tmp_path}/flat/mine")
    for path in (tmp_path / "flat").rglob("*.png"):
        with Image.open(path) as image:
            flat = Image.new("RGB", image.size, "white")
            flat.paste(image, mask=image.getchannel("A"))
        flat.save(path)
    _, flat_record, log = start(tmp_path / "flat/mine", name="flat_out")
    assert "transparent parts" not in log and record["metrics"] == flat_record["metrics"]
    _, stored_record, log = start(folder, "INPUT.BACKGROUND", "", name="stored")
    assert (
        "Transparent parts, in 20 of 20 images, are taken as stored" in log
        and record["metrics"] != stored_record["metrics"]
    )
    assert call(predict.main, "--run", f"{tmp_path}/out", "--csv", f"{tmp_path}/a.csv", folder) == 0
    assert "20 of 20 images can have transparent parts, put on white" in capsys.readouterr().err
    assert (
        call(
            predict.main,
            "--run",
            f"{tmp_path}/out",
            "--csv",
            f"{tmp_path}/b.csv",
            f"{tmp_path}/flat/mine",
        )
        == 0
    )
    assert (tmp_path / "a.csv").read_text().replace(str(folder), "") == (
        tmp_path / "b.csv"
    ).read_text().replace(f"{tmp_path}/flat/mine", "")


def test_pictures_in_folders_below_are_told_apart_by_name_and_shown_in_the_report(
    folder, start, tmp_path
):
    assert start(folder)[0] == 0
    with numpy.load(f"{tmp_path}/out/predictions-test.npz") as kept:
        names = kept["image"].tolist()
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")}
    assert (
        len(set(names)) == len(names) == 6
        and set(names) <= there
        and any("more/deep" in name for name in names)
    )
    run = next(run for run in collect(tmp_path / "out") if run.record["trainer"] == "ZeroshotCLIP")
    assert set(find_images(run, str(folder))) == set(names)


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_photograph_is_turned_as_its_exif_data_say(tmp_path, turn):
    """Against a picture that was drawn upright, stored turned with the EXIF tag of a camera held that way."""
    upright = drawn(1, (90, 90, 90))[:, :30]
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: numpy.rot90(upright),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: numpy.rot90(upright, -1),
    }[turn]
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(numpy.ascontiguousarray(stored)).save(f"{tmp_path}/x.png", exif=exif)
    assert (numpy.asarray(read_picture(f"{tmp_path}/x.png", "white")) == upright).all()
    assert (numpy.asarray(read_picture(f"{tmp_path}/x.png")) == stored).all(), "as stored"


def test_grey_pictures_of_16_bits_are_not_cut_off_at_255(tmp_path):
    grey = numpy.linspace(0, 65535, 100).astype("uint16").reshape(10, 10)
    Image.fromarray(grey).save(f"{tmp_path}/x.png")
    assert (numpy.asarray(read_picture(f"{tmp_path}/x.png", "white"))[:, :, 1] == grey // 256).all()


def test_what_is_left_out_is_counted_and_named(folder, start, tmp_path, monkeypatch):
    (folder / "ant/drawing.svg").write_text("<svg/>")
    for name in ("x.heic", "y.HEIC"):
        (folder / f"bee/more/{name}").write_bytes(b"")
    (folder / "ant/gone.png").symlink_to("nowhere")
    (folder / "loose.png").write_bytes((folder / "ant/0.png").read_bytes())
    frames = [Image.fromarray(drawn(seed, (200, 0, 0))) for seed in range(3)]
    frames[0].save(f"{folder}/ant/moves.gif", save_all=True, append_images=frames[1:])
    monkeypatch.setattr(
        "trainers.common.image_files.ENDINGS", (".png", ".gif")
    )  # as without pillow-heif
    monkeypatch.setattr("trainers.common.image_files.MISSING", {".heic": "pillow-heif"})
    expected = (
        "Left out: 2 .heic (x.heic, y.HEIC; to take these: pip install pillow-heif); 1 .svg (drawing.svg); "
        "1 links to nothing (gone.png). Of 1 moving pictures the first frame is taken (moves.gif)"
    )
    _, _, log = start(folder)
    assert (
        expected in log
        and "Left out, since they lie in no class folder: 1 image (loose.png)" in log
    )
    assert call(predict.main, "--run", f"{tmp_path}/out", "--csv", f"{tmp_path}/a.csv", folder) == 0
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 1 + 22
    assert left_out([f"{folder}/ant/0.png"]) == ""


def test_heic_is_taken_with_its_library(tmp_path):
    pytest.importorskip("pillow_heif")
    Image.new("RGB", (64, 64), (10, 200, 30)).save(f"{tmp_path}/x.heic", format="HEIF", quality=95)
    assert left_out([f"{tmp_path}/x.heic"]) == ""
    assert (
        numpy.abs(
            numpy.asarray(read_picture(f"{tmp_path}/x.heic", "white")).astype(int) - (10, 200, 30)
        ).max()
        < 12
    )


def broken_images(folder):
    (folder / "ant/0.png").write_bytes((folder / "ant/0.png").read_bytes()[:200])
    (folder / "bee/more/deep/3.png").write_bytes(b"no image")


def test_all_broken_images_are_named_at_the_start_and_the_run_goes_on(folder, start):
    broken_images(folder)
    code, record, log = start(folder, trainer="CoOp")
    assert (
        code == 0
        and "Left out, since they can't be read: 2 images (ant/0.png (image file is truncated"
        in log
    )
    assert "bee/more/deep/3.png (it is not an image of a known format)" in log
    skipped = sorted(name for names in record["skipped_images"].values() for name in names)
    assert skipped == ["ant/0.png", "bee/more/deep/3.png"]
    code, record, log = start(
        folder, "DATALOADER.BROKEN_IMAGES", "error", trainer="CoOp", name="strict"
    )
    assert code == 2 and record is None and "error: 2 of the images in" in log
    assert all(f"{name} (" in log.splitlines()[-1] for name in ("ant/0.png", "bee/more/deep/3.png"))


def test_a_class_of_broken_images_is_named(folder, start):
    for path in (folder / "ant").rglob("*.png"):
        path.write_bytes(b"no image")
    code, _, log = start(folder)
    assert code == 2 and "error: no training image of the class 'ant' in" in log


def test_one_broken_image_does_not_cost_the_other_answers(folder, trained, tmp_path, capsys):
    broken_images(folder)
    assert (
        call(predict.main, "--run", trained("CoOp")[1], "--csv", f"{tmp_path}/a.csv", folder) == 1
    )
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 1 + 18
    last = capsys.readouterr().err.splitlines()[-1]
    assert (
        last.startswith("No answer for 2 images: image ")
        and "ant/0.png can't be read" in last
        and "deep/3.png can't be read" in last
    )
    assert call(predict.main, "--run", trained("CoOp")[1], f"{folder}/ant/0.png") == 2
    assert "not one of the images can be read" in capsys.readouterr().err
