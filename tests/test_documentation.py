"""The documents: every link leads somewhere, and the site is built from them without a warning and needs no network."""

import ast
import csv
import inspect
import os
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

import pandas
import pytest
from markdown_it import MarkdownIt
from mdit_py_plugins.anchors import anchors_plugin

import demo_app
import predict
import run
from protocols import command_line
from results import table
from results.published import read_published
from tests.conftest import REPOSITORY
from tools.leaderboard import draw
from trainers import METHODS, PromptedClassifier

NOT_OURS = {"build", "data", "output"}
DOCUMENTS = sorted(
    path
    for path in REPOSITORY.rglob("*.md")
    if not any(
        part in NOT_OURS or part.startswith(".") for part in path.relative_to(REPOSITORY).parts
    )
)
LOADED = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "link": "href",
    "object": "data",
    "use": "href",
}


def tokens_of(document):
    """All tokens of a Markdown file, those within its lines too; headings have the names that GitHub gives them."""
    for token in (
        MarkdownIt("gfm-like", {"linkify": False})
        .use(anchors_plugin, max_level=6)
        .parse(document.read_text(encoding="utf-8"))
    ):
        yield token
        yield from token.children or ()


def targets(document):
    """Where its links and pictures lead, as they are written."""
    for token in tokens_of(document):
        if token.type in ("link_open", "image"):
            yield token.attrs.get("href") or token.attrs["src"]
        elif token.type.startswith("html"):
            yield from re.findall(r'(?:src|href)="([^"]+)"', token.content)


def anchors(document):
    return {token.attrs["id"] for token in tokens_of(document) if token.type == "heading_open"}


def dead_links(document):
    """Relative links of a Markdown file to no file, or to no heading of a file."""
    dead = []
    for target in targets(document):
        link = urlsplit(target)
        if not link.scheme:
            path = (document.parent / unquote(link.path)) if link.path else document
            if (
                not path.exists()
                or link.fragment
                and path.suffix == ".md"
                and unquote(link.fragment) not in anchors(path)
            ):
                dead.append(target)
    return dead


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_relative_link_and_anchor_resolves(document):
    assert dead_links(document) == []


def test_a_link_to_no_file_or_heading_is_found(tmp_path):
    (tmp_path / "other.md").write_text("# One two\n\n## `three`, four\n")
    (tmp_path / "page.md").write_text(
        "# Here\n[a](other.md#one-two) [b](#here) [c](other.md#three-four) [d](https://example.org/x)\n\n"
        '[e](other.md#one) [f](#there) ![g](g.png) <img src="h.png">\n\n`[i](i.md)`\n'
    )
    assert dead_links(tmp_path / "page.md") == ["other.md#one", "#there", "g.png", "h.png"]


def build(folder, where=REPOSITORY):
    """What scripts/docs.sh does once there is an environment, for the documents below ``where``."""
    (command,) = (
        line
        for line in (REPOSITORY / "scripts" / "docs.sh").read_text().splitlines()
        if line.startswith("python ")
    )
    return subprocess.run(
        ["bash", "-c", command, "docs.sh", str(folder)],
        cwd=where,
        text=True,
        capture_output=True,
        timeout=300,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )


class Resources(HTMLParser):
    """Collects in ``found`` what a browser loads to show a page."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        is_loaded = tag != "link" or {"stylesheet", "icon", "preload", "modulepreload"} & set(
            attributes["rel"].split()
        )
        if tag in LOADED and is_loaded and attributes.get(LOADED[tag]):
            self.found.append(attributes[LOADED[tag]])


def resources(page):
    """What a page or style sheet loads, as it is written there."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".css":
        return re.findall(r"""(?:url\(|@import )\s*["']?([^"')]+)""", text)
    parser = Resources()
    parser.feed(text)
    return parser.found + [
        found
        for style in re.findall(r"<style.*?</style>", text, re.DOTALL)
        for found in re.findall(r"url\(([^)]+)\)", style)
    ]


def test_the_site_is_built_without_a_warning_and_loads_only_what_lies_in_it(tmp_path):
    built = build(tmp_path)
    assert built.returncode == 0, built.stderr
    site = tmp_path / "docs"
    pages = [*site.rglob("*.html"), *site.rglob("*.css")]
    loaded = {
        (page, name)
        for page in pages
        for name in resources(page)
        if not name.startswith(("data:", "#"))
    }
    assert {page.relative_to(site).with_suffix(".md").as_posix() for page in pages} >= {
        document.relative_to(REPOSITORY / "docs").as_posix()
        for document in DOCUMENTS
        if document.is_relative_to(REPOSITORY / "docs")
    }
    assert (
        len(loaded) > len(DOCUMENTS)
        and [
            (page.name, name)
            for page, name in loaded
            if not (page.parent / urlsplit(name).path).is_file()
        ]
        == []
    )
    assert "masses e_k / S" in (site / "api" / "evidence.html").read_text(), (
        "the reference has the docstrings"
    )


def test_what_the_site_lacks_is_an_error(tmp_path):
    lacks = {
        "[nowhere](nowhere.md)": "nowhere.md",
        "[nowhere](#no-heading)": "no-heading",
        "![picture](picture.png)": "picture.png",
        "```{eval-rst}\n.. autofunction:: trainers.common.errors.no_such_function\n```": "no_such_function",
    }
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "conf.py").write_text((REPOSITORY / "docs" / "conf.py").read_text())
    (tmp_path / "docs" / "index.md").write_text("# Page\n\n" + "\n\n".join(lacks) + "\n")
    built = build(tmp_path / "built", where=tmp_path)
    assert (
        built.returncode != 0
        and built.stderr.count("WARNING") == len(lacks)
        and all(name in built.stderr for name in lacks.values())
    )


# ---- what is promised ----


README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
PARSERS = {
    "train.py": command_line.parse_arguments,
    "run.py": run.parse_arguments,
    "predict.py": predict.parse_arguments,
    "demo_app.py": demo_app.parse_arguments,
    "-m results.table": table.main,
}


def code_of(language):
    """The README's blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_the_readme_takes_a_minute():
    assert len(README.splitlines()) <= 130
    assert [line for line in README.splitlines() if len(line) > 120] == []


def test_every_command_of_the_readme_parses(monkeypatch):
    monkeypatch.setattr(table, "run_table_command", lambda command, arguments: arguments)
    for block in code_of("bash"):
        subprocess.run(["bash", "-n"], input=block, text=True, check=True)
    commands = [
        line.removeprefix("python ")
        for block in code_of("bash")
        for line in block.splitlines()
        if line.startswith("python ")
    ]
    assert {
        program for program in PARSERS if any(line.startswith(program) for line in commands)
    } == {*PARSERS}
    for line in commands:
        (program,) = (program for program in PARSERS if line.startswith(program))
        parsed = PARSERS[program](shlex.split(line.removeprefix(program), comments=True))
        trainers = getattr(parsed, "trainer", [])
        assert {trainers} if isinstance(trainers, str) else {*trainers} <= {*METHODS}
        for name in getattr(parsed, "dataset", []):
            assert (REPOSITORY / "configs" / "datasets" / f"{name}.yaml").is_file(), name


def test_the_calls_of_the_readmes_program_fit_their_functions():
    (program,) = code_of("python")
    calls = [node for node in ast.walk(ast.parse(program)) if isinstance(node, ast.Call)]
    assert [call.func.attr for call in calls].count("fit") == 1
    for call in calls:
        function = getattr(PromptedClassifier, call.func.attr)
        keywords = {keyword.arg: None for keyword in call.keywords}
        bound = [None, *call.args] if inspect.isfunction(function) else call.args
        inspect.signature(function).bind(*bound, **keywords)


def test_the_readmes_table_has_every_trainer_its_published_figure_and_its_tests_tolerance():
    published = read_published()["base2new_average"]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in README.splitlines()
        if re.match(r"\| `\w+`", line)
    ]
    listed = [(name, *row[1:3]) for row in rows for name in re.findall(r"`(\w+)`", row[0])]
    names = [name for name, *_ in listed]
    assert {*published} & {*METHODS} <= {*names} <= {*METHODS} and len(names) == len({*names})
    verified = [name for name, _, tolerance in listed if tolerance.startswith("1e")]
    assert f"CDC (NeurIPS 2024) and {len(names) - 1} other trainers" in README
    assert f"{len(verified)} trainers agree with references" in README
    for name, figure, tolerance in listed:
        figures = published.get(name) or published.get(f"{name} vit_b16")
        assert figure == (f"{figures[2]:.2f}" if figures else "–"), name
        test = REPOSITORY / "tests" / "trainers" / f"test_{METHODS[name]}.py"
        if tolerance.startswith("1e"):
            assert re.search(rf"(rtol=|rel=|< ){tolerance}\b", test.read_text()), name
        else:
            assert METHODS[name].startswith("cdc"), f"{name} was compared with nothing"


@pytest.mark.parametrize(
    "page",
    [
        page
        for page in DOCUMENTS
        if page.is_relative_to(REPOSITORY / "docs") or page.name == "CONTRIBUTING.md"
    ],
    ids=lambda page: page.stem,
)
def test_a_page_is_short_and_its_lines_are_narrow(page):
    """At most 1,500 words in lines of at most 120 columns, outside tables, code and headings."""
    prose, in_code = [], False
    for line in page.read_text(encoding="utf-8").splitlines():
        in_code ^= line.lstrip().startswith("```")
        if not in_code and not line.lstrip().startswith(("|", "#", "```")):
            prose.append(line)
    assert sum(len(line.split()) for line in prose) <= 1500
    assert [line for line in prose if len(line) > 120] == []


def test_the_leaderboards_data_are_the_benchmarks_table():
    text = (REPOSITORY / "docs" / "benchmark.md").read_text(encoding="utf-8")
    table = text[text.index("\n## Base-to-new\n") : text.index("\n## Base and new together\n")]
    cells = [re.split(r"\s*\|\s*|\s*±\s*", line) for line in table.splitlines() if "±" in line]
    with open(REPOSITORY / "docs" / "results.csv", encoding="utf-8") as file:
        rows = [list(row.values())[:6] for row in csv.DictReader(file)]
    assert sorted(rows) == sorted(
        [trainer, seeds, base, new, h, deviation]
        for _, _, _, trainer, _, seeds, base, _, new, _, h, deviation, _ in cells
    )


@pytest.mark.parametrize("name", ["leaderboard", "factors", "templates"])
def test_a_picture_has_every_row_of_its_data(name):
    data = REPOSITORY / "docs" / f"{'results' if name == 'leaderboard' else name}.csv"
    table = pandas.read_csv(data)
    drawn = draw(table)
    for picture in (drawn, (REPOSITORY / "docs" / f"{name}.svg").read_text(encoding="utf-8")):
        texts = {
            "".join(node.itertext()).strip() for node in ElementTree.fromstring(picture).iter()
        }
        assert {*table.iloc[:, 0]} <= texts and "prefers-color-scheme: dark" in picture


def test_every_test_that_is_named_as_a_proof_exists():
    """Names in backticks, ``…`` standing for what is left out."""
    tests = {
        name
        for path in (REPOSITORY / "tests").rglob("test_*.py")
        for name in (
            path.stem,
            *re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE),
        )
    }
    named = re.findall(
        r"`(?:\w+/)*(test_\w+…?|…_\w+)`",
        (REPOSITORY / "docs" / "reliability.md").read_text(encoding="utf-8"),
    )
    assert len(named) > 30
    assert [
        name
        for name in named
        if not any(re.fullmatch(name.replace("…", ".*"), test) for test in tests)
    ] == []


def test_every_fault_that_is_told_has_a_test():
    for line in (REPOSITORY / "docs" / "reliability.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("| ") and not line.startswith(("| fault", "| ---")):
            assert re.search(r"`(?:\w+/)*test_\w+…?`|`…_\w+`", line.rsplit("|", 2)[1]), line
