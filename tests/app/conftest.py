"""Fixtures of the tests of ``demo_app.py``'s page: a run to ask, and the page that answers."""

import io
import re
from html.parser import HTMLParser

import pytest

import demo_app
from trainers import PromptedClassifier
from trainers.evaluation.doubts import Judge

CLASSES = ["banded", "dotted", "striped", "woven", "zigzagged", "grid"]
NASTY = ['<script>alert("1")</script>', "salt & 'pepper'", "a" * 60]


class Page(HTMLParser):
    """The page's tags with their attributes, its text, and its tables of bars: caption → list of (class name, probability)."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.pieces, self.tables = [], [], {}
        self.feed(source)
        self.text = " ".join(" ".join(self.pieces).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.pieces.append(data)
        tag, attributes = self.tags[-1] if self.tags else ("", {})
        if tag == "caption" and data.strip():
            self.tables[data] = self.rows = []
        elif tag == "th" and attributes["scope"] == "row" and data.strip():
            self.rows.append((data,))
        elif tag == "td" and data.strip():
            self.rows[-1] += (data,)

    def all(self, tag, **wanted):
        return [
            attributes
            for found, attributes in self.tags
            if found == tag and wanted.items() <= attributes.items()
        ]

    @property
    def error(self):
        """The message, which the title repeats, or None."""
        found = [
            index
            for index, (tag, attributes) in enumerate(self.tags)
            if attributes.get("role") == "alert"
        ]
        return re.search(r"Error: (.*?) – ", self.text)[1] if found else None


def make_demo(folder, data_root, max_error=None):
    classifier = PromptedClassifier.load(folder)
    return demo_app.Demo(
        classifier,
        Judge(folder, max_error),
        demo_app.find_examples(folder, classifier.record, data_root),
    )


@pytest.fixture(scope="module")
def folder(trained):
    return str(trained("CDC")[1])


@pytest.fixture(scope="module")
def demo(folder, data_root):
    return make_demo(folder, data_root, max_error=0.5)


@pytest.fixture
def ask(demo):
    """Gets the page, or, with ``form``, asks it: ``ask(classes="a\\nb", picture="example-1")`` → ``Page``; ``sent``: name, content."""
    client = demo_app.make_app(demo).test_client()

    def start(sent=None, path="/", status=200, **form):
        if sent is not None:
            form["upload"] = (io.BytesIO(sent[1]), sent[0])
        response = (
            client.post(path, data=form, content_type="multipart/form-data")
            if form
            else client.get(path)
        )
        assert response.status_code == status
        return Page(response.text)

    return start


def png(path):
    with open(path, "rb") as file:
        return file.read()
