"""Finds words and phrases that read badly in the documents and in the messages of the commands, says
what reads better, and counts words and pages of docs/.

    python tools/words.py

Looked through are the Markdown files outside code, and in the code what a user reads: the first
lines of docstrings, helps of arguments, messages of errors and of the log, pages; and comments of recipes. What docs/ may hold at
most is below; the API reference, which is made of docstrings, and the lab book don't count. The
exit code is 1 where something is found, or where there is too much.
"""

import ast
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
DOCS = REPOSITORY / "docs"
PLACES = "analysis app benchmarks datasets protocols results tools trainers".split()
MOST_WORDS = 25_000
MOST_PAGES = 24
NOT_COUNTED = ("api/", "log.md")  # generated, and history
GENERATED = DOCS / "trainers"  # by tools/reference.py

# what reads badly, as a regular expression → what reads better
BETTER = {
    r"this page answers": "say what the page is for",
    r"(?:images?|pictures?|shots|texts?|views?|gaussians?|contexts?|tokens|rows?|lines?) a class\b": "per class",
    r"(?:texts?|views?|losses|rows?|lines?|dicts?|one) an image\b": "per image",
    r"\bonce an? (?:image|template|view|batch|step|epoch|run|test)\b": "once per",
    r"\bdoubt(?:s|ed|ful)?\b": "uncertainty, uncertain",
    r"\bwhose definition": "where it comes from",
    r"\bwhat is whose\b": "what is the paper's and what is ours",
    r"\bby the paper\b": "according to the paper",
    r"\bwitness of image features\b|\bimage witness\b": "image-feature classifier",
    r"\bof use\b": "useful",
    r"\bfor trying\b": "to try things",
    r"\bstands (?:at|in|on|where|beside|below|under) ": "is",
    r"\basked (?:with|for) (?:base|new|all|other)\b": "given",
    r"\bpulls? the answers?\b": "change the answers",
    r"\bwhat chance would\b": "chance level",
    r"\bis everybody's\b": "is shared",
    r"\bgoes on to the same (?:numbers|figures)\b": "continues to the same numbers",
    r"\bdecide nothing\b": "are ignored",
    r"\b(?:published|printed|exact|test|same) figures?\b": "number; a figure is a picture",
}
MESSAGES = {"UserError", "info", "warning", "error", "exception"}  # calls with what a user reads


def prose(text: str) -> str:
    """A Markdown text with its code and links' targets blanked, line by line."""
    for pattern in (
        r"(?s)^<!-- made of .*?^<!-- to here -->",
        r"(?s)^ *```.*?^ *```",
        r"`[^`\n]*`",
        r"\]\([^)\n]*\)",
        r"<!--.*?-->",
    ):
        text = re.sub(pattern, blank, text, flags=re.MULTILINE)
    return text


def blank(found: re.Match[str]) -> str:
    """Spaces in place of what was found."""
    return re.sub(r"[^\n]", " ", found[0])


def page_text(template: str) -> str:
    """What a template's page says: without tags and without the template's own marks."""
    for pattern in (r"(?s)<style.*?</style>", r"(?s)\{%.*?%\}", r"(?s)\{\{.*?\}\}", r"(?s)<[^>]*>"):
        template = re.sub(pattern, blank, template)
    return template


def messages(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and text of what a user reads of a Python file."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            if first := (ast.get_docstring(node) or "").partition("\n\n")[0]:
                yield getattr(node, "lineno", 1), first
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            parts = [word.value for word in node.keywords if word.arg == "help"]
            parts += node.args if name in MESSAGES else []
            for part in parts:
                for constant in ast.walk(part):
                    if isinstance(constant, ast.Constant) and isinstance(constant.value, str):
                        yield constant.lineno, constant.value


def found(text: str, first: int = 1) -> Iterator[tuple[int, str, str]]:
    """Line, words and what reads better, of a text that begins in line ``first``."""
    for pattern, better in BETTER.items():
        # a phrase may be broken into two lines
        for match in re.finditer(pattern.replace(" ", r"\s+"), text, re.IGNORECASE):
            line = first + text.count("\n", 0, match.start())
            yield line, " ".join(match[0].split()), better


def is_written(page: Path) -> bool:
    """Whether a page is of today, and not made of the code."""
    return page.parent != GENERATED and page.name != "log.md"


def everywhere() -> Iterator[str]:
    """What is found in the documents and in the code, a line each."""
    for path in [*REPOSITORY.glob("*.md"), *DOCS.rglob("*.md")]:
        if is_written(path) and path.name != "CHANGELOG.md":  # what was once said stays
            for line, words, better in found(prose(path.read_text("utf-8"))):
                yield f"{path.relative_to(REPOSITORY)}:{line}: {words!r}: {better}"
    for path in (REPOSITORY / "configs").rglob("*.yaml"):
        comments = re.sub(r"(?m)^[^#\n]*(?:# )?", "", path.read_text("utf-8"))
        for line, words, better in found(comments):
            yield f"{path.relative_to(REPOSITORY)}:{line}: {words!r}: {better}"
    for path in [place for folder in PLACES for place in (REPOSITORY / folder).rglob("*.html")]:
        for line, words, better in found(page_text(path.read_text("utf-8"))):
            yield f"{path.relative_to(REPOSITORY)}:{line}: {words!r}: {better}"
    files = [
        *REPOSITORY.glob("*.py"),
        *(path for place in PLACES for path in (REPOSITORY / place).rglob("*.py")),
    ]
    for path in sorted(files):
        for first, text in messages(ast.parse(path.read_text("utf-8"))):
            for _, words, better in found(text):
                yield f"{path.relative_to(REPOSITORY)}:{first}: {words!r}: {better}"


def text_of(page: Path) -> str:
    """What a page says, or the cells of a notebook."""
    text = page.read_text("utf-8")
    if page.suffix != ".ipynb":
        return text
    return "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])


def counted() -> dict[str, int]:
    """Words of each page of docs/ that counts, and of the notebooks."""
    pages = {}
    for path in sorted([*DOCS.rglob("*.md"), *DOCS.rglob("*.ipynb")]):
        name = path.relative_to(DOCS).as_posix()
        if is_written(path) and not name.startswith(NOT_COUNTED):
            pages[name] = len(text_of(path).split())
    return pages


def main() -> int:
    """Exit code: 0, or 1 where something is found or too much."""
    worse = list(everywhere())
    pages = counted()
    words = sum(pages.values())
    documents = sum(name.endswith(".md") for name in pages)
    print("\n".join(worse))
    print(
        f"docs/ has {words} words (at most {MOST_WORDS}) on {documents} pages (at most {MOST_PAGES})"
    )
    return int(bool(worse) or words > MOST_WORDS or documents > MOST_PAGES)


if __name__ == "__main__":
    sys.exit(main())
