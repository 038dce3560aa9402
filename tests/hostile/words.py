"""What somebody may type or pass on: labels, class names, settings, words of commands, names of files,
and requests to the page."""

import csv
import io
import shutil
from functools import partial
from pathlib import Path

import check_data
import leaderboard
import torch
from dassl.optim import build_optimizer
from PIL import Image

import demo_app
import predict
import run as protocol_run
import train
from analysis import uncertainty
from protocols.arguments import build_config
from protocols.command_line import parse_arguments
from results import ablation, check, factors, table, templates
from results.report import __main__ as report
from tests.hostile import Case, Said, typed
from tests.runs import base_arguments
from trainers import method_class
from trainers.common.config_files import leaves
from trainers.common.errors import UserError
from trainers.data.pictures import write_class_folders
from trainers.engine.checks import check_run
from trainers.engine.schedule import build_schedule

NAMES = [
    *("../kept", "/etc/passwd", "..", ".", "", " ", "\t", "a/b", "a\\b", "~", "$HOME", "*", "?", "[a]", "-", "--help"),
    *("a\nb", "a\rb", "a\0b", "\x1b[31m", "\u202egnp", "\u2028", "\ud800", "\udcff", "é", "e\u0301", "日本語", "👩‍🎨"),
    *("x" * 300, "word " * 300, "x" * 100_000, "<|endoftext|>", "<script>", "=1+1", "{}", "{0}", "%s", "_", "NaN", "None"),
]  # fmt: skip
NO_NAMES = [
    None,
    0,
    1.5,
    float("nan"),
    b"cat",
    True,
    [],
    ["cat"],
    {},
    Path("cat"),
    object(),
    Ellipsis,
]


# ---- labels, class names ----


def written(folder, label):
    """The files that images with a label and another one make, which are all in that folder."""
    shutil.rmtree(folder, ignore_errors=True)
    images = [Image.new("RGB", (8, 8))] * 2
    write_class_folders(images, ["another", label], str(folder))
    inside = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return inside


def is_two_classes(files):
    """Whether these are the two images, of two classes or of one, and the list of names."""
    return len(files) == 3 and "classnames.txt" in files and ".." not in str(files)


def label_cases(place):
    return {
        f"label {str(label)[:20]!r}": Case(
            partial(written, place / "images", label), is_two_classes
        )
        for label in NAMES + NO_NAMES
    }


def class_cases(classifier):
    """Class names, and what is none, in ``with_classes`` and in predict.py's --classes."""
    picture = Image.new("RGB", (32, 32))

    def ask(names):
        return classifier.with_classes(names).predict(picture).labels

    found = {
        f"classes with {str(name)[:20]!r}": Case(partial(ask, ["cat", name]))
        for name in NAMES + NO_NAMES
    }
    found |= {
        f"classes {str(names)[:20]!r}": Case(partial(ask, names)) for names in NAMES + NO_NAMES
    }
    found["endless classes"] = Case(partial(ask, (f"kind {number}" for number in range(3000))))
    return found


# ---- settings ----

VALUES = ("1e99", "-1e99", "1e-320", "1e308", "-1", "0", "1", "0.5", "nan", "inf", "99999999999", "2**70", "True", "None", "x", "''", "[]", "(0,0)", "{}")  # fmt: skip


def configured(words, steps=4):
    """The config of a command with these settings, and what its optimiser and schedule do."""
    cfg = build_config(parse_arguments(words))
    name = cfg.TRAINER.NAME
    method_class(name).check(cfg.TRAINER[name.upper()], f"TRAINER.{name.upper()}")
    check_run(cfg)
    model = torch.nn.Linear(2, 2)
    try:
        optimizer = build_optimizer(model, cfg.OPTIM)
    except ValueError as error:  # as of ``protocols.training.build``
        raise UserError(" ".join(str(error).split())) from error
    schedule = build_schedule(optimizer, cfg.OPTIM)
    for _ in range(steps):
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        schedule.step()
    return cfg.SEED


def setting_cases(trainer="CDC"):
    """Of each key that a command takes, values that somebody may give it."""
    words = base_arguments(trainer, "data", "tiny", "out")
    cfg = build_config(parse_arguments(words))
    others = [f"TRAINER.{name}." for name in cfg.TRAINER if name not in ("NAME", trainer.upper())]
    keys = [key for key, _ in leaves(cfg) if not key.startswith(tuple(others))]
    return {
        f"{key} {value}": Case(partial(configured, [*words, key, value]))
        for number, key in enumerate(keys)
        for value in VALUES[number % 3 :: 3]
    }


# ---- words of commands ----


PATHS = ["nowhere", ".", "", "../kept/notes.txt", "/dev/null", "x" * 300, "x" * 6000, "a\0b", "\udcff"]  # fmt: skip
NUMBERS = ["-1", "0", "1e9", "x", "", "99999999999999999999", "nan"]
OF_PATHS = {  # a command → words, of which PATH is one of the paths
    predict: [
        *("--run PATH PICTURE", "--run RUN PATH", "--run RUN --csv PATH PICTURE"),
        "--run RUN --backbone PATH PICTURE",
    ],
    demo_app: ["--run PATH", "--run RUN --root PATH --port -1"],
    report: ["PATH --output report.html", "RUN --output PATH", "RUN --root PATH --output new.html"],
    check: ["PATH"],
    **{tables: ["PATH", "RUN --output PATH"] for tables in (table, ablation, factors, templates, uncertainty)},
    leaderboard: ["PATH picture.svg", "table.csv PATH"],
    check_data: ["--root PATH"],
    train: [
        *("--trainer CoOp --images PATH", "--trainer PATH --output-dir out"),
        *(f"SMALL {flag} PATH" for flag in ("--config-file", "--dataset-config-file")),
        *(f"SMALL {flag} PATH" for flag in ("--output-dir", "--resume", "--root", "--backbone")),
    ],
    protocol_run: [
        "--protocol base2new --plan --trainer PATH",
        *(f"--protocol base2new --plan --trainer CoOp {flag} PATH" for flag in ("--dataset", "--config")),
    ],
}  # fmt: skip
OF_NUMBERS = {  # the same of NUMBER
    predict: [f"--run RUN {flag} NUMBER PICTURE" for flag in ("--topk", "--max-error", "--min-certainty")],
    demo_app: ["--run RUN --max-error NUMBER --port -1"],
    train: ["SMALL --seed NUMBER"],
    protocol_run: [
        f"--protocol fewshot --trainer CoOp --plan {flag} NUMBER"
        for flag in ("--shots", "--seeds", "--shard")
    ],
}  # fmt: skip
TABLES = [  # for the leaderboard
    *("", "a,b\n1,2\n", "row,seeds,H,deviation,recipe\nCDC,x,y,z,\n", "row,seeds,H,deviation,recipe\n"),
    *("\0", '"', "deviation\n1\n", "row,seeds,H,deviation,seconds,recipe\nCDC,0,nan,inf,-1,\n"),
]  # fmt: skip


def command_cases(run, place, picture):
    """Paths and numbers that make no sense, in each command."""
    (place / "table.csv").write_text("row,seeds,H,deviation,seconds,recipe\nCDC,3,50,1,10,\n")
    (place / "notes.txt").write_text("mine")
    (place / "folder").mkdir()
    known = {
        "RUN": [run],
        "PICTURE": [picture],
        "SMALL": base_arguments("ZeroshotCLIP", "nowhere", "tiny", "out"),
    }
    found = {}

    def add(command, line, **given):
        words = [
            part for word in line.split() for part in (known.get(word) or [given.get(word, word)])
        ]
        shown = " ".join(map(ascii, given.values()))
        found[f"{command.__name__} {line} {shown[:20]} {len(shown)}"] = Case(
            typed(command.main, *words)
        )

    for kind, lines, values in (("PATH", OF_PATHS, PATHS), ("NUMBER", OF_NUMBERS, NUMBERS)):
        for command, every in lines.items():
            for line in every:
                for value in values:
                    add(command, line, **{kind: value})
    for number, content in enumerate(TABLES):
        (place / f"{number}.csv").write_text(content)
        add(leaderboard, f"{number}.csv picture.svg")
    for line in ("table.csv notes.txt", "table.csv folder", ""):
        add(leaderboard, line)
    return found


# ---- names of files ----


def listed(run, path, how):
    """Rows of what is said of a picture under a name, as a table or as lines."""
    if how == "csv":
        said = typed(predict.main, "--run", run, "--csv", "labels.csv", path)()
        if said.code:
            return said
        with open("labels.csv", newline="", encoding="utf-8") as file:
            content = file.read()
        rows = list(csv.reader(io.StringIO(content, newline="")))
        return Said(0, str(len(content.splitlines())), str(len(rows)))
    said = typed(predict.main, "--run", run, path)()
    return said if said.code else Said(0, str(1 + len(said.out.splitlines())), "2")


def name_cases(run, place, picture):
    two = lambda said: (said.out, said.err) == ("2", "2")  # noqa: E731
    found = {}
    for name in NAMES:
        path = place / f"{len(found)}{name.replace('/', '_')}.png"
        try:
            shutil.copy(picture, path)
        except (OSError, ValueError):  # no file can be called so
            continue
        for how in ("csv", "text"):
            found[f"file {name[:20]!r} as {how}"] = Case(
                partial(listed, run, str(path), how), two, may_refuse=False
            )
    return found


# ---- requests to the page ----


def asked(client, method, path, options):
    answer = client.open(path, method=method, **options)
    return answer.status_code


def page_cases(client):
    """client: flask's, of the page."""
    sound = {"picture": "example-1"}
    holds = lambda status: status in (200, 303, 400, 403, 404, 405, 413)  # noqa: E731
    found = {}

    def add(name, method="POST", path="/", **options):
        options.setdefault("headers", {"Host": "localhost"})
        found[name] = Case(partial(asked, client, method, path, options), holds)

    for name in NAMES:
        add(
            f"class {name[:20]!r}",
            data={**sound, "classes": f"cat\n{name.encode(errors='ignore').decode()}"},
        )
        add(f"picture {name[:20]!r}", data={"picture": name.encode(errors="ignore").decode()})
        add(
            f"path {name[:20]!r}",
            "GET",
            "/pictures/" + name.encode(errors="ignore").decode()[:3000],
        )
        add(
            f"upload {name[:20]!r}",
            data={
                "upload": (io.BytesIO(b"x"), name.encode(errors="ignore").decode()[:3000] or "x")
            },
        )
        header = "".join(letter for letter in name if " " <= letter < "\x7f")[:3000]
        for key in ("Origin", "Referer", "Sec-Fetch-Site", "Host"):
            add(f"{key} {header[:20]!r}", data=sound, headers={"Host": "localhost", key: header})
    for digits in (1, 9, 10, 5000):
        number = "9" * digits
        add(
            f"label of row {digits}", path="/table", data={f"label-{number}": "cat", "page": number}
        )
        add(f"saved row {digits}", path="/labels.csv", data={f"label-{number}": "cat"})
        add(f"picture of row {digits}", "GET", f"/pictures/row-{number}")
        add(f"page {digits}", "GET", f"/table?page={number}")
    for method in ("PUT", "DELETE", "HEAD", "OPTIONS", "TRACE", "PATCH"):
        add(f"method {method}", method)
    add("too much", data=bytes(65 * 2**20))
    add("no form", data=b"\xff\xfe", content_type="multipart/form-data; boundary=x")
    add(
        "many names",
        data={**sound, "classes": "\n".join(f"kind {number}" for number in range(1001))},
    )
    return found
