"""Sub-word algorithms as their papers write them down: slow, and sharing nothing with the library."""

import itertools
import re
import unicodedata


def byte_letters() -> list[str]:
    """The character that stands for each byte in GPT-2's files (its released encoder.py says how)."""
    letters, extra = [], 256
    for byte in range(256):
        if chr(byte).isprintable() and chr(byte) not in " \xa0\xad" and (byte < 127 or byte > 160):
            letters.append(chr(byte))
        else:
            letters.append(chr(extra))
            extra += 1
    return letters


def _kind(character: str) -> str:
    category = unicodedata.category(character)[0]
    if category in "LN":
        return category
    return "space" if re.fullmatch(r"\s", character) and character not in "\x1c\x1d\x1e\x1f" else "other"


def gpt2_words(text: str) -> list[str]:
    """GPT-2's division of a text, by hand: contractions; runs of one kind with the space before; white space."""
    words, i = [], 0
    while i < len(text):
        contraction = next((c for c in ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d") if text.startswith(c, i)), "")
        first = i + (text[i] == " " and i + 1 < len(text))
        if contraction:
            end = i + len(contraction)
        elif _kind(text[first]) != "space":
            end = first
            while end < len(text) and _kind(text[end]) == _kind(text[first]):
                end += 1
        else:
            end = i
            while end < len(text) and _kind(text[end]) == "space":
                end += 1
            if end < len(text) and end - i > 1:  # the last one goes with what follows
                end -= 1
        words.append(text[i:end])
        i = end
    return words


def bpe(word: str, ranks: dict[tuple[str, str], int]) -> list[str]:
    """Sennrich et al. 2016, algorithm 1, as it is used: the neighbours that were joined first are joined first."""
    letters = byte_letters()
    parts = [letters[byte] for byte in word.encode()]
    while len(parts) > 1:
        rank, place = min((ranks.get(pair, 1 << 60), i) for i, pair in enumerate(itertools.pairwise(parts)))
        if rank == 1 << 60:
            break
        pair, joined, i = (parts[place], parts[place + 1]), [], 0
        while i < len(parts):
            both = tuple(parts[i : i + 2]) == pair
            joined.append("".join(parts[i : i + 1 + both]))
            i += 1 + both
        parts = joined
    return parts


def wordpiece(word: str, known: set[str]) -> list[str]:
    """Wu et al. 2016, as BERT uses it: from the left, each time the longest piece that is known."""
    pieces, start = [], 0
    while start < len(word):
        mark = "##" if start else ""
        end = next((end for end in range(len(word), start, -1) if mark + word[start:end] in known), None)
        if end is None:
            return ["[UNK]"]
        pieces.append(mark + word[start:end])
        start = end
    return pieces


def basic_tokens(text: str, lower: bool) -> list[str]:
    """BERT's basic tokenisation of ASCII text: words and single signs of punctuation."""
    return re.findall(r"[A-Za-z0-9]+|[^A-Za-z0-9\s]", text.lower() if lower else text)


def best_division(word: str, scores: dict[str, float]) -> float:
    """The log probability of the most probable division (Viterbi), by trying the last piece in every length."""
    best = [0.0] + [float("-inf")] * len(word)
    for end in range(1, len(word) + 1):
        for start in range(end):
            if word[start:end] in scores:
                best[end] = max(best[end], best[start] + scores[word[start:end]])
    return best[-1]
