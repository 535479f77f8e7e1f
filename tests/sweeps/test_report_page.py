"""The HTML page, looked at in a headless browser: it draws everything, complains of nothing, and asks for nothing."""

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lmlab.cli.main import main
from lmlab.sweeps.figures import pictures
from lmlab.sweeps.report import make_report
from lmlab.sweeps.results import read_results
from tests.sweeps.sweep_folder import make_sweep, trial_id

NASTY = "'<b>bold</b>&amp;<img src=x onerror=alert(1)></script><script>throw Error(1)</script>%{x}$a$'"
GRID = [{"sgd.rate": rate, "text.mark": mark} for rate in ("0.1", "0.2") for mark in ("'plain'", NASTY)]
FAILED = {trial_id(GRID[3], 0): "nan", trial_id(GRID[3], 1): "oom", trial_id(GRID[2], 2): "pending"}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    pytest.importorskip("plotly", reason="the page is drawn by plotly (the extra 'report')")
    folder = tmp_path_factory.mktemp("pages") / "nasty"
    luck = (0.0, 0.3, -0.2, 0.11, 0.05)

    def value(settings, seed):
        return (
            2
            + luck[seed]
            + float(settings["sgd.rate"]) * (1 + seed / 5)
            + luck[-seed] * (settings["text.mark"] == NASTY)
        )

    make_sweep(folder, GRID, range(5), value, baseline=GRID[0], statuses=FAILED, name=NASTY)
    assert main(["report", str(folder), "--format", "html"]) == 0
    return folder


@pytest.fixture(scope="module")
def look(tmp_path_factory):
    """Opens a page; gives its DOM after its scripts have run, what was said on the console, and what was asked for."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    browser = next((path for path in map(shutil.which, names) if path), None)
    if browser is None:
        pytest.skip("no Chromium here to look at the page with (apt install chromium)")

    def looked_at(page: Path) -> tuple[str, list[str], list[str]]:
        folder = tmp_path_factory.mktemp("browser")
        command = [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--enable-logging=stderr",
            "--host-resolver-rules=MAP * ~NOTFOUND",  # whatever the browser itself would like to ask
            f"--user-data-dir={folder}", f"--log-net-log={folder / 'net.json'}", "--virtual-time-budget=10000",
            "--dump-dom", page.as_uri(),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        said = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
        return done.stdout, said, requests_of_a_page(folder / "net.json")

    return looked_at


def requests_of_a_page(log: Path) -> list[str]:
    """Addresses that a page opened from a file (whose origin is `null`) asked for, by Chromium's log of its network."""
    asked = []
    for line in log.read_text(errors="replace").splitlines():
        try:
            event = json.loads(line.rstrip(","))
        except ValueError:
            continue
        about = event.get("params", {}) if isinstance(event, dict) else {}
        if isinstance(about, dict) and about.get("initiator") == "null":
            asked.append(about["url"])
    return asked


class Elements(HTMLParser):
    """Counts elements, and gathers what the page shows as text."""

    def __init__(self, page):
        super().__init__()
        self.count, self.texts = {}, []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.count[tag] = self.count.get(tag, 0) + 1

    def handle_data(self, data):
        self.texts.append(data)


def figures_of(page: str):
    return json.loads(re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, re.DOTALL)[1])


def test_every_picture_is_a_figure_as_plotly_knows_it(sweep):
    """plotly's own Python classes refuse a property or value that plotly.js has not."""
    graph_objects = pytest.importorskip("plotly.graph_objects")
    drawn = pictures(make_report(read_results(sweep)))
    titles = [picture.title for picture in drawn]
    assert titles == [
        "Learning curves: valid/nats_per_token", "Learning curves: train/loss", "Paired differences from the baseline",
        "Main effect of sgd.rate", "Main effect of text.mark", "Parallel coordinates", "Cost of each trial",
    ]  # fmt: skip
    for picture in drawn:
        graph_objects.Figure(picture.figure)


def test_the_curves_are_the_means_over_seeds_with_their_bands(sweep):
    report = make_report(read_results(sweep))
    best = report.variants[0]
    band, line = pictures(report)[0].figure["data"][:2]
    assert line["x"] == [5, 10, 15, 20] and line["y"][-1] == pytest.approx(best.mean.value)
    margin = best.mean.margin
    assert band["y"][3:5] == pytest.approx([best.mean.value + margin, best.mean.value - margin])


def test_the_page_holds_everything_and_no_text_becomes_a_tag(sweep):
    page = (sweep / "report.html").read_text()
    assert not re.search(r"<(script|img|link|iframe)[^>]*\b(src|href)\s*=", page.split("<script>", 1)[0])
    found = Elements(page.split('<script type="application/json"', 1)[0])
    assert not {"b", "img", "script"} & found.count.keys()
    assert any(NASTY in text for text in found.texts)
    assert len(figures_of(page)) == 7
    texts = json.dumps(figures_of(page))
    assert html.escape(NASTY, quote=False)[1:20] in texts and "<b>" not in texts and "<img" not in texts


def test_a_browser_draws_it_without_an_error_and_asks_for_nothing(sweep, look):
    dom, said, asked = look(sweep / "report.html")
    assert said == [] and asked == []
    drawn = re.findall(r'<div id="figure\d+" class="js-plotly-plot"', dom)
    assert len(drawn) == 7
    body = dom.split('<script type="application/json"', 1)[0]
    assert len(re.findall(r'class="main-svg"', body)) >= 2 * 7
    found = Elements(body)
    assert not {"b", "img"} & found.count.keys()
    assert sum("<b>bold</b>" in text for text in found.texts) > 20  # as text, in tables and in pictures
    assert "it ended as oom" in body


def test_the_browser_would_have_told(tmp_path, look):
    """An error, and a picture from elsewhere, do not escape this way of looking."""
    page = tmp_path / "planted.html"
    page.write_text("<img src='http://127.0.0.1:9/planted.png'><script>throw Error('planted')</script>")
    _, said, asked = look(page)
    assert any("planted" in line for line in said) and "http://127.0.0.1:9/planted.png" in asked


def test_without_plotly_there_is_one_line_that_says_how_to_get_it(sweep, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "plotly.offline", None)
    monkeypatch.setitem(__import__("sys").modules, "plotly", None)
    assert main(["report", str(sweep), "--format", "html"]) == 2
    assert "pip install 'lmlab[report]'" in capsys.readouterr().err
