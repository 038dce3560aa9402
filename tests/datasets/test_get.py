"""python -m datasets.get: archives from a hub on this machine, from a folder, from git; ImageNet sorted."""

import errno
import hashlib
import io
import multiprocessing
import os
import re
import shlex
import shutil
import stat
import subprocess
import tarfile
import zipfile
from dataclasses import replace

import huggingface_hub.constants as constants
import numpy
import pytest
import scipy.io
from dassl.data.datasets import DATASET_REGISTRY

from datasets import archives, check, get
from datasets.every import data_set
from datasets.sources import MIRROR, REVISION, SOURCES
from tests.datasets.miniatures import MINIATURES, WNIDS, picture
from tests.datasets.test_every_dataset import build
from tests.hub import serving
from tests.runs import PATIENCE, REPOSITORY, call, contents_of, make_textures, python, refuses

FORK = multiprocessing.get_context("fork")
NAME_OF = {source.sets[0]: name for name, source in SOURCES.items() if source.archives}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with serving(MIRROR, monkeypatch, tmp_path / "cache") as server:
        yield server


@pytest.fixture(autouse=True)
def miniatures_are_the_fields(request, monkeypatch):
    """The sets here are a hundredth of the field's, with splits of their own."""
    if not request.node.get_closest_marker("of_the_field"):
        monkeypatch.setattr(get, "is_the_fields", get.is_complete)
        for name, source in SOURCES.items():
            monkeypatch.setitem(get.SOURCES, name, replace(source, sha256=""))


@pytest.fixture
def start(tmp_path, capsys):
    """``start("dtd …")`` → exit code and what was printed, with the root ``tmp_path/data``."""

    def go(words, *more):
        code = call(get.main, *words.split(), "--root", tmp_path / "data", *more)
        return code, capsys.readouterr()

    return go


def zipped(folder, top=""):
    """The files of a folder as a zip archive, below a folder of that name."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for path, data in contents_of(folder).items():
            archive.writestr(f"{top}{path.relative_to(folder)}", data)
    return content.getvalue()


def tarred(files, kind="w"):
    """Name → bytes as a tar archive."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=kind) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return content.getvalue()


def miniature(tmp_path, name="EuroSAT"):
    """A folder with a data set in miniature, as its archive holds it, and the archive's name."""
    MINIATURES[name](tmp_path / "drawn")
    folder = data_set(name).dataset_dir
    return tmp_path / "drawn" / folder, f"{folder}/", SOURCES[NAME_OF[name]].archives[0]


# ---- from the hub ----


@pytest.mark.parametrize("name", NAME_OF)
def test_every_set_of_the_mirror_is_got_once_and_is_the_set(hub, start, tmp_path, name):
    folder, top, archive = miniature(tmp_path, name)
    hub.files[archive] = zipped(folder, top)
    code, printed = start(NAME_OF[name])
    assert code == 0
    assert f"\n{name}" in printed.out
    assert contents_of(tmp_path / "data" / top).keys() == {
        tmp_path / "data" / top / path.relative_to(folder) for path in contents_of(folder)
    }
    assert build(name, tmp_path / "data").test
    assert start(NAME_OF[name])[0] == 0
    assert hub.downloads == [archive]


def test_what_is_there_is_not_touched_and_what_is_half_there_is_completed(hub, start, tmp_path):
    folder, top, archive = miniature(tmp_path)
    hub.files[archive] = zipped(folder, top)
    start("eurosat")
    there = tmp_path / "data/eurosat"
    mine, image = there / "2750/one/mine.txt", there / "2750/one/val1.jpg"
    whole = image.read_bytes()
    mine.write_text("mine")
    image.unlink()
    other = there / "2750/one/val2.jpg"
    other.write_bytes(b"changed")
    (there / "split_zhou_EuroSAT.json").unlink()
    assert start("eurosat")[0] == 0
    assert image.read_bytes() == whole
    assert mine.read_text() == "mine"
    assert other.read_bytes() == b"changed"
    assert (there / "split_zhou_EuroSAT.json").is_file()
    assert os.listdir(tmp_path / "data") == ["eurosat"], "nothing is left over"
    assert hub.downloads == [archive], "the second time it came from the cache"


@pytest.mark.parametrize(
    "change, images",
    [
        ({"eurosat/": "EuroSAT_rgb/wrapped/"}, "wrapped/2750"),
        ({"eurosat/2750/": "eurosat/pictures/"}, "pictures"),
        ({"eurosat/split": "elsewhere/split", "eurosat/2750/": ""}, "unfinished"),
        ({"eurosat/": "__MACOSX/"}, None),
        ({"split_zhou_EuroSAT": "split"}, None),
        ({"/one/": "/first/"}, None),
    ],
)
def test_a_set_that_changed_its_layout_is_found_by_what_it_holds_or_refused(
    hub, start, tmp_path, change, images
):
    folder, top, archive = miniature(tmp_path)
    moved = tmp_path / "moved"
    for path, data in contents_of(folder).items():
        name = top + str(path.relative_to(folder))
        for old, new in change.items():
            name = name.replace(old, new)
        (moved / name).parent.mkdir(parents=True, exist_ok=True)
        (moved / name).write_bytes(data)
    hub.files[archive] = zipped(moved)
    code, printed = start("eurosat")
    there = tmp_path / "data/eurosat"
    if images is None:
        assert code == 1
        assert "the archive is laid out in an unknown way: " in printed.err
        assert not there.exists()
        assert not [name for name in os.listdir(tmp_path / "data") if "unfinished" in name]
    else:
        assert code == 0
        assert re.search(f"its images are in .*{images}\n", printed.err)
        assert build("EuroSAT", tmp_path / "data").num_classes == 3


def test_a_wrong_hash_is_refused_and_the_next_download_taken(hub, start, tmp_path):
    folder, top, archive = miniature(tmp_path)
    hub.files[archive] = zipped(folder, top)
    hub.hashes[archive] = hashlib.sha256(b"another file").hexdigest()
    code, printed = start("eurosat")
    assert code == 1
    assert "eurosat.zip is damaged: its SHA-256 is" in printed.err
    assert not (tmp_path / "data/eurosat").exists()
    hub.hashes.clear()
    assert start("eurosat")[0] == 0
    assert hub.downloads == [archive] * 2


def test_offline_the_cache_is_enough_and_else_a_line_says_what_to_fetch(
    hub, start, tmp_path, monkeypatch
):
    folder, top, archive = miniature(tmp_path)
    hub.files[archive] = zipped(folder, top)
    start("eurosat")
    shutil.rmtree(tmp_path / "data")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert start("eurosat")[0] == 0
    code, printed = start("eurosat dtd")
    assert code == 1
    assert f"fetch {hub.url}/{MIRROR}/resolve/{REVISION}/dtd.zip elsewhere" in printed.err
    code, printed = start("dtd --plan")
    assert code == 0
    assert "The hub is not reached" in printed.out


def test_a_plan_has_the_sizes_and_gets_nothing(hub, start, tmp_path):
    hub.files = {"EuroSAT.zip": bytes(2_500_000), "food101.zip": bytes(7_500_000), "README.md": b""}
    code, printed = start("eurosat food101 pacs --plan")
    assert code == 0
    rows = [line.split() for line in printed.out.splitlines()]
    assert ["eurosat", "2.5", "MB", "EuroSAT.zip"] in rows
    assert "0.01 GB of archives" in printed.out
    assert not hub.downloads
    assert not (tmp_path / "data").exists()


def test_an_archive_that_the_hub_lacks_is_named_with_those_that_it_has(hub, start):
    hub.files = {"eurosat-v2.zip": b""}
    code, printed = start("eurosat")
    assert code == 1
    assert (
        "has no eurosat.zip, its archives are eurosat-v2.zip: put one of that name" in printed.err
    )


def test_all_means_the_fourteen_sets_of_the_mirror(start, tmp_path):
    code, printed = start("all", "--from", tmp_path)
    assert code == 1
    assert printed.err.count("has no ") == 14


def test_a_full_disk_is_one_line_and_leaves_no_half_set(hub, start, tmp_path, monkeypatch):
    folder, top, archive = miniature(tmp_path)
    hub.files[archive] = zipped(folder, top)
    copy, count = shutil.copyfileobj, iter(range(100))

    def full(source, target):
        if next(count) == 7:
            raise OSError(errno.ENOSPC, "No space left on device")
        copy(source, target)

    monkeypatch.setattr(archives.shutil, "copyfileobj", full)
    code, printed = start("eurosat")
    assert code == 2
    assert re.search("error: .*eurosat.*jpg: No space left on device: make room", printed.err)
    assert os.listdir(tmp_path / "data") == []
    monkeypatch.setattr(archives.shutil, "copyfileobj", copy)
    assert start("eurosat")[0] == 0


def test_a_command_that_was_killed_is_given_again(hub, start, tmp_path):
    """Killed while the second of two archives comes; the first is unpacked and not asked for again."""
    folder, top, archive = miniature(tmp_path)
    hub.files[archive] = zipped(folder, top)
    make_textures(tmp_path / "textures")
    hub.files["dtd.zip"] = zipped(tmp_path / "textures/dtd", "dtd/")
    hub.cuts["dtd.zip"] = 1000
    words = ["eurosat", "dtd", "--root", f"{tmp_path}/data"]
    process = FORK.Process(target=get.main, args=(words,))
    process.start()
    assert hub.is_cut.wait(PATIENCE)
    process.kill()
    process.join()
    hub.is_over.set()
    hub.cuts.clear()
    (tmp_path / "data/.dtd.unfinished/dtd").mkdir(parents=True)  # as if killed while it unpacked
    code, printed = start("eurosat dtd")
    assert code == 0
    assert "DescribableTextures" in printed.out
    assert hub.downloads == [archive, "dtd.zip", "dtd.zip"]
    assert build("DescribableTextures", tmp_path / "data").num_classes == 6
    assert sorted(os.listdir(tmp_path / "data")) == ["dtd", "eurosat"]


# ---- a hostile or broken hub ----


@pytest.fixture
def sent(hub, tmp_path):
    """What the hub has is EuroSAT in miniature; name of its archive."""
    folder, top, archive = miniature(tmp_path)
    hub.files[archive] = zipped(folder, top)
    return archive


@pytest.mark.parametrize("is_right", [True, False])
@pytest.mark.parametrize("etag", ["{home}/thesis.txt", "{home}/new.txt", "../../../home/new.txt"])
def test_an_etag_leads_to_no_file(hub, start, sent, tmp_path, etag, is_right):
    (tmp_path / "home").mkdir()
    (tmp_path / "home/thesis.txt").write_text("mine")
    hub.etag = etag.format(home=tmp_path / "home")
    if not is_right:
        hub.hashes[sent] = "0" * 64
    assert start("eurosat")[0] == (0 if is_right else 1)
    assert contents_of(tmp_path / "home") == {tmp_path / "home/thesis.txt": b"mine"}


def test_a_link_that_leads_out_of_the_cache_is_replaced_and_its_file_left(
    hub, start, sent, tmp_path
):
    """As an earlier client has left it, to which a server had sent a path as ETag."""
    mine = tmp_path / "thesis.txt"
    mine.write_text("mine")
    link = tmp_path / f"cache/models--{MIRROR.replace('/', '--')}" / "snapshots" / REVISION / sent
    link.parent.mkdir(parents=True)
    link.symlink_to(mine)
    assert start("eurosat")[0] == 0
    assert hub.downloads == [sent]
    assert mine.read_text() == "mine"
    assert not link.is_symlink()


def test_a_redirect_is_followed_on_the_network_alone(hub, start, sent, tmp_path):
    mine = tmp_path / "thesis.zip"
    mine.write_bytes(hub.files[sent])
    hub.redirects[sent] = f"file://{mine}"
    code, printed = start("eurosat")
    assert code == 1
    assert "eurosat.zip can't be downloaded (" in printed.err
    assert mine.read_bytes() == hub.files[sent]
    hub.repositories["another/place"] = {"archive": hub.files[sent]}
    hub.redirects[sent] = f"{hub.url}/another/place/resolve/main/archive"
    assert start("eurosat")[0] == 0
    assert hub.downloads == ["archive"]


@pytest.mark.parametrize(
    "sizes, surplus, message",
    [
        ({"eurosat.zip": 1000}, b"", "the hub sends more than the 1,000 bytes that it stated"),
        ({"eurosat.zip": 10**6}, b"", "eurosat.zip can't be downloaded .*size 1000000 but has"),
        ({}, b"more", "the hub sends more than the .* bytes that it stated"),
        ({"eurosat.zip": None}, b"", "eurosat.zip can't be downloaded .*NoneType"),
    ],
)
def test_a_file_of_another_size_than_stated_is_not_kept(
    hub, start, sent, tmp_path, sizes, surplus, message
):
    hub.sizes, hub.surplus = sizes, surplus
    code, printed = start("eurosat")
    assert code == 1
    assert re.search(message, printed.err)
    assert not [path for path in contents_of(tmp_path / "cache") if path.is_file()]


def test_a_hub_that_states_no_hash_is_one_line(hub, start, sent):
    hub.hashes[sent] = None
    code, printed = start("eurosat")
    assert code == 1
    assert "eurosat.zip is damaged: its SHA-256 is " in printed.err
    assert "and the hub states none; it is not kept" in printed.err


@pytest.mark.parametrize("name", ["../../eurosat.zip", "/tmp/eurosat.zip"])
def test_a_name_that_leads_out_of_the_repository_is_refused(hub, start, sent, tmp_path, name):
    hub.files = {name: hub.files[sent]}
    code, printed = start("eurosat")
    assert code == 1
    assert f"{name!r} leads out of the repository {MIRROR}" in printed.err
    assert not hub.downloads


def test_an_archive_that_the_hub_states_rightly_and_that_is_another_is_refused(
    hub, start, sent, monkeypatch
):
    pinned = replace(SOURCES["eurosat"], sha256="a" * 64)
    monkeypatch.setitem(get.SOURCES, "eurosat", pinned)
    code, printed = start("eurosat")
    assert code == 1
    assert "eurosat.zip is another file than the field's: its SHA-256 is " in printed.err
    good = hashlib.sha256(hub.files[sent]).hexdigest()
    monkeypatch.setitem(get.SOURCES, "eurosat", replace(pinned, sha256=good))
    assert start("eurosat")[0] == 0


def test_a_sample_that_came_with_an_archive_is_left_aside(hub, start, tmp_path):
    folder, top, archive = miniature(tmp_path)
    (folder / "split_fewshot").mkdir()
    (folder / "split_fewshot/shot_16-seed_1.pkl").write_bytes(b"a pickle")
    hub.files[archive] = zipped(folder, top)
    code, printed = start("eurosat")
    assert code == 0
    assert "the archive's split_fewshot is left aside: samples are drawn" in printed.err
    assert sorted(os.listdir(tmp_path / "data/eurosat")) == ["2750", "split_zhou_EuroSAT.json"]


@pytest.mark.of_the_field
@pytest.mark.parametrize("has_coops_split", [True, False])
def test_another_size_or_split_than_the_fields_is_no_success(
    hub, start, sent, monkeypatch, has_coops_split
):
    code, printed = start("eurosat")
    assert code == 1
    assert check.OTHER_SIZE in printed.out
    split = "split_zhou_EuroSAT.json"
    with zipfile.ZipFile(io.BytesIO(hub.files[sent])) as archive:
        own = hashlib.sha256(archive.read(f"eurosat/{split}")).hexdigest()
    monkeypatch.setitem(check.EXPECTED, "EuroSAT", [[3, 18, 15, 6], "", ""])
    if has_coops_split:
        monkeypatch.setitem(check.SPLITS, split, own)
    code, printed = start("eurosat")
    assert code == (0 if has_coops_split else 1)
    assert (f"{split} is not CoOp's: numbers on it" in printed.out) != has_coops_split


def test_archives_are_taken_from_one_commit(hub, start, sent):
    start("eurosat")
    assert {*hub.revisions} == {REVISION}
    resolved = [path for path in hub.requests if "/resolve/" in path]
    assert resolved == [f"/{MIRROR}/resolve/{REVISION}/{sent}"]


# ---- hostile and damaged archives ----


def entry(name, kind=stat.S_IFREG):
    info = zipfile.ZipInfo(name)
    info.external_attr = (kind | 0o644) << 16
    return info


def hostile_tar(**attributes):
    info = tarfile.TarInfo("dtd/link")
    for name, value in attributes.items():
        setattr(info, name, value)
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.addfile(info)
    return content.getvalue()


def hostile_zip(info):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(info, b"/etc/passwd")
    return content.getvalue()


HOSTILE = {
    "above.zip": (hostile_zip(entry("dtd/../../out")), "leads out of it"),
    "absolute.zip": (hostile_zip(entry("/tmp/out")), "leads out of it"),
    "drive.zip": (hostile_zip(entry("C:/out")), "leads out of it"),
    "backslash.zip": (hostile_zip(entry("a\\..\\..\\out")), "leads out of it"),
    "link.zip": (hostile_zip(entry("dtd/link", stat.S_IFLNK)), "is a link or a device"),
    "above.tar": (hostile_tar(name="../out"), "leads out of it"),
    "link.tar": (hostile_tar(type=tarfile.SYMTYPE, linkname="/"), "is a link or a device"),
    "hard.tar": (hostile_tar(type=tarfile.LNKTYPE, linkname="a"), "is a link or a device"),
    "device.tar": (hostile_tar(type=tarfile.CHRTYPE), "is a link or a device"),
    "pipe.tar": (hostile_tar(type=tarfile.FIFOTYPE), "is a link or a device"),
    "cut.zip": (hostile_zip(entry("a"))[:40], "can't be unpacked"),
    "cut.tar.gz": (
        tarred({"a": bytes(numpy.random.default_rng(0).bytes(9999))}, "w:gz")[:5000],
        "can't be unpacked",
    ),
    "twice.tar": (hostile_tar(name="a")[:512] + hostile_tar(name="a"), "can't be unpacked"),
    "text.zip": (b"<html>", "can't be unpacked"),
    "name.zip": (hostile_zip(entry("a/" * 600 + "b")), "has a name of 1201 characters"),
    "name.tar.gz": (tarred({"a/" * 600 + "b": b""}, "w:gz"), "has a name of 1201 characters"),
    "header.tar.gz": (
        tarred({"a" * 3 * 10**6: b""}, "w:gz"),
        "can't be unpacked .a header has 3,000,[0-9]+ bytes",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_or_damaged_archive_writes_nothing_outside_and_is_refused(tmp_path, name):
    content, message = HOSTILE[name]
    (tmp_path / name).write_bytes(content)
    with refuses(message):
        archives.unpack(f"{tmp_path}/{name}", f"{tmp_path}/in/to")
    assert {path.name for path in tmp_path.iterdir()} == {name, "in"}
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["to"]


def test_an_archive_may_unpack_to_twice_its_size_and_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "UNPACKED", 0)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(10**6))
    (tmp_path / "bomb.zip").write_bytes(content.getvalue())
    with refuses("unpack to more than twice its size"):
        archives.unpack(f"{tmp_path}/bomb.zip", f"{tmp_path}/to")
    assert not os.listdir(tmp_path / "to")


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_an_archive_of_more_files_than_any_data_set_has_is_refused(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(archives, "MOST_ENTRIES", 4)
    for count in (3, 5):
        files = {tmp_path / str(count) / str(number): b"" for number in range(count)}
        (tmp_path / str(count)).mkdir()
        for file in files:
            file.write_bytes(b"")
        shutil.make_archive(f"{tmp_path}/{count}", kind, tmp_path / str(count))
    archives.unpack(f"{tmp_path}/3.{kind}", f"{tmp_path}/to")
    with refuses("it has more than 4 files and folders"):
        archives.unpack(f"{tmp_path}/5.{kind}", f"{tmp_path}/there")


def test_the_headers_of_a_tar_count_as_what_it_unpacks_to(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "UNPACKED", 0)
    files = {f"{number:0200}": b"" for number in range(100)}
    (tmp_path / "headers.tar.gz").write_bytes(tarred(files, "w:gz"))
    with refuses("can't be unpacked .it unpacks to more than"):
        archives.unpack(f"{tmp_path}/headers.tar.gz", f"{tmp_path}/to")


# ---- by git ----


@pytest.mark.parametrize(
    "name, data", [("pacs", "PACSPhoto"), ("grocery_store", "GroceryStore"), ("cifar10", "CIFAR10")]
)
def test_what_is_cloned_is_completed_too(start, tmp_path, monkeypatch, name, data):
    MINIATURES[data](tmp_path / "drawn")
    (repository,) = (tmp_path / "drawn").iterdir()
    git = ["git", "-C", repository, "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "data"]):
        subprocess.run([*git, *words], check=True)
    address = SOURCES[name].clone
    for number, (key, value) in enumerate(
        {f"url.file://{repository}.insteadOf": address, "protocol.file.allow": "always"}.items()
    ):
        monkeypatch.setenv(f"GIT_CONFIG_KEY_{number}", key)
        monkeypatch.setenv(f"GIT_CONFIG_VALUE_{number}", value)
    monkeypatch.setenv("GIT_CONFIG_COUNT", "2")
    for _ in range(2):
        code, printed = start(name)
        assert code == 0, printed.err
        assert build(data, tmp_path / "data").test
        image = next(path for path in (tmp_path / "data").rglob("*.jpg"))
        image.unlink()
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "elsewhere")
    monkeypatch.setenv("PATH", "")
    code, printed = start(name)
    assert code == 1
    assert "git is not installed" in printed.err


# ---- ImageNet ----

LONG = {f"n0{number}234567": name for number, name in enumerate(WNIDS.values(), 1)}
VAL = {f"ILSVRC2012_val_{number:08d}.JPEG": wnid for number, wnid in enumerate([*LONG] * 4, 1)}


def bytes_of_picture(tmp_path):
    picture(tmp_path / "one.JPEG")
    return (tmp_path / "one.JPEG").read_bytes()


def devkit():
    """Its numbers are in another order than the WordNet ids."""
    ids = {wnid: number for number, wnid in enumerate(reversed(LONG), 1)}
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O")]
    classes = numpy.array([(ids[wnid], wnid, LONG[wnid]) for wnid in LONG], dtype=kinds)
    meta = io.BytesIO()
    scipy.io.savemat(meta, {"synsets": classes})
    truth = "".join(f"{ids[wnid]}\n" for wnid in VAL.values())
    place = "ILSVRC2012_devkit_t12/data"
    return tarred(
        {
            f"{place}/meta.mat": meta.getvalue(),
            f"{place}/ILSVRC2012_validation_ground_truth.txt": truth.encode(),
        },
        "w:gz",
    )


@pytest.fixture
def downloads(tmp_path):
    """A folder with what image-net.org gives out, and CoOp's class names."""
    folder = tmp_path / "downloads"
    folder.mkdir()
    image = bytes_of_picture(tmp_path)
    inner = {f"{wnid}.tar": tarred({f"{wnid}_{n}.JPEG": image for n in range(4)}) for wnid in LONG}
    (folder / "ILSVRC2012_img_train.tar").write_bytes(tarred(inner))
    (folder / "ILSVRC2012_img_val.tar").write_bytes(tarred(dict.fromkeys(VAL, image)))
    (folder / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(devkit())
    lines = [f"{wnid} {name}\n" for wnid, name in LONG.items()]
    (folder / "classnames.txt").write_text("".join(lines))
    return folder


def val_of(root):
    """Validation image → its class folder."""
    return {path.name: path.parent.name for path in (root / "imagenet/images/val").rglob("*.JPEG")}


def test_imagenets_tars_become_coops_folders(start, downloads, tmp_path):
    before = contents_of(downloads)
    assert start("imagenet", "--from", downloads)[0] == 0
    root = tmp_path / "data"
    assert val_of(root) == VAL
    data = build("ImageNet", root)
    assert len(data.train_x) == 12
    assert data.classnames == [LONG[wnid] for wnid in sorted(LONG)]
    assert contents_of(downloads) == before


def test_a_sorting_that_was_ended_is_completed_and_cut_images_are_told(start, downloads, tmp_path):
    start("imagenet", "--from", downloads)
    images = tmp_path / "data/imagenet/images"
    shutil.rmtree(images / "train" / next(iter(LONG)))
    lost, cut = sorted((images / "val").rglob("*.JPEG"))[:2]
    lost.unlink()
    cut.write_bytes(b"cut")
    code, printed = start("imagenet", "--from", downloads)
    assert code == 0
    assert len(build("ImageNet", tmp_path / "data").train_x) == 12
    assert lost.exists()
    assert cut.read_bytes() == b"cut"
    assert f"1 image in {images}/val, there before, of another size" in printed.err


FORMS = {
    "val.txt": "{name} {wnid}\n",
    "index.txt": "{name} 065 {wnid}\n",
    "valprep.sh": "mv {name} {wnid}/\n",
    "LOC_val_solution.csv": "{stem},{wnid} 1 2 3 4 {wnid} 5 6 7 8 \n",
    "labels.json": '"{name}": "{wnid}", ',
}


@pytest.mark.parametrize("form", FORMS)
def test_the_message_of_a_flat_val_says_what_works_when_typed(
    start, downloads, tmp_path, monkeypatch, form
):
    """The second most asked question of the field; with a list of the classes in any usual form."""
    start("imagenet", "--from", downloads)
    val = tmp_path / "data/imagenet/images/val"
    for path in [*val.rglob("*.JPEG")]:
        path.rename(val / path.name)
    for folder in [path for path in val.iterdir() if path.is_dir()]:
        folder.rmdir()
    with refuses("lies in no class folder: python -m datasets.get imagenet") as refusal:
        build("ImageNet", tmp_path / "data")
    words = shlex.split(str(refusal.value).partition("datasets.get ")[2].partition(" sorts ")[0])
    assert call(get.main, *words) == 1, "the classes are not known yet"
    assert not [path for path in val.iterdir() if path.is_dir()]
    lines = (FORMS[form].format(name=k, stem=k[:-5], wnid=w) for k, w in VAL.items())
    (tmp_path / form).write_text("".join(lines))
    assert call(get.main, *words, "--labels", tmp_path / form) == 0
    assert val_of(tmp_path / "data") == VAL
    assert build("ImageNet", tmp_path / "data").test


def test_a_flat_val_elsewhere_and_sorted_folders_are_linked_and_stay(start, downloads, tmp_path):
    start("imagenet", "--from", downloads)
    kaggle = tmp_path / "kaggle/ILSVRC/Data/CLS-LOC"
    kaggle.mkdir(parents=True)
    (tmp_path / "data/imagenet/images/train").rename(kaggle / "train")
    (kaggle / "val").mkdir()
    for path in (tmp_path / "data/imagenet/images/val").rglob("*.JPEG"):
        path.rename(kaggle / "val" / path.name)
    shutil.rmtree(tmp_path / "data/imagenet/images")
    with tarfile.open(downloads / "ILSVRC2012_devkit_t12.tar.gz") as packed:
        packed.extractall(tmp_path / "kaggle", filter="data")
    before = contents_of(tmp_path / "kaggle")
    assert start("imagenet", "--from", tmp_path / "kaggle")[0] == 0
    assert val_of(tmp_path / "data") == VAL
    assert len(build("ImageNet", tmp_path / "data").train_x) == 12
    assert contents_of(tmp_path / "kaggle") == before


@pytest.mark.parametrize(
    "left_out, message",
    [
        ("*", "has nothing of ImageNet: neither ILSVRC2012_img_train.tar"),
        ("*devkit*", "put ILSVRC2012_devkit_t12.tar.gz of image-net.org into"),
        ("classnames.txt", "lacks classnames.txt: CoOp's DATASETS.md"),
    ],
)
def test_what_is_missing_is_said_with_where_to_get_it(start, downloads, left_out, message):
    for path in downloads.glob(left_out):
        path.unlink()
    code, printed = start("imagenet", "--from", downloads)
    assert code == 1
    assert message in printed.err


def test_numbers_alone_are_no_labels(start, downloads, tmp_path):
    (tmp_path / "val.txt").write_text("ILSVRC2012_val_00000001.JPEG 65\n")
    code, printed = start("imagenet", "--from", downloads, "--labels", tmp_path / "val.txt")
    assert code == 1
    assert "numbers alone are counted in several ways" in printed.err


def test_hostile_tars_within_the_tar_write_nothing(start, downloads, tmp_path):
    evil = {"n01234567.tar": hostile_tar(type=tarfile.SYMTYPE, linkname="/")}
    (downloads / "ILSVRC2012_img_train.tar").write_bytes(tarred(evil))
    code, printed = start("imagenet", "--from", downloads)
    assert code == 1
    assert "is a link or a device" in printed.err
    assert not (tmp_path / "data/imagenet").exists()


OFFICIAL = {
    "ImageNetV2": (
        "imagenetv2-matched-frequency.tar.gz",
        "imagenetv2-matched-frequency-format-val",
    ),
    "ImageNetSketch": ("ImageNet-Sketch.zip", "sketch"),
    "ImageNetA": ("imagenet-a.tar", "imagenet-a"),
    "ImageNetR": ("imagenet-r.tar", "imagenet-r"),
}


@pytest.mark.parametrize("name", OFFICIAL)
def test_the_authors_archives_of_the_variants_are_laid_out_likewise(start, tmp_path, name):
    archive, top = OFFICIAL[name]
    MINIATURES[name](tmp_path / "drawn")
    cls = data_set(name)
    folder = tmp_path / "drawn" / cls.dataset_dir
    images = contents_of(folder / cls.image_dir)
    files = {
        f"{top}/{path.relative_to(folder / cls.image_dir)}": data for path, data in images.items()
    }
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    if archive.endswith("zip"):
        for path, data in files.items():
            place = tmp_path / "zipped" / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
        (downloads / archive).write_bytes(zipped(tmp_path / "zipped"))
    else:
        (downloads / archive).write_bytes(tarred(files, "w:gz" if archive.endswith("gz") else "w"))
    code, printed = start(NAME_OF[name], "--from", downloads)
    assert code == 1
    assert "lacks classnames.txt" in printed.err
    shutil.copy(folder / "classnames.txt", downloads)
    assert start(NAME_OF[name], "--from", downloads)[0] == 0
    assert len(build(name, tmp_path / "data").test) == len(build(name, tmp_path / "drawn").test)


# ---- the messages ----


@pytest.mark.parametrize("name", [each for source in SOURCES.values() for each in source.sets])
def test_the_message_of_a_missing_folder_names_a_command_that_is_read(tmp_path, name):
    root = tmp_path / "my data"
    with refuses("data folder .* is missing: python -m datasets.get ") as refusal:
        DATASET_REGISTRY.get(name).find(str(root))
    command = str(refusal.value).partition("python -m datasets.get ")[2]
    words = shlex.split(re.split(" gets it| sorts ", command)[0])
    (tmp_path / "FOLDER").mkdir()
    assert call(get.main, *words, "--from", tmp_path / "FOLDER", "--plan") == 0
    assert words[1:3] == ["--root", str(root)]
    assert name in SOURCES[words[0]].sets


def test_what_has_to_be_downloaded_by_hand_is_said_once(start):
    code, printed = start("imagenet")
    assert code == 1
    assert "error: imagenet: python -m datasets.get imagenet --root" in printed.err


def test_a_misspelt_name_is_refused(capsys):
    with pytest.raises(SystemExit):
        get.main(["dtdd"])
    assert "there is no data set dtdd (did you mean dtd?)" in capsys.readouterr().err


def test_every_name_of_the_table_is_registered_and_every_set_of_the_field_has_a_source():
    sets = {each for source in SOURCES.values() for each in source.sets}
    listed = {name for name in check.EXPECTED if not name.startswith("OpenMoji")}
    assert sets == listed
    assert len(NAME_OF) == 14


# ---- whole runs ----


def is_complete_and_small(got, *sets):
    """A miniature is complete by its own lists; as it is not the field's set, the exit code is 1."""
    assert got.returncode == 1, got.stderr
    rows = [line for line in got.stdout.splitlines() if check.OTHER_SIZE in line]
    assert [row.split()[0] for row in rows] == list(sets)
    named = re.findall(r"error: (\w+) is not the set that papers report", got.stderr)
    assert named == list(sets)


@pytest.mark.slow
def test_from_a_hub_to_a_table_in_two_commands(hub, tmp_path):
    """As a researcher types them, in processes of their own."""
    folder, top, archive = miniature(tmp_path)
    hub.files[archive] = zipped(folder, top)
    make_textures(tmp_path / "textures")
    hub.files["dtd.zip"] = zipped(tmp_path / "textures/dtd", "dtd/")
    settings = {"HF_ENDPOINT": hub.url, "HF_HOME": f"{tmp_path}/cache", "no_proxy": "*"}
    root = ("--root", f"{tmp_path}/data")
    got = python("-m", "datasets.get", "dtd", "eurosat", *root, **settings)
    is_complete_and_small(got, "DescribableTextures", "EuroSAT")
    words = "--protocol base2new --trainer CoOp --dataset dtd eurosat --backbone tiny --seeds 1"
    short = ("--", "OPTIM.MAX_EPOCH", "1")
    made = python("run.py", *words.split(), *root, "--output", f"{tmp_path}/o", *short)
    assert made.returncode == 0, made.stderr
    for name in ("dtd", "eurosat"):
        assert re.search(rf"{name}.*CoOp|CoOp.*{name}", made.stdout, re.DOTALL)


@pytest.mark.slow
def test_a_flat_val_is_sorted_and_coops_script_runs_on_it(downloads, tmp_path):
    root = f"{tmp_path}/data"
    with tarfile.open(downloads / "ILSVRC2012_img_val.tar") as packed:
        packed.extractall(downloads, filter="data")
    (downloads / "ILSVRC2012_img_val.tar").unlink()
    sorted_ = python("-m", "datasets.get", "imagenet", "--from", downloads, "--root", root)
    is_complete_and_small(sorted_, "ImageNet")
    settings = {"DATA": root, "BACKBONE": "tiny", "SHOTS": "2", "OUTPUT": f"{tmp_path}/o"}
    words = ["bash", "scripts/cdc/base2new_train.sh", "imagenet", "1", "OPTIM.MAX_EPOCH", "1"]
    done = subprocess.run(
        words,
        cwd=REPOSITORY,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout
