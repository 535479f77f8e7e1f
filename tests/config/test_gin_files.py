"""Reading gin text: what wins, what is refused, and where each statement stands."""

import os

import pytest

from lmlab.config.text import Binding, Macro, Reference, read_statements
from lmlab.errors import ConfigError


def write(folder, **texts):
    for name, text in texts.items():
        path = folder / f"{name.replace('__', '/')}.gin"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")


def read(*files, overrides=()):
    return {str(b): (b.value, b.place) for b in read_statements(files, overrides).bindings}


def refused(*files, overrides=()) -> str:
    with pytest.raises(ConfigError) as caught:
        read_statements(files, overrides)
    return str(caught.value)


def test_statements_carry_their_file_and_line(folder):
    write(
        folder, a="# a comment\n\ngpt.layers = 4\nSIZE = %OTHER\ngpt:\n  # inside\n  width = 8\n  body = @big/lstm()\n"
    )
    assert read("a.gin") == {
        "gpt.layers": (4, "a.gin:3"),
        "SIZE": (Macro("OTHER"), "a.gin:4"),
        "gpt.width": (8, "a.gin:7"),
        "gpt.body": (Reference("big", "lstm"), "a.gin:8"),
    }


def test_includes_are_looked_for_beside_the_file_then_here_then_beside_the_package(folder):
    write(folder, sub__a="include 'b.gin'\ninclude 'c.gin'\n", sub__b="x.b = 1\n", b="x.b = 2\n", c="x.c = 3\n")
    assert read("sub/a.gin") == {"x.b": (1, "sub/b.gin:1"), "x.c": (3, "c.gin:1")}


def test_a_file_is_read_once_where_it_is_first_included(folder):
    write(
        folder,
        a="include 'b.gin'\ninclude 'c.gin'\n",
        b="include 'd.gin'\nx.y = 2\n",
        c="include 'd.gin'\n",
        d="x.y = 1\n",
    )
    assert read("a.gin") == {"x.y": (2, "b.gin:2")}


def test_includes_in_a_circle_are_refused(folder):
    write(folder, a="include 'b.gin'\n", b="include 'a.gin'\n")
    assert "b.gin:1: includes itself in a circle: a.gin -> b.gin -> a.gin" in refused("a.gin")


def test_several_statements_may_stand_in_one_string_of_the_command_line():
    found = read(overrides=["a.x = 'one; two'; a.y = [1,\n 2];;", " b:\n  z = 3\n", "C=4;"])
    assert {key: value for key, (value, _) in found.items()} == {"a.x": "one; two", "a.y": (1, 2), "b.z": 3, "C": 4}
    assert {place for _, place in found.values()} == {"command line"}


def test_a_semicolon_ends_nothing_in_a_file(folder):
    write(folder, a="a.x = 1; a.y = 2\n")
    assert refused("a.gin").startswith("a.gin:1: cannot read this")


def test_a_missing_file_is_named_with_near_ones(folder):
    write(folder, quickstart="")
    assert "no configuration file 'quikstart.gin'. Did you mean 'quickstart.gin'?" in refused("quikstart.gin")
    write(folder, a="\ninclude 'parts/none.gin'\n")
    assert refused("a.gin").startswith("a.gin:2: no configuration file 'parts/none.gin'.")


def test_a_folder_and_an_unreadable_file_are_refused(folder):
    (folder / "a.gin").mkdir()
    assert "cannot read a.gin: Is a directory" in refused("a.gin")
    write(folder, b="")
    (folder / "b.gin").chmod(0)
    if not os.access("b.gin", os.R_OK):  # root reads everything
        assert "cannot read b.gin: Permission denied" in refused("b.gin")


def test_bytes_that_are_not_utf8_are_named_with_their_line(folder):
    (folder / "a.gin").write_bytes(b"x.y = 1\nx.z = '\xff'\n")
    assert refused("a.gin").startswith("a.gin:2: not UTF-8 (byte 0xff at offset 15)")


def test_byte_order_marks_and_carriage_returns_are_no_text(folder):
    (folder / "a.gin").write_bytes(b"\xef\xbb\xbfx.y = 1\r\nx.z = 'b'\r\n")
    assert read("a.gin") == {"x.y": (1, "a.gin:1"), "x.z": ("b", "a.gin:2")}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a.x = 1\na.y = adam\n", 2),
        ("a.x = 1\na.y = 01\n", 2),
        ("a.x = 3 * 4\n", 1),
        ("a.x = 'unclosed\n", 1),
        ("a.x = 1\na.y = (1,\n", 3),
        ("a.x = {'k' 1}\n", 1),
        ("\n\na.x 1\n", 3),
        ("a.x =\n", 1),
        ("a.x = 1x\n", 1),
        ("a:\nb.x = 1\n", 2),
        ("a:\n    x = 1\n  y = 2\n", 3),
        ("a.x = $\n", 1),
        ("a.x = \x00\n", 1),
        ("a..x = 1\n", 1),
        ("a.x = @\n", 1),
        ("a.x = " + "[" * 3000 + "\n", 1),
        ("= 1\n", 1),
        ("include 7\n", 1),
        ("import\n", 1),
    ],
)
def test_what_cannot_be_parsed_is_named_with_file_and_line(folder, text, line):
    """On Python 3.12 and newer gin lets a TokenError through, which has no file name (STACK.md 2)."""
    write(folder, bad=text)
    message = refused("bad.gin")
    place, number, problem = message.split(":", 2)
    assert (place, problem.startswith(" cannot read this")) == ("bad.gin", True), message
    assert abs(int(number) - line) <= 1, message
    assert "0x" not in message and len(message.splitlines()) <= 4


def test_a_bare_word_gets_the_three_things_that_it_may_have_meant(folder):
    message = refused(overrides=["a.x = adam"])
    assert "adam is not a value. Write @adam for a component, %adam for a macro, 'adam' for a string." in message


def test_a_parse_error_leaves_nothing_behind(folder):
    """gin's own state keeps the lines before a failed one (STACK.md 2, trap a); here there is no such state."""
    refused(overrides=["a.x = 1; a.y = adam"])
    assert read(overrides=["a.z = 2"]) == {"a.z": (2, "command line")}


def test_dynamic_registration_and_aliases_are_refused(folder):
    assert "gin's dynamic registration is not supported" in refused(
        overrides=["from __gin__ import dynamic_registration"]
    )
    assert "Write: import a.b" in refused(overrides=["import a.b as c"])


def test_a_binding_says_what_is_bound_in_which_scope():
    (binding,) = read_statements([], ["a/b/gpt.layers = 1"]).bindings
    assert isinstance(binding, Binding)
    assert (binding.scope, binding.selector, binding.parameter, str(binding)) == (
        "a/b",
        "gpt",
        "layers",
        "a/b/gpt.layers",
    )
