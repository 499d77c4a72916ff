"""Long JSON is kept out of tables as long texts are: tokens stand in it for what is long (`core/long_texts.py`). Pure.

    long strings ─► if that is too long, long lists too ─► if even that is, one token for all of it

What stays is JSON: its plain values, unless they lie in a list, are found by SQL, and the length of each list. DuckDB works on
2,048 rows at a time, so cells of LONG_JSON take some megabytes together, however they lie beside each other.
"""

from __future__ import annotations

import json
from typing import Any

from batchinfer.core.long_texts import COUNT, LONG, MARKS, OPEN_JSON, KeepText, is_long, json_token, token

LONG_JSON = 8_192  # characters: twice what a text may have
LONG_KEY = 65_536  # the same of a lookup key, whose parts are looked for in tables
LONG_LIST = 1_024  # characters of a list in JSON that is too long


def shortened_json(text: str, keep: KeepText, most: int = LONG_JSON) -> str:
    """JSON text with tokens in place of its long strings; if it is too long then, of its long lists too, or of all of it.

    most: characters that are not too long.
    """
    if len(text) <= LONG and MARKS.search(text) is None and len(text.encode()) <= LONG:
        return text
    value = json.loads(text)
    for shorter in (_short_strings, _short_lists):
        held = dict[bytes, bytes]()
        short = _written(shorter(value, held.__setitem__))
        if len(short) <= most:
            for digest, data in held.items():
                keep(digest, data)
            return short
    return json_token(text, keep)


def _written(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _short_lists(value: Any, keep: KeepText) -> Any:
    """A value with tokens in place of long strings and long lists."""
    if isinstance(value, list):
        text = _written(value)
        return json.loads(json_token(text, keep, len(value))) if len(text) > LONG_LIST else _short_strings(value, keep)
    if isinstance(value, dict):
        return {token(name, keep) if is_long(name) else name: _short_lists(item, keep) for name, item in value.items()}
    return _short_strings(value, keep)


def _short_strings(value: Any, keep: KeepText) -> Any:
    """A value with tokens in place of long strings."""
    if isinstance(value, str):
        return token(value, keep) if is_long(value) else value
    if isinstance(value, list):
        return [_short_strings(item, keep) for item in value]
    if isinstance(value, dict):
        return {
            token(name, keep) if is_long(name) else name: _short_strings(item, keep) for name, item in value.items()
        }
    return value


def list_length_sql(value: str) -> str:
    """SQL for how many items a list in JSON has, also one that a token stands for; NULL for what is no list."""
    count = f"regexp_extract({value} ->> '$', '^{OPEN_JSON}([0-9]{{{COUNT}}})', 1)"
    return f"CASE json_type({value}) WHEN 'ARRAY' THEN json_array_length({value}) WHEN 'VARCHAR' THEN TRY_CAST({count} AS UBIGINT) END"
