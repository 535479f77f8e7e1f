"""Messages of .po files: what msgfmt compiles and Python's own gettext reads back is what the dataset yields."""

import gettext
import shutil
import subprocess
from pathlib import Path

import pytest

from lmlab.data.datasets.gettext_files import Gettext
from lmlab.errors import DataError

WHOLE = {"valid_share": 0.0, "test_share": 0.0}

HEADER = r"""# Translators wrote this.
msgid ""
msgstr ""
"Content-Type: text/plain; charset=UTF-8\n"
"Plural-Forms: nplurals=3; plural=(n%10==1 && n%100!=11 ? 0 : n%10>=2 && "
"n%10<=4 && (n%100<10 || n%100>=20) ? 1 : 2);\n"
"""

RUSSIAN = (
    HEADER
    + r"""
#. A comment for translators
#: src/open.c:12
#, c-format
msgid "Cannot open \"%s\":\t%s\n"
msgstr "Не могу открыть «%s»:\t%s\n"

#, fuzzy, c-format
#| msgid "old"
msgid "new"
msgstr "старый"

msgid "untranslated"
msgstr ""

msgctxt "menu"
msgid "Open"
msgstr "Открыть"
msgctxt "state"
msgid "Open"
msgstr ""
"От"
"крыто"

msgid "%d file"
msgid_plural "%d files"
msgstr[0] "%d файл"
msgstr[1] "%d файла"
msgstr[2] "%d файлов"

#~ msgid "gone"
#~ msgstr "пропало"
"""
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pairs(dataset, split="train"):
    return [(pair.text, pair.target) for pair in dataset.split(split)]


def test_messages_plural_forms_and_contexts_are_pairs(folder):
    (folder / "ru.po").write_text(RUSSIAN)
    dataset = Gettext("ru.po", **WHOLE)
    assert pairs(dataset) == [
        ('Cannot open "%s":\t%s\n', "Не могу открыть «%s»:\t%s\n"),
        ("Open", "Открыть"),
        ("Open", "Открыто"),
        ("%d file", "%d файл"),
        ("%d files", "%d файла"),
        ("%d files", "%d файлов"),
    ]
    assert dataset.split("train")[0].source == "ru.po:11"


def test_what_is_not_a_finished_translation_is_left_out_and_counted(folder):
    (folder / "ru.po").write_text(RUSSIAN)
    dataset = Gettext("ru.po", **WHOLE)
    assert dataset.notes == {"fuzzy": 1.0, "obsolete": 1.0, "untranslated": 1.0}
    assert dataset.fingerprint()["left_out"] == dataset.notes


def test_a_language_without_plural_forms_translates_both_by_one(folder):
    header = HEADER.replace("nplurals=3; plural=(n%10==1 && n%100!=11 ? 0 : n%10>=2 && ", "nplurals=1; plural=0;")
    header = header.replace('"n%10<=4 && (n%100<10 || n%100>=20) ? 1 : 2);\\n"\n', '"\\n"\n')
    (folder / "ja.po").write_text(header + '\nmsgid "%d file"\nmsgid_plural "%d files"\nmsgstr[0] "%d ファイル"\n')
    assert pairs(Gettext("ja.po", **WHOLE)) == [("%d file", "%d ファイル"), ("%d files", "%d ファイル")]


def test_files_are_in_the_charset_that_they_name(folder):
    (folder / "ru.po").write_bytes(RUSSIAN.replace("UTF-8", "KOI8-R").replace("«%s»", "%s").encode("koi8-r"))
    assert ("Open", "Открыть") in pairs(Gettext("ru.po", **WHOLE))
    (folder / "x.po").write_text(RUSSIAN.replace("UTF-8", "no-such"))
    with pytest.raises(DataError, match=r"x\.po: its header names an unknown charset, no-such"):
        Gettext("x.po", **WHOLE).split("train")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ('msgid "a"\nmsgstr "b\n', "a.po:11: neither a keyword with a string nor a string that ends"),
        ('msgid "a"\nmsgstr "b" c\n', "a.po:11: neither a keyword"),
        ('msgid "a"\nmsgstr "b "c" d"\n', "a.po:11: neither a keyword"),
        ('msgid "a"\nmsgsrt "b"\n', "a.po:11: neither a keyword"),
        ('msgid "a\\q"\nmsgstr "b"\n', "a.po:10: the escape \\q is not known"),
        ('msgid "a"\n\nmsgid "c"\nmsgstr "d"\n', "a.po:10: a message without msgstr."),
        ('msgid "a"\nmsgid_plural "as"\nmsgstr "b"\n', "a.po:10: a message without msgstr[0]."),
        ('msgid "a"\nmsgstr "b"\nmsgstr "c"\n', "a.po:12: a second msgstr in one message."),
    ],
)
def test_what_msgfmt_refuses_is_named_or_dropped_and_counted(folder, entry, message):
    (folder / "a.po").write_text(HEADER + "\n\n\n" + entry + '\nmsgid "good"\nmsgstr "gut"\n')
    if program := shutil.which("msgfmt"):
        assert subprocess.run([program, "a.po", "-o", "a.mo"], capture_output=True).returncode
    with pytest.raises(DataError) as caught:
        Gettext("a.po", **WHOLE).split("train")
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)
    dataset = Gettext("a.po", malformed="drop", **WHOLE)
    assert pairs(dataset)[-1] == ("good", "gut") and dataset.notes == {"malformed": 1.0}


def test_a_byte_that_is_none_of_the_charset_is_named(folder):
    (folder / "a.po").write_bytes(HEADER.encode() + b'\n\nmsgid "a"\nmsgstr "caf\xe9"\n')
    with pytest.raises(DataError, match=r"^a\.po:10: byte 0xe9 is not UTF-8"):
        Gettext("a.po", **WHOLE).split("train")


def compiled(source: Path, folder: Path) -> gettext.GNUTranslations:
    """The file as msgfmt compiles it and Python's own gettext reads it."""
    subprocess.run(["msgfmt", source, "-o", folder / "compiled.mo"], check=True, capture_output=True)
    with (folder / "compiled.mo").open("rb") as file:
        return gettext.GNUTranslations(file)


def same_as_compiled(source: Path, folder: Path) -> int:
    """Checks that the pairs are those of the compiled file; gives their number."""
    ours, translations = set(pairs(Gettext(str(source), **WHOLE))), compiled(source, folder)
    catalogue = {key: target for key, target in translations._catalog.items() if key and target}
    numbered = {key: target for key, target in catalogue.items() if isinstance(key, tuple)}
    plain = {(key.rpartition("\x04")[2], target) for key, target in catalogue.items() if key not in numbered}
    singular = {(key[0], target) for key, target in numbered.items() if key[1] == translations.plural(1)}
    assert plain | singular <= ours
    assert {target for _, target in ours} == set(catalogue.values())
    return len(ours)


msgfmt = pytest.mark.skipif(shutil.which("msgfmt") is None, reason="msgfmt (GNU gettext) is not installed")


@msgfmt
def test_pairs_are_those_that_msgfmt_compiles(folder):
    (folder / "ru.po").write_text(RUSSIAN)
    assert same_as_compiled(folder / "ru.po", folder) == 6
    translations = compiled(folder / "ru.po", folder)
    for number in (2, 5):
        assert ("%d files", translations.ngettext("%d file", "%d files", number)) in pairs(Gettext("ru.po", **WHOLE))


@msgfmt
def test_the_catalogues_of_an_installed_library_are_read_as_msgfmt_reads_them(folder):
    humanize = pytest.importorskip("humanize", reason="its catalogues are read")
    files = sorted(Path(humanize.__file__).parent.glob("locale/*/LC_MESSAGES/*.po"))
    if not files:
        pytest.skip("this humanize was installed without the sources of its catalogues")
    assert sum(same_as_compiled(file, folder) for file in files) > 1_000
