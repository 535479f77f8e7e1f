import json
import os

import pytest

from lmlab.errors import RunFolderError
from lmlab.training.metrics_file import MetricsFile, Position, read_metrics


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


def write(path, steps, position=None):
    file = MetricsFile(path, position or Position())
    for step in steps:
        file.append({"step": step, "phase": "train", "loss": 1 / 3})
    end = file.position()
    file.close()
    return end


def test_numbers_come_back_exactly(path):
    write(path, [1])
    assert read_metrics(path) == [{"step": 1, "phase": "train", "loss": 1 / 3}]


def test_resuming_cuts_the_file_back_to_the_checkpoint(path):
    saved = write(path, [1, 2])
    write(path, [3, 4], saved)
    write(path, [3, 5], saved)
    assert [record["step"] for record in read_metrics(path)] == [1, 2, 3, 5]


def test_a_position_is_the_same_whether_the_file_was_written_at_once_or_in_two_sessions(path, tmp_path):
    two = write(path, [3], write(path, [1, 2]))
    assert two == write(tmp_path / "other.jsonl", [1, 2, 3])
    assert two.offset == path.stat().st_size


def test_a_half_written_last_line_is_cut_off_and_not_read(path):
    saved = write(path, [1])
    with path.open("ab") as file:
        file.write(b'{"step": 2, "pha')
    assert [record["step"] for record in read_metrics(path)] == [1]
    write(path, [2], saved)
    assert [record["step"] for record in read_metrics(path)] == [1, 2]


def test_a_file_shorter_than_the_checkpoint_knows_is_refused_and_left_alone(path):
    saved = write(path, [1, 2, 3])
    os.truncate(path, 20)
    with pytest.raises(RunFolderError, match=r"metrics.jsonl was cut short.*--from-step"):
        MetricsFile(path, saved)
    assert path.stat().st_size == 20


def test_a_changed_file_is_refused_and_left_alone(path):
    saved = write(path, [1, 2, 3])
    changed = path.read_bytes().replace(b'"step": 2', b'"step": 7')
    path.write_bytes(changed)
    with pytest.raises(RunFolderError, match=r"metrics.jsonl was changed since"):
        MetricsFile(path, saved)
    assert path.read_bytes() == changed


def test_a_file_that_is_gone_is_refused(path):
    saved = write(path, [1])
    path.unlink()
    with pytest.raises(RunFolderError, match="cannot be read"):
        MetricsFile(path, saved)


def test_a_broken_line_is_named_by_its_number(path):
    write(path, [1, 2, 3])
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[0], b"{nonsense", *lines[2:]]))
    with pytest.raises(RunFolderError, match=r"metrics.jsonl:2: .*--from-step"):
        read_metrics(path)


def test_no_file_means_no_records(path):
    assert read_metrics(path) == []


def test_every_line_is_json_on_its_own(path):
    write(path, range(7))
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == list(range(7))
