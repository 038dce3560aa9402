"""The documents: every link leads somewhere, what they promise is true, and the site is built from
them without a warning."""

import importlib
import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pandas
import pytest
from markdown_it import MarkdownIt
from mdit_py_plugins.anchors import anchors_plugin

from docs import trainer_pages
from docs.trainer_pages import REPOSITORY_PATH, linked, module_of, opening, settings
from results.published import read_published
from tests.runs import PATIENCE, REPOSITORY
from trainers import METHODS, method_node

DOCS = REPOSITORY / "docs"
DOCUMENTS = sorted(
    path
    for pattern in (
        "*.md",
        "docs/**/*.md",
        "dassl-lite/*.md",
        "experiments/**/*.md",
        "trainers/**/*.md",
    )
    for path in REPOSITORY.glob(pattern)
    if path.parent != DOCS / "trainers"  # which trainer_pages.py writes, and git ignores
)
PAGES = [page for page in DOCUMENTS if page.is_relative_to(DOCS)]


def tokens_of(document):
    """All tokens of a Markdown file, those within its lines too; headings have the names that
    GitHub gives them."""
    reader = MarkdownIt("gfm-like", {"linkify": False}).use(anchors_plugin, max_level=6)
    for token in reader.parse(document.read_text("utf-8")):
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


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    """As scripts/docs.sh does once there is an environment; warnings are errors."""
    script = (REPOSITORY / "scripts/docs.sh").read_text()
    (command,) = re.findall("(?m)^python .*", script)
    built = subprocess.run(
        ["bash", "-c", command, "docs.sh", str(tmp_path)],
        cwd=REPOSITORY,
        text=True,
        capture_output=True,
        timeout=PATIENCE,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )
    assert built.returncode == 0, built.stderr
    site = tmp_path / "docs"
    for page in PAGES:
        assert (site / page.relative_to(DOCS).with_suffix(".html")).is_file()
    # the reference has the docstrings, and the trainers' pages the settings
    assert "masses e_k / S" in (site / "api/evidence.html").read_text()
    assert "DECOUPLING_WEIGHT" in (site / "trainers/cdc.html").read_text()


FILLED = re.compile(r"\.\. auto(?:module|class):: ([\w.]+)\n(?:   :members:(.*)\n)?")
REFERENCE = {
    module: members.replace(",", " ").split()
    for page in (DOCS / "api").glob("*.md")
    for module, members in FILLED.findall(page.read_text("utf-8"))
}


@pytest.mark.parametrize("place", REFERENCE)
def test_what_the_reference_is_filled_from_exists_and_has_docstrings(place):
    try:
        owner = importlib.import_module(place)
    except ModuleNotFoundError:
        module, _, name = place.rpartition(".")
        owner = getattr(importlib.import_module(module), name)
    for documented in (owner, *(getattr(owner, name) for name in REFERENCE[place])):
        assert documented.__doc__, documented


@pytest.mark.parametrize("name", METHODS)
def test_every_setting_of_a_trainer_has_its_reason(name):
    said = {key: says for key, _, _, says in settings(name)}
    assert {*said} == {*method_node(name)}
    assert [key for key, says in said.items() if not says] == []


@pytest.mark.parametrize("name", METHODS)
def test_a_trainers_page_opens_with_what_it_is_and_how_good(name):
    text = trainer_pages.page(module_of(name), [name])
    head, _, rest = text.partition("\n|")
    says, _ = opening(module_of(name))
    assert head == f"# {name}\n\n{says}\n"
    assert 1 <= len(re.findall(r"\.(?= |$)", says)) <= 2 and says[0].isupper()
    published = read_published()["base2new_average"]
    figures = published.get(name) or published.get(f"{name} vit_b16") or []
    measured = pandas.read_csv(DOCS / "data/base_to_new.csv", dtype=str).set_index("trainer")
    means = measured.reindex([name])[["base_mean", "new_mean", "H_mean"]].dropna()
    table = rest.partition("```bash")[0]
    for value in [f"{value:.2f}" for value in figures] + [*means.to_numpy().ravel()]:
        assert f"| {value} |" in table, value
    assert f"python train.py --trainer {name} --images" in rest
    assert REPOSITORY_PATH.sub(linked, text) == text, "each path is a link"
    assert "](../faithfulness" in rest


# ---- what is promised ----


def test_the_readmes_table_has_every_trainer_and_its_published_figure():
    readme = (REPOSITORY / "README.md").read_text("utf-8")
    published = read_published()["base2new_average"]
    figure_of = {}
    for line in re.findall(r"(?m)^\| `\w+`.*", readme):
        names, figure, *_ = (cell.strip() for cell in line.strip("|").split("|"))
        figure_of |= dict.fromkeys(re.findall(r"`(\w+)`", names), figure)
    assert {*published} & {*METHODS} <= {*figure_of} <= {*METHODS}
    assert f"CDC (NeurIPS 2024) and {len(figure_of) - 1} other trainers" in readme
    for name, figure in figure_of.items():
        figures = published.get(name) or published.get(f"{name} vit_b16")
        assert figure == (f"{figures[2]:.2f}" if figures else "–"), name


OF_SEEDS = [
    path
    for path in sorted((DOCS / "data").glob("*.csv"))
    if "seeds" in path.read_text("utf-8").partition("\n")[0].split(",")
]


@pytest.mark.parametrize("table", OF_SEEDS, ids=lambda table: table.stem)
def test_a_mean_is_of_at_least_three_seeds(table):
    """But for the untrained CLIP's, whose answers are always the same."""
    for row in pandas.read_csv(table).to_dict("records"):
        if not any("Zeroshot" in str(value) for value in row.values()):
            assert row["seeds"] >= 3, row


NAMED = re.compile(r"`(?:([\w/.…]+)::|(?:\w+/)*)(test_\w+…?|…_\w+)`")


TESTS = defaultdict(set)
for path in (REPOSITORY / "tests").rglob("test_*.py"):
    TESTS[path.stem] |= {path.stem, *re.findall(r"(?m)^def (test_\w+)", path.read_text("utf-8"))}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_test_that_is_named_as_a_proof_exists(page):
    """As ``file::test``, … for the file named before, or on reliability.md alone; … in a name for
    what is left out."""
    last = ""
    for file, test in NAMED.findall(page.read_text("utf-8")):
        last = last if file == "…" else Path(file).stem
        known = TESTS[last] if file else set().union(*TESTS.values())
        is_found = any(re.fullmatch(test.replace("…", ".*"), name) for name in known)
        assert is_found or not file and page.stem != "reliability", test
