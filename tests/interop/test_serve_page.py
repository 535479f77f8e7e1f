"""The page of `lmlab serve` in a headless Chromium: typing, pressing the button, reading what appears."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lmlab.generation.decoding import Decoder
from lmlab.generation.samplers import Greedy
from tests.interop.chromium import Page, installed
from tests.interop.conftest import END, Small, eventually

HOSTILE = "<img src=x onerror=\"document.title='run'\"><b>é</b>"


@pytest.fixture
def page(small: Small, tmp_path: Path) -> Iterator[Page]:
    browser = installed()
    if browser is None:
        pytest.skip("no Chromium is installed (apt install chromium)")
    found = Page(browser, tmp_path)
    found.call("Page.navigate", url=small.url)
    found.wait("document.getElementById('model')?.textContent === 'small'")
    try:
        yield found
    finally:
        small.go_on.set()
        found.close()


def test_a_prompt_is_continued_while_one_looks_on(small: Small, page: Page) -> None:
    prompt = np.frombuffer(HOSTILE.encode(), np.uint8).astype(np.int32)
    (ids,) = Decoder(small.slots.model, Greedy(), end_of_text=END).complete(small.params, [prompt], length=23)
    wanted = HOSTILE + bytes(ids.tolist()).decode(errors="replace")
    page.value("document.getElementById('chat').checked = false")
    for field, value in {"max_tokens": "23", "temperature": "0", "prompt": HOSTILE}.items():
        page.fill(field, value)
    small.go_on.clear()
    page.click("write")
    page.wait("!document.getElementById('stop').disabled")
    begun = page.text("text")
    assert wanted.startswith(begun) and begun.startswith(HOSTILE) and begun != wanted
    small.go_on.set()
    page.wait("document.getElementById('stop').disabled")
    assert (page.text("text"), page.text("status")) == (wanted, f"{len(ids)} tokens")
    assert page.value("document.querySelectorAll('#text *').length") == 0 and page.value("document.title") == "lmlab"
    assert page.problems == []


def test_a_text_is_stopped_and_what_is_refused_is_said(small: Small, page: Page) -> None:
    small.go_on.clear()
    page.fill("prompt", "hi")
    page.click("write")  # as a conversation: the model has a template
    page.wait("!document.getElementById('stop').disabled")
    eventually(lambda: small.engine.load == (1, 0))
    (request,) = small.engine._held
    page.click("stop")
    page.wait("document.getElementById('status').textContent === 'stopped'")
    eventually(lambda: request.cancelled)
    small.go_on.set()
    page.value("document.getElementById('form').noValidate = true")
    page.fill("max_tokens", "100000")
    page.click("write")
    page.wait("document.getElementById('status').textContent.includes('96 tokens at most')")
