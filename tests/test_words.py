"""Words and phrases that read badly are found, in documents and in messages, and nothing else is."""

import ast

import pytest

from tools.words import BETTER, counted, found, messages, prose

# a sentence for each phrase of the list, and what is found in it
WORSE = {
    "This page answers: how?": "This page answers",
    "16 images a\nclass are usual.": "images a class",
    "M views an image": "views an image",
    "Texts are encoded once a run.": "once a run",
    "The doubts were larger.": "doubts",
    "Whose definition is it?": "Whose definition",
    "what is whose": "what is whose",
    "The code is, by the paper, public.": "by the paper",
    "It fuses a witness of image features.": "witness of image features",
    "Phrases that are of use": "of use",
    "It is for trying.": "for trying",
    "The accuracy stands at the top.": "stands at",
    "Asked with new names": "Asked with new",
    "Do factors pull the answers?": "pull the answers",
    "beside what chance would": "what chance would",
    "the warm-up, which is everybody's": "is everybody's",
    "It goes on to the same figures.": "goes on to the same figures",
    "Dates of files decide nothing.": "decide nothing",
    "The published figures are of ViT-B/16.": "published figures",
}


@pytest.mark.parametrize("text, words", WORSE.items(), ids=WORSE.values())
def test_a_phrase_that_reads_badly_is_found_with_a_better_one(text, words):
    (_, first, better), *_ = found(text)
    assert first == words and better in BETTER.values()


def test_every_phrase_of_the_list_is_tested():
    assert {better for text in WORSE for _, _, better in found(text)} == {*BETTER.values()}


def test_code_and_links_are_not_prose():
    text = "[here](doubts.py) `doubt` <!-- doubt -->\n```\nno doubt\n```\nDoubt is found.\n"
    assert [line for line, *_ in found(prose(text))] == [5]


def test_messages_are_first_lines_of_docstrings_helps_errors_and_the_log():
    code = '''"""One.

    not this"""
log.info(f"two {name} %s", three)
parser.add_argument("not", help="four")
raise UserError("five")
other("not")
'''
    said = [text for _, text in messages(ast.parse(code))]
    assert said == ["One.", "two ", " %s", "four", "five"]


def test_all_pages_and_the_notebook_are_counted():
    pages = counted()
    assert {"index.md", "faq.md", "tutorials/quickstart.ipynb"} <= {*pages}
    assert not any(name.startswith(("api", "log")) for name in pages)
    assert all(words > 100 for words in pages.values())
