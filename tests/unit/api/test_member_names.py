"""Members' names in JSON are counted as JSON has them, whatever stands in its strings."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gesell_ledger.api.member_names import count_names

TEXTS = st.text(alphabet=':"\\ ,{}[]\n\tö😀a', max_size=8)
VALUES: st.SearchStrategy[Any] = st.recursive(
    TEXTS | st.integers() | st.none() | st.booleans(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
)


def names_in(value: Any) -> int:
    if isinstance(value, dict):
        return len(value) + sum(map(names_in, value.values()))
    return sum(map(names_in, value)) if isinstance(value, list) else 0


@given(VALUES, st.booleans(), st.sampled_from([None, 1]))
def test_names_of_any_json_are_counted(value: Any, ascii_only: bool, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    assert count_names(text) == names_in(value)
    assert count_names(msgspec.Raw(text)) == names_in(value)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (rb'{"a":":)"}', 1),
        (rb'{"a":" :"}', 1),
        (rb'{"a":":"}', 1),
        (rb'{"a":"\":"}', 1),
        (rb'{"a":"\\","b" : "\\\":"}', 2),
        (rb'{"a":1,"a":2}', 2),
        (rb'{"a" :1,"a"' + b"\n\t" + rb':":","\u0061":":"}', 3),
        (rb'{"\":":{":":[":",{"":1}]}}', 3),
        (b"", 0),
    ],
)
def test_names_that_stand_twice_count_twice(text: bytes, names: int) -> None:
    assert count_names(text) == names
