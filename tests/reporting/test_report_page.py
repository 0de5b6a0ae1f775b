"""Tests of the report's page: what users named is inert, and in a real browser it works without any network."""

import dataclasses
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import fake_runs
import numpy as np
import pytest
import small

from tunevlseg_jax import train
from tunevlseg_jax.config import Config, Model, Optim, Train
from tunevlseg_jax.data.settings import Data
from tunevlseg_jax.learners import VPT, CoCoOp, CoOp, MaPLe, Projector, SharedAttention, SharedSeparate, ZeroShot
from tunevlseg_jax.reporting import cells, runs, tables
from tunevlseg_jax.reporting.figures.curves import curves
from tunevlseg_jax.reporting.output import page
from tunevlseg_jax.reporting.output.content import Content
from tunevlseg_jax.reporting.pictures import Picture
from tunevlseg_jax.reporting.runs import Skipped
from tunevlseg_jax.runs import trainer

NASTY = "</script><script>console.error('run')</script>"
PROGRAMS = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
)
needs_browser = pytest.mark.skipif(None in PROGRAMS.values(), reason=f"needs a browser and its driver: {PROGRAMS}")


def picture(number: int, dice: float) -> Picture:
    truth = np.zeros((48, 48), bool)
    truth[:, :24] = True
    predicted = {
        ("clipseg-tiny", "zero-shot"): np.zeros((48, 48), bool),
        ("clipseg-tiny", "CoOp"): np.roll(truth, number, axis=1),
    }
    image = np.full((48, 48, 3), 40 * number, np.uint8)
    scores = {("clipseg-tiny", "zero-shot"): 0.0, ("clipseg-tiny", "CoOp"): dice}
    return Picture(f"r{number}", "best", "seven" if number else NASTY, image, truth, predicted, scores)


@pytest.fixture(scope="module")
def content(tmp_path_factory) -> Content:
    folder = tmp_path_factory.mktemp("runs")
    for name, learner, data, dice in (
        ("a", CoOp(depth=1), "photos", 0.6),
        ("b", VPT(depth=1), "photos", 0.8),
        ("c", MaPLe(depth=2), "photos", 0.7),
        ("d", CoOp(depth=1), NASTY, 0.5),
    ):
        asked = fake_runs.config(learner=learner, data=Data(name=data))
        fake_runs.run(folder / name, asked, (dice / 2, dice), test=dice - 0.1)
    gathered, _ = runs.gather(folder)
    chosen = cells.choose(gathered)
    figure = curves({key: cell.runs[0] for key, cell in chosen.by_key.items()})
    assert figure is not None
    shown, untabled = tables.tables(chosen)
    samples = {"photos": [picture(number, number / 4) for number in range(4)], NASTY: [picture(1, 0.5)]}
    return Content(
        source="runs",
        cells=chosen,
        tables=shown,
        untabled=untabled,
        skipped=[Skipped(folder / "x", f"{NASTY} is cut off")],
        figures=[figure],
        undrawn=["Nothing else."],
        samples=samples,
    )


@pytest.mark.parametrize(
    "config",
    [
        Config(learner=VPT(depth=3, max_depth=5), optim=Optim(learning_rate=3.3e-5), workdir="a b"),
        Config(learner=CoCoOp(init_phrase=None, projector=Projector(kind="low_rank", hidden=(64,)))),
        Config(learner=SharedAttention(norm_first=False), train=Train(augment=False, order_seed=3), upsampling="add"),
        Config(
            learner=SharedSeparate(), data=Data(name="-<b>'x $y\"", full_stop=False), model=Model(image_size=(64, 32))
        ),
        Config(learner=MaPLe(), model=Model(checkpoint="cris-tiny", prompt_offset=1)),
        Config(train=Train(tune="decoder", epochs=3)),
    ],
)
def test_a_card_without_a_command_gives_one_that_trains_its_configuration_again(config, tmp_path, monkeypatch):
    fake_runs.run(tmp_path / "a b", config, (0.1,) * config.train.epochs)
    (run,), _ = runs.gather(tmp_path)
    line = page.command(run)
    assert line is not None
    words = shlex.split(line)
    assert words[:3] == ["python", "-m", "tunevlseg_jax.train"]
    trained = []
    monkeypatch.setattr(trainer, "train", lambda config, *_, command, **__: trained.append((config, command)))
    small.run(monkeypatch, train.main, *words[3:])
    assert trained == [(dataclasses.replace(config, workdir=f"{tmp_path / 'a b'}-again"), line)]


def test_the_command_of_a_card_is_shown(tmp_path):
    path = fake_runs.run(tmp_path / "run", fake_runs.config()) / "card.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"command": "python x.py"}), "utf-8")
    (run,), _ = runs.gather(tmp_path)
    assert page.command(run) == "python x.py"


def test_no_command_trains_the_model_as_it_is(tmp_path):
    fake_runs.run(tmp_path / "run", fake_runs.config(learner=ZeroShot(), upsampling="none"), (0.4,))
    (run,), _ = runs.gather(tmp_path)
    assert page.command(run) is None


def test_what_users_named_is_text_and_nothing_else(content):
    html = page.render(content)
    assert "<script>console" not in html and html.count("<script") == html.count("</script>") == 2
    assert "&lt;/script&gt;&lt;script&gt;console.error(&#39;run&#39;)" in html
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert json.loads(data)["sets"][NASTY][0]["id"] == "r1"
    assert not re.search(r'(?:src|href)="(?!data:|#)', html), "nothing is fetched from anywhere"


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator:
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = PROGRAMS["chromium"]
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(PROGRAMS["chromedriver"]))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def opened(browser, content, tmp_path_factory):
    """The page in the browser, on a wide screen; its tests go on from one another's state."""
    path: Path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page.render(content), "utf-8")
    browser.set_window_size(1280, 900)
    browser.get(path.as_uri())
    return browser


def texts(browser, selector: str) -> list[str]:
    return browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map((element) => element.textContent)", selector
    )


def click(browser, selector: str) -> None:
    browser.find_element("css selector", selector).click()


@needs_browser
def test_tables_are_sorted_by_their_headers(opened):
    column = "#run-table th:nth-child(5)"
    cells = "#run-table tbody td:nth-child(5)"
    click(opened, f"{column} button")
    assert texts(opened, cells) == ["0.8000", "0.7000", "0.6000", "0.5000"]
    assert opened.find_element("css selector", column).get_attribute("aria-sort") == "descending"
    opened.switch_to.active_element.send_keys(" ")
    assert texts(opened, cells) == ["0.5000", "0.6000", "0.7000", "0.8000"], "by the keyboard as well"
    assert texts(opened, "#run-table th[aria-sort=ascending]") == ["val Dice"]
    first = "#tables > .scroll:first-of-type"
    labels = texts(opened, f"{first} tbody th:nth-child(2)")
    click(opened, f"{first} thead tr:last-child th:nth-child(2) button")
    assert texts(opened, f"{first} tbody th:nth-child(2)") == sorted(labels)


@needs_browser
def test_masks_are_toggled_and_records_sorted(opened):
    assert texts(opened, "#cards strong") == ["Dice 0.000"] * 4, "the first combination is the model as it is"
    opened.execute_script(
        "const { who } = browser.elements; who.value = 'CoOp, clipseg-tiny';"
        "who.dispatchEvent(new Event('change', { bubbles: true }))"
    )
    assert texts(opened, "#cards strong") == ["Dice 0.750", "Dice 0.500", "Dice 0.250", "Dice 0.000"]

    def shown() -> list[bool]:
        layers = [opened.find_element("css selector", f"#cards .{name}") for name in ("truth", "predicted")]
        return [layer.is_displayed() for layer in layers]

    assert shown() == [True, True]
    click(opened, "#browser [name=truth]")
    assert shown() == [False, True]
    click(opened, "#browser [name=predicted]")
    assert shown() == [False, False]
    sizes = opened.execute_script(
        "return [...document.querySelectorAll('#cards img')].map((image) => image.naturalWidth)"
    )
    assert set(sizes) == {48}, "every picture is one that the browser can draw"


@needs_browser
def test_a_dialog_shows_the_command_of_a_run(opened):
    click(opened, "#run-table button.how")
    assert texts(opened, "#how-command pre")[0].startswith("python -m tunevlseg_jax.train --config /")
    assert "data.name" in texts(opened, "#how tbody th")
    assert texts(opened, "#how-folder")[0].endswith("/d"), "the first row, as the table is sorted"
    click(opened, "#how form button")
    assert not opened.find_element("css selector", "#how").is_displayed()


@needs_browser
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_is_never_wider_than_the_screen(width, opened):
    metrics = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    assert opened.execute_script("return document.documentElement.scrollWidth") <= width
    opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@needs_browser
def test_there_were_no_errors_and_nothing_was_fetched(opened):
    """Last: over all that the tests before it did."""
    assert opened.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
    urls = [params["request"]["url"] for params in sent if params["documentURL"] == opened.current_url]
    assert opened.current_url in urls
    assert {url.split(":")[0] for url in urls if url != opened.current_url} == {"data"}
