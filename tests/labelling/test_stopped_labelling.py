"""A labelling that was stopped goes on for the same question alone."""

from unittest.mock import patch

import predict
from labelling.answers.part_file import PartFile
from tests.runs import CLASSES, call

OTHER_QUESTIONS = [
    ["--classes", *CLASSES[:2]],
    ["--classes", *reversed(CLASSES)],
    ["--topk", "2"],
    ["--max-error", "0.5"],
    ["--min-certainty", "0.5"],
    ["--confidence", "0.5"],
]


def stop_after_a_batch(words):
    add = PartFile.add

    def stopping(part, *answers):
        add(part, *answers)
        if any(answers):
            raise KeyboardInterrupt

    with patch.object(PartFile, "add", stopping):
        assert call(predict.main, *words) not in (0, 1, 2)


def test_another_question_does_not_go_on_with_the_answers_to_the_first(
    trained, data_root, tmp_path, error_of
):
    table = tmp_path / "labels.csv"
    words = "--run", trained("CoOp"), f"{data_root}/dtd/images", "--csv", table
    stop_after_a_batch(words)
    part = tmp_path / "labels.csv.part"
    for option, *values in OTHER_QUESTIONS:
        line = error_of(predict.main, *words, option, *values)
        assert (
            f"{part} holds the answers of a command that was stopped, with other {option}" in line
        )
    assert call(predict.main, *words) == 0
    assert table.exists()
    assert not part.exists()
