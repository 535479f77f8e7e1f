"""SCAN: its counts, its splits, and its meanings by an interpreter that reads a command from right to left."""

import re

import pytest

from lmlab.data.generated.scan import Scan, commands
from lmlab.errors import DataError

COUNTS = {  # lines of the published files
    "simple": (16_728, 4_182),
    "length": (16_990, 3_920),
    "addprim_jump": (14_670, 7_706),
    "addprim_turn_left": (21_890, 1_208),
    "around_right": (15_225, 4_476),
    "opposite_right": (15_225, 4_476),
    "right": (15_225, 4_476),
    "jump_around_right": (18_528, 1_173),
}


def meaning(command):
    """Lake & Baroni 2018, figure 7 (the interpretation function), by the last operator that applies."""
    for joint, swap in (("and", False), ("after", True)):
        if f" {joint} " in command:
            one, other = (meaning(part) for part in command.split(f" {joint} "))
            return other + one if swap else one + other
    for word, times in (("twice", 2), ("thrice", 3)):
        if command.endswith(f" {word}"):
            return meaning(command.removesuffix(f" {word}")) * times
    match command.split():
        case ["turn"]:
            return []
        case [verb]:
            return [f"I_{verb.upper()}"]
        case [verb, "around", direction]:
            return meaning(f"{verb} {direction}") * 4
        case [verb, "opposite", direction]:
            return [f"I_TURN_{direction.upper()}", *meaning(f"{verb} {direction}")]
        case [verb, direction]:
            return [f"I_TURN_{direction.upper()}", *meaning(verb)]


WAY = "(?: (?:opposite|around))? (?:left|right)"
PHRASE = rf"(?:(?:walk|look|run|jump)(?:{WAY})?|turn{WAY})"
SENTENCE = rf"{PHRASE}(?: twice| thrice)?"
COMMAND = re.compile(rf"{SENTENCE}(?: (?:and|after) {SENTENCE})?")


def published(split_by, **settings):
    """Training and test pairs, as the published files have them."""
    dataset = Scan(split_by=split_by, valid_share=0.0, **settings)
    return [[(pair.text, pair.target) for pair in dataset.split(name)] for name in ("train", "test")]


def test_there_are_20910_commands_of_the_grammar_with_one_meaning_each():
    pairs = commands()
    assert len(pairs) == len({command for command, _ in pairs}) == 20_910
    assert all(COMMAND.fullmatch(command) for command, _ in pairs)
    assert all(list(actions) == meaning(command) for command, actions in pairs)
    assert len({word for command, _ in pairs for word in command.split()}) == 13
    assert max(len(command.split()) for command, _ in pairs) == 9
    assert {len(actions) for _, actions in pairs} >= {1, 48} and max(len(actions) for _, actions in pairs) == 48


@pytest.mark.parametrize("split_by", COUNTS)
def test_every_split_has_the_lines_of_the_published_files(split_by):
    train, test = published(split_by)
    assert (len(train), len(test)) == COUNTS[split_by]
    assert not set(train) & set(test) and len(set(test)) == len(test)


def test_the_random_split_is_of_all_commands_and_another_with_another_seed():
    train, test = published("simple")
    assert {text for text, _ in train + test} == {command for command, _ in commands()}
    assert published("simple", seed=1)[1] != test
    assert len(published("simple", train_share=0.01)[0]) == 209


def test_the_split_by_length_tests_what_is_longer_than_22_actions():
    train, test = published("length")
    assert max(len(actions.split()) for _, actions in train) == 22
    assert {len(actions.split()) for _, actions in test} == {24, 25, 26, 27, 28, 30, 32, 33, 36, 40, 48}


@pytest.mark.parametrize(
    ("split_by", "primitive", "times"), [("addprim_jump", "jump", 1467), ("addprim_turn_left", "turn left", 2189)]
)
def test_a_primitive_is_trained_on_by_itself_only(split_by, primitive, times):
    train, test = published(split_by)
    found = [text for text, _ in train if re.search(rf"\b{primitive}\b", text)]
    assert found == [primitive] * times
    assert all(re.search(rf"\b{primitive}\b", text) and text != primitive for text, _ in test)
    assert {text for text, _ in train + test} == {command for command, _ in commands()}


@pytest.mark.parametrize("split_by", ["around_right", "opposite_right", "right", "jump_around_right"])
def test_a_template_is_tested_and_never_trained_on(split_by):
    train, test = published(split_by)
    phrase = split_by.replace("_", " ")
    pattern = re.compile(rf"\b{phrase}\b" if "jump" in phrase else rf"\b(walk|look|run|jump) {phrase}\b")
    turned = re.compile(rf"\bturn {phrase.removeprefix('jump ')}\b")
    assert all(pattern.search(text) for text, _ in test) and not any(pattern.search(text) for text, _ in train)
    left = {command for command, _ in commands()} - {text for text, _ in train + test}
    assert len(left) == 1_209 and all(turned.search(text) for text in left)
    assert not any(turned.search(text) for text, _ in train + test)


@pytest.mark.parametrize("split_by", COUNTS)
def test_validation_pairs_come_out_of_the_training_pairs(split_by):
    whole, test = published(split_by)
    dataset = Scan(split_by=split_by, valid_share=0.1)
    train, valid = ([(pair.text, pair.target) for pair in dataset.split(name)] for name in ("train", "valid"))
    assert sorted(train + valid) == sorted(whole) and not set(train) & set(valid)
    assert len(valid) == pytest.approx(0.1 * len(set(whole)), rel=0.1)
    assert [(pair.text, pair.target) for pair in dataset.split("test")] == test


def test_a_primitive_is_never_held_out():
    for split_by, primitive in (("addprim_jump", "jump"), ("addprim_turn_left", "turn left")):
        dataset = Scan(split_by=split_by, valid_share=0.9)
        assert primitive in {pair.text for pair in dataset.split("train")}


def test_a_split_without_commands_is_refused():
    with pytest.raises(DataError, match=r"no commands in the split 'valid'\. Set a larger scan\.valid_share"):
        Scan(valid_share=0.0).split("valid")
    with pytest.raises(DataError, match="no split 'dev'"):
        Scan().split("dev")


def test_what_is_known_is_what_is_there():
    dataset = Scan(split_by="length")
    known = dataset.known()
    assert {name: len(dataset.split(name)) for name in ("train", "valid", "test")} == {
        name: known[f"count/{name}"] for name in ("train", "valid", "test")
    }
    assert known["optimum/exact_match"] == 1
