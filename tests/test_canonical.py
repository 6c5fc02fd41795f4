"""The one JSON form of marks and of dataset.json, against Python's own writer."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from flowprep.shard.index import canonical

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"])),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=30,
)


@given(VALUES)
def test_it_is_what_json_writes(value: object) -> None:
    expected = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    assert canonical(value).decode("utf-8", "surrogatepass") == expected
