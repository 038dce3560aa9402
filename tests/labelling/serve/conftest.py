"""Fixtures of the tests of the page: a run to ask, and the page that answers."""

import io
import re

import pytest

from labelling import PromptedClassifier
from labelling.serve.demo import Demo, find_examples
from labelling.serve.page import make_app
from tests import chromium

NASTY = ['<script>alert("1")</script>', "salt & 'pepper'", "a" * 60]


class Page(chromium.Page):
    """The page with its text, and its tables of bars: caption → list of (class name, probability)."""

    def __init__(self, source):
        self.tables = {}
        super().__init__(source)
        self.text = " ".join(" ".join(self.pieces).split())

    def handle_data(self, data):
        super().handle_data(data)
        tag, attributes = self.tags[-1] if self.tags else ("", {})
        if tag == "caption" and data.strip():
            self.tables[data] = self.rows = []
        elif tag == "th" and attributes["scope"] == "row" and data.strip():
            self.rows.append((data,))
        elif tag == "td" and data.strip():
            self.rows[-1] += (data,)

    @property
    def error(self):
        """The message, which the title repeats, or None."""
        is_there = any(attributes.get("role") == "alert" for _, attributes in self.tags)
        return re.search(r"Error: (.*?) – ", self.text)[1] if is_there else None


def make_demo(folder, data_root, max_error=None):
    classifier = PromptedClassifier.load(folder, max_error=max_error)
    examples = find_examples(folder, classifier.record, data_root)
    return Demo(classifier, examples, data_root)


@pytest.fixture(scope="module")
def folder(trained):
    return str(trained("CDC"))


@pytest.fixture(scope="module")
def demo(folder, data_root):
    return make_demo(folder, data_root, max_error=0.5)


@pytest.fixture
def ask(demo):
    """Gets the page, or, with ``form``, asks it: ``ask(classes="a\\nb", picture="example-1")`` →
    ``Page``; ``sent``: name, content."""
    client = make_app(demo).test_client()

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
