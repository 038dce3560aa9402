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
from leaderboard import PART, draw
from markdown_it import MarkdownIt
from mdit_py_plugins.anchors import anchors_plugin

from protocols.plan import ablation_rows
from results.published import read_published
from tests.chromium import look
from tests.runs import PATIENCE, REPOSITORY
from tests.trainers import test_formulas
from tests.trainers.test_formulas import FORMULAS, OF_FEATURES
from tools.docstrings import markdown
from tools.reference import pages
from trainers import METHODS, method_node

DOCS = REPOSITORY / "docs"
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "dassl-lite/*.md")
    for path in REPOSITORY.glob(pattern)
)
PAGES = [
    page
    for page in DOCUMENTS
    if page.is_relative_to(DOCS) and page.parent != DOCS / "trainers"  # made of the code
]
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


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    built = build(folder)
    assert built.returncode == 0, built.stderr
    return folder / "docs"


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_loads_only_what_lies_in_it(site):
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


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_no_page_of_the_site_is_wider_than_a_phone_or_a_window(width, site, browser):
    wide = []
    for page in sorted(site.rglob("*.html")):
        look(browser, page.as_uri(), width)
        if browser.execute_script("return document.documentElement.scrollWidth") > width:
            wide.append(page.name)
    assert wide == []


def test_what_is_made_of_the_code_is_of_todays_code():
    """Else: python tools/reference.py"""
    made = pages()
    assert [*made] and {path for path in made if path.parent.name == "trainers"} == {
        *(DOCS / "trainers").glob("*.md")
    }
    for path, text in made.items():
        assert path.read_text("utf-8") == text, f"{path.name}: python tools/reference.py"


def test_a_docstring_is_plain_markdown():
    """Sections are lists, examples blocks, and signs are what they are."""
    text = """What ``f(x)`` is, of [0, 1] and a_b * c.

    Args:
        first, second: two numbers,
            both whole; <folder>: another.

    >>> f(1)
    2

    Raises:
        UserError: never.
    """
    assert markdown(text).splitlines() == [
        r"What `f(x)` is, of \[0, 1] and a\_b \* c.",
        "",
        "**Args**",
        "",
        "- `first`, `second`: two numbers,",
        r"  both whole; \<folder>: another.",
        "",
        "```pycon",
        ">>> f(1)",
        "2",
        "```",
        "",
        "**Raises**",
        "",
        "- `UserError`: never.",
    ]


@pytest.mark.parametrize("name", METHODS)
def test_a_trainers_page_has_its_settings_recipes_and_numbers(name):
    page = (DOCS / f"trainers/{name}.md").read_text("utf-8")
    assert f"({name}.md)" in (DOCS / "trainers/index.md").read_text("utf-8")
    for key, default in method_node(name).items():
        (reason,) = re.findall(
            rf"(?m)^\| `{key}` \| `{re.escape(repr(default))}` \| (.*) \|$", page
        )
        assert reason, f"{key} has no reason beside it"
    for recipe in (REPOSITORY / "configs/trainers" / name).glob("*.yaml"):
        assert f"[{recipe.stem}]" in page
    if published := read_published()["base2new_average"].get(name):
        assert f"H {published[2]:.2f}" in page
    (section,) = re.findall(r"\(\.\./faithfulness/([\w.]+)#([\w-]+)\)", page)
    assert section[1] in anchors(DOCS / "faithfulness" / section[0])


# ---- what is promised ----


README = (REPOSITORY / "README.md").read_text("utf-8")


def test_the_questions_that_people_ask_have_answers_of_at_most_six_lines():
    """Each with the issue in which it was asked; README leads there."""
    text = re.sub(r"(?ms)^```.*?^```\n", "", (DOCS / "faq.md").read_text("utf-8"))
    answers = re.findall(r"(?ms)^\*\*.*?(?=\n\n|\Z)", text)
    asked = [
        answer for answer in answers if re.search(r"github\.com/[\w/-]+/issues/\d+\)\)", answer)
    ]
    assert "(docs/faq.md)" in README and len(asked) == 25
    assert [answer for answer in answers if answer.count("\n") > 5] == []


def test_the_readmes_table_has_every_trainer_its_published_figure_and_its_tests_tolerance():
    published = read_published()["base2new_average"]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in README.splitlines()
        if re.match(r"\| `\w+`", line)
    ]
    listed = [(name, *row[1:]) for row in rows for name in re.findall(r"`(\w+)`", row[0])]
    names = [name for name, *_ in listed]
    assert {*published} & {*METHODS} <= {*names} <= {*METHODS} and len(names) == len({*names})
    verified = [name for name, _, tolerance, _ in listed if tolerance.startswith("1e")]
    assert f"CDC (NeurIPS 2024) and {len(names) - 1} other trainers" in README
    assert f"{len(verified)} trainers agree with reference implementations" in README
    for name, figure, tolerance, compared in listed:
        figures = published.get(name) or published.get(f"{name} vit_b16")
        assert figure == (f"{figures[2]:.2f}" if figures else "–"), name
        assert FORMULAS[name] and (tolerance == "1e-9" or name.startswith("CDC")), name
        assert ("fit" in compared) == (name in OF_FEATURES), name
    assert "relative(scores.logits, logits) < 1e-9" in Path(test_formulas.__file__).read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_is_short_and_its_lines_are_narrow(page):
    """At most 1,500 words in lines of at most 120 columns, outside tables, code and headings."""
    written = re.sub(r"(?s)<!-- made of .*?<!-- to here -->", "", page.read_text("utf-8"))
    text = re.sub(r"^ *```.*?^ *```", "", written, flags=re.S | re.M)
    prose = re.findall(r"^(?! *[|#]).*", text, re.MULTILINE)
    if page.stem != "log":  # history may be long
        assert sum(len(line.split()) for line in prose) <= 1500
    assert [line for line in prose if len(line) > 120] == []


DATA = DOCS / "data"  # long tables, and what pictures are drawn from


def test_every_table_is_linked_from_a_page():
    linked = {
        (page.parent / name).resolve()
        for page in PAGES
        for name in re.findall(r"\]\(([\w./]*\.csv)\)", page.read_text("utf-8"))
    }
    named = "".join(page.read_text("utf-8") for page in PAGES)  # in the commands of pictures
    unused = [path.name for path in DATA.iterdir() if f"docs/data/{path.name}" not in named]
    assert [name for name in unused if DATA / name not in linked] == []


OF_SEEDS = [
    path
    for path in sorted(DATA.glob("*.csv"))
    if "seeds" in path.read_text("utf-8").partition("\n")[0].split(",")
]


@pytest.mark.parametrize("table", OF_SEEDS, ids=lambda table: table.stem)
def test_a_mean_is_of_at_least_three_seeds(table):
    """But for the untrained CLIP's, whose answers are always the same."""
    for row in pandas.read_csv(table).to_dict("records"):
        if not any("Zeroshot" in str(value) for value in row.values()):
            assert row["seeds"] >= 3, row


def test_the_leaderboards_data_and_the_benchmarks_table_are_those_of_base_to_new():
    data = pandas.read_csv(DATA / "base_to_new.csv", dtype=str)
    columns = ["trainer", "seeds", "base_mean", "new_mean", "H_mean", "H_std"]
    measured = sorted(data[columns].values.tolist())
    drawn = pandas.read_csv(DATA / "leaderboard.csv", dtype=str)
    assert sorted(drawn.iloc[:, :6].values.tolist()) == measured
    page = (DOCS / "benchmark.md").read_text("utf-8")
    lines = re.findall(r"(?m)^\| (\w+(?: †)? \| \d .*±.*) \|$", page)
    rows = [re.split(r" \| | ± ", line) for line in lines]
    assert sorted([name.removesuffix(" †"), *others] for name, *others in rows) == measured
    marked = {row[0].removesuffix(" †") for row in rows if row[0].endswith(" †")}
    assert marked == {*drawn["trainer"][drawn[PART].notna()]}


@pytest.mark.parametrize("name", ["leaderboard", "factors", "templates"])
def test_a_picture_has_every_row_of_its_data(name):
    table = pandas.read_csv(DATA / f"{name}.csv")
    kept = (DOCS / f"{name}.svg").read_text("utf-8")
    for picture in (draw(table), kept):
        nodes = ElementTree.fromstring(picture).iter()
        assert {*table.iloc[:, 0]} <= {"".join(node.itertext()).strip() for node in nodes}
        assert "prefers-color-scheme:dark" in picture


NAMED = re.compile(r"`(?:([\w/.…]+)::|(?:\w+/)*)(test_\w+…?|…_\w+)`")


TESTS = defaultdict(set)
for path in (REPOSITORY / "tests").rglob("test_*.py"):
    TESTS[path.stem] |= {path.stem, *re.findall(r"(?m)^def (test_\w+)", path.read_text("utf-8"))}


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.is_relative_to(DOCS)], ids=lambda page: page.stem
)
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


def test_it_is_said_which_omega_answers_have():
    """ω = 1 in answers alone is not the paper's rule: it takes it in training, too."""
    page = (DOCS / "uncertainty.md").read_text("utf-8")
    assert "| ω = 1 in training and answers | ω = 1 / M in training, then fitted |" in page
    assert not re.search(r"\|[^|\n]*paper's rule[^|\n]*\|", page), "no column is called so"
    (row,) = ablation_rows("CDC", ["independent"])
    assert "ω = 1 in training and answers" in row.description
    assert ">ω<" in (DOCS / "method.svg").read_text("utf-8"), "the picture counts votes ω times"
