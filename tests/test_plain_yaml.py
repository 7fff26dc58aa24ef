import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icsr_cli.plain_yaml import format_yaml, parse_yaml

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@settings(deadline=None)
@given(PLAIN)
def test_plain_values_come_back(value):
    assert parse_yaml(format_yaml({"a": value})) == {"a": value}


@pytest.mark.parametrize("number", ["1e-1", "1E5", "-2e+4", "1.e3", "1.5e3"])
def test_numbers_as_everyone_writes_them(number):
    """A name that looks so keeps its quotes."""
    assert parse_yaml(f"a: {number}") == {"a": float(number)}
    assert parse_yaml(format_yaml({"a": number})) == {"a": number}


BOMB = "a: &a {x: 1}\n" + "".join(
    f"{name}: &{name} {{p: *{before}, q: *{before}}}\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, r"line 2 has an alias \(\*a\)"),
        ("a: &a\n  b: *a\n", "alias"),
        ("[" * 3000 + "]" * 3000, "nested more than 40 deep|maximum nesting depth"),
        ("- " * 3000 + "a", "nested more than 40 deep"),
        ("{a: " * 3000, "nested more than 40 deep"),
        ("seed: " + "9" * 5000, "number of 5000 digits"),
        ("seed: -0x" + "f" * 5000, "number of 5002 digits"),
        ("seed: 1\nseed: 2\n", "key 'seed' stands twice, again in line 2"),
        ("cam: {epochs: 1, epochs: 2}", "key 'epochs' stands twice"),
        ("? [a, b]\n: 1\n", "unhashable key"),
        ("!!python/object/apply:os.system ['true']", "python/object"),
        ("a: [1\n", "expected"),
        ("x" * (2 << 20), "longer than"),
        ("a: \x00", "special characters|control characters"),
        ("seed: !!bool x", r"a value does not fit its tag \('x'\)"),
        ("seed: !!timestamp x", "a value does not fit its tag"),
    ],
)
def test_more_than_settings_need_is_refused_at_once(text, words):
    started = time.process_time()
    with pytest.raises(ValueError, match=words) as caught:
        parse_yaml(text)
    assert "\n" not in str(caught.value)
    assert time.process_time() - started < 30
