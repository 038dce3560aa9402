"""Writes the pages that are made of today's code into docs/: the reference, docs/api, and a page for
each trainer, docs/trainers.

    python docs/pages/reference.py

They are committed, so that they can be read wherever the repository can. On a page of docs/api what
is between two marks is made, all else is written by hand:

    <!-- made of labelling.classifier: PromptedClassifier, Answers -->
    <!-- to here -->
"""

import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from trainers.common.environment import start_command

if __name__ == "__main__":
    start_command()

import re

from docstrings import members, whole
from trainer_pages import pages_of_trainers

DOCS = REPOSITORY / "docs"
MADE = re.compile(
    r"(?ms)^(<!-- made of ([\w.]+)(?:: ([\w, ]+))? -->\n).*?^(<!-- to here -->)$"
)  # the opening mark, a module, its names, the closing mark


def made_again(page: str) -> str:
    """A page of docs/api with what today's code says between its marks."""

    def made(found: re.Match[str]) -> str:
        opening, module, names, closing = found.groups()
        text = members(module, names.split(", ")) if names else whole(module)
        return f"{opening}\n{text}\n\n{closing}"

    return MADE.sub(made, page)


def pages() -> dict[Path, str]:
    """All pages that are made, as they should be."""
    made = {path: made_again(path.read_text("utf-8")) for path in sorted(DOCS.glob("api/*.md"))}
    trainers = {DOCS / "trainers" / name: text for name, text in pages_of_trainers().items()}
    return made | trainers


def main() -> None:
    (DOCS / "trainers").mkdir(exist_ok=True)
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
