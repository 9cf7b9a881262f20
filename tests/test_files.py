"""Files that are complete or not there."""

import json

import pytest

from amt.files import atomic_write, read_json, write_json


def test_a_write_that_fails_leaves_the_file_before_it(tmp_path):
    path = tmp_path / "content"
    atomic_write(path, lambda file: file.write(b"before"))

    def write(file):
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        atomic_write(path, write)
    assert path.read_bytes() == b"before"


def test_json_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "content.json"
    write_json(path, {"b": [1, None], "a": 0.1})
    assert read_json(path) == {"a": 0.1, "b": [1, None]}
    assert path.read_text() == '{\n  "a": 0.1,\n  "b": [\n    1,\n    null\n  ]\n}\n'
    assert [file.name for file in tmp_path.iterdir()] == ["content.json"]
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 0.1, "b": [1, None]}


@pytest.mark.parametrize("content", [None, "", '{"a"'])
def test_json_that_is_not_whole_is_none(tmp_path, content):
    path = tmp_path / "content.json"
    if content is not None:
        path.write_text(content)
    assert read_json(path) is None
