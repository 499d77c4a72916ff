"""What a body of JSON may hold, before it is read."""

from __future__ import annotations

import json

import pytest

from batchinfer.core.http_limits import MAX_BODY, MAX_VALUES
from batchinfer.serve.body import read_json
from batchinfer.serve.problems import Problem


@pytest.mark.parametrize("value", ["1", "[]", "{}", "1.5", '""', "null", '"\\","', '"\\\\"'])
def test_more_values_than_a_request_can_need_are_not_read(value: str) -> None:
    """Reading half a million of them would keep all look-ups waiting; texts with commas are no such values."""
    few = f"[{','.join([value] * MAX_VALUES)}]"
    assert read_json(few.encode()) == [json.loads(value)] * MAX_VALUES
    with pytest.raises(Problem, match="64,000 JSON values") as caught:
        read_json(f"[{value},{few[1:]}".encode())
    assert caught.value.slug == "too-large"


@pytest.mark.parametrize("text", [",", ",,,a", '\\","', "\n,", "ü,"])
def test_commas_in_texts_are_no_values(text: str) -> None:
    """Whatever a text has, it is one value."""
    long = text * (MAX_BODY // 3 // len(json.dumps(text)))
    body = json.dumps({"texts": [long, "b"]}, ensure_ascii=False).encode()
    assert read_json(body) == {"texts": [long, "b"]}


@pytest.mark.parametrize("body", [b'["' + b'",' * 200_000, b'["' + b"\\," * 400_000, b'"' * 900_000 + b"," * 90_000])
def test_what_is_no_json_is_refused_as_ever(body: bytes) -> None:
    """A string that does not end, and quotes without end."""
    with pytest.raises(Problem):
        read_json(body)
