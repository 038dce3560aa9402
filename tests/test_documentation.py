"""The documents: every link leads somewhere, and the site is built from them without a warning and
needs no network."""

import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

import pandas
import pytest
from markdown_it import MarkdownIt
from mdit_py_plugins.anchors import anchors_plugin

from results.published import read_published
from tests.runs import PATIENCE, REPOSITORY
from tests.trainers import test_formulas
from tests.trainers.test_formulas import FORMULAS
from tools.leaderboard import draw
from trainers import METHODS

DOCS = REPOSITORY / "docs"
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "dassl-lite/*.md")
    for path in REPOSITORY.glob(pattern)
)
PAGES = [page for page in DOCUMENTS if page.is_relative_to(DOCS)]
PAGES += [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md"]


def tokens_of(document):
    """All tokens of a Markdown file, those within its lines too; headings have the names that
    GitHub gives them."""
    for token in (
        MarkdownIt("gfm-like", {"linkify": False})
        .use(anchors_plugin, max_level=6)
        .parse(document.read_text("utf-8"))
    ):
        yield token
        yield from token.children or ()


def anchors(document):
    return {token.attrs["id"] for token in tokens_of(document) if token.type == "heading_open"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_relative_link_and_anchor_resolves(document):
    for token in tokens_of(document):
        found = [token.attrs[name] for name in ("href", "src") if name in token.attrs]
        if token.type.startswith("html"):
            found = re.findall(r'(?:src|href)="([^"]+)"', token.content)
        for target in found:
            link = urlsplit(target)
            path = (document.parent / unquote(link.path)) if link.path else document
            assert link.scheme or path.exists(), target
            if link.fragment and not link.scheme and path.suffix == ".md":
                assert unquote(link.fragment) in anchors(path), target


def build(folder):
    """What scripts/docs.sh does once there is an environment; warnings are errors."""
    (command,) = (
        line
        for line in (REPOSITORY / "scripts/docs.sh").read_text().splitlines()
        if line.startswith("python ")
    )
    return subprocess.run(
        ["bash", "-c", command, "docs.sh", str(folder)],
        cwd=REPOSITORY,
        text=True,
        capture_output=True,
        timeout=PATIENCE,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )


LOADED = re.compile(
    r"""<(?:script|img|iframe|source|link|object|use)\s[^>]*?\b(?:src|href|data)="([^"#]+)"""
)
LOADED_BY_STYLES = re.compile(r"""(?:url\(|@import )\s*["']?([^"'#)][^"')]*)""")


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_loads_only_what_lies_in_it(tmp_path):
    built, site = build(tmp_path), tmp_path / "docs"
    assert built.returncode == 0, built.stderr
    for document in DOCUMENTS:
        if document.is_relative_to(DOCS):
            assert (site / document.relative_to(DOCS).with_suffix(".html")).is_file()
    loaded = 0
    for page in [*site.rglob("*.html"), *site.rglob("*.css")]:
        text = page.read_text("utf-8")
        styles = [text] if page.suffix == ".css" else re.findall(r"(?s)<style.*?</style>", text)
        for name in [*LOADED.findall(text), *LOADED_BY_STYLES.findall("".join(styles))]:
            if not name.startswith("data:"):
                assert (page.parent / urlsplit(name).path).is_file(), (page.name, name)
                loaded += 1
    assert loaded > len(DOCUMENTS)
    # the reference has the docstrings
    assert "masses e_k / S" in (site / "api/evidence.html").read_text()


# ---- what is promised ----


README = (REPOSITORY / "README.md").read_text("utf-8")


def test_the_readme_takes_a_minute():
    assert len(README.splitlines()) <= 140


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
    assert f"{len(verified)} trainers agree with reference implementations" in README
    for name, figure, tolerance in listed:
        figures = published.get(name) or published.get(f"{name} vit_b16")
        assert figure == (f"{figures[2]:.2f}" if figures else "–"), name
        assert FORMULAS[name] and (tolerance == "1e-9" or name.startswith("CDC")), name
    assert "relative(scores.logits, logits) < 1e-9" in Path(test_formulas.__file__).read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_is_short_and_its_lines_are_narrow(page):
    """At most 1,500 words in lines of at most 120 columns, outside tables, code and headings."""
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text("utf-8"), flags=re.S | re.M)
    prose = re.findall(r"^(?! *[|#]).*", text, re.MULTILINE)
    if page.stem != "log":  # history may be long
        assert sum(len(line.split()) for line in prose) <= 1500
    assert [line for line in prose if len(line) > 120] == []


def test_the_leaderboards_data_are_the_benchmarks_table():
    text = (DOCS / "benchmark.md").read_text("utf-8")
    shown = text[text.index("\n## Base-to-new\n") : text.index("\n## Base and new together\n")]
    cells = [re.split(r"\s*\|\s*|\s*±\s*", line) for line in shown.splitlines() if "±" in line]
    data = pandas.read_csv(DOCS / "results.csv", dtype=str)
    rows = [[row[3], row[5], row[6], row[8], row[10], row[11]] for row in cells]
    assert sorted(rows) == sorted(data.iloc[:, :6].values.tolist())


@pytest.mark.parametrize("name", ["leaderboard", "factors", "templates"])
def test_a_picture_has_every_row_of_its_data(name):
    data = "results" if name == "leaderboard" else name
    table = pandas.read_csv(DOCS / f"{data}.csv")
    kept = (DOCS / f"{name}.svg").read_text("utf-8")
    for picture in (draw(table), kept):
        nodes = ElementTree.fromstring(picture).iter()
        assert {*table.iloc[:, 0]} <= {"".join(node.itertext()).strip() for node in nodes}
        assert "prefers-color-scheme:dark" in picture


NAMED = re.compile(r"`(?:([\w/.…]+)::|(?:\w+/)*)(test_\w+…?|…_\w+)`")


TESTS = defaultdict(set)
for path in (REPOSITORY / "tests").rglob("test_*.py"):
    TESTS[path.stem] |= {path.stem, *re.findall(r"(?m)^def (test_\w+)", path.read_text("utf-8"))}


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.stem)
def test_every_test_that_is_named_as_a_proof_exists(page):
    """As ``file::test``, … for the file named before, or on reliability.md alone; … in a name for
    what is left out."""
    last = ""
    for file, test in NAMED.findall(page.read_text("utf-8")):
        last = last if file == "…" else Path(file).stem
        known = TESTS[last] if file else set().union(*TESTS.values())
        is_found = any(re.fullmatch(test.replace("…", ".*"), name) for name in known)
        assert is_found or not file and page.stem != "reliability", test


def test_every_fault_that_is_told_has_a_test():
    page = (DOCS / "reliability.md").read_text("utf-8")
    for row in re.findall(r"^\| (?!fault|---).*", page, re.MULTILINE):
        assert NAMED.search(row.rsplit("|", 2)[1]), row
