"""Tests of the demo's page in headless Chromium: upload, phrases, threshold, downloads, painting, training."""

import json
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import small
from demo_process import needs_gradio, picture, png

import tunevlseg_jax as tv

PROGRAMS = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("demo page"),  # they go on from one another's state
    needs_gradio,
    pytest.mark.skipif(None in PROGRAMS.values(), reason=f"needs a browser and its driver: {PROGRAMS}"),
]


class Page:
    """The page in a browser of its own."""

    def __init__(self, address: str, folder: Path):
        webdriver = pytest.importorskip("selenium.webdriver")
        options = webdriver.ChromeOptions()
        options.binary_location = PROGRAMS["chromium"]
        for flag in (*FLAGS, f"--user-data-dir={folder / 'profile'}"):
            options.add_argument(flag)
        options.add_experimental_option("prefs", {"download.default_directory": str(folder / "downloads")})
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options, webdriver.ChromeService(PROGRAMS["chromedriver"]))
        self.driver.set_window_size(1280, 900)
        self.address, self.folder = address, folder
        self.open()

    def open(self) -> None:
        self.driver.get(self.address)
        self.wait("document.body.dataset.ready")

    def run(self, script: str, *arguments):
        return self.driver.execute_script(script, *arguments)

    def wait(self, expression: str, seconds: float = 120):
        """The value of an expression as soon as it is one."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if value := self.run(f"return {expression}"):
                return value
            time.sleep(0.05)
        raise AssertionError(f"{expression} doesn't come; the page says {self.message()!r}")

    def find(self, selector: str):
        return self.driver.find_element("css selector", selector)

    def texts(self, selector: str) -> list[str]:
        return self.run("return [...document.querySelectorAll(arguments[0])].map((one) => one.textContent)", selector)

    def message(self) -> str:
        return self.run("return document.querySelector('#message').textContent")

    def choose(self, name: str, data: bytes) -> None:
        path = self.folder / name
        path.write_bytes(data)
        self.find("#file").send_keys(str(path))

    def ask(self, phrases: str) -> None:
        """Writes the phrases and presses Enter, and waits for the masks."""
        self.wait("document.querySelector('#panels').getAttribute('aria-busy') !== 'true'")  # of a new image
        self.run("document.querySelector('#panels').replaceChildren()")
        self.find("#phrases").clear()
        self.find("#phrases").send_keys(phrases + "\n")
        self.wait("document.querySelectorAll('.panel').length")

    def set_threshold(self, percent: int) -> None:
        self.run(
            "const slider = document.querySelector('#threshold'); slider.value = arguments[0];"
            "slider.dispatchEvent(new Event('input'))",
            percent,
        )

    def marked(self, panel: int) -> np.ndarray:
        """(height, width) bool, the tinted pixels of a panel."""
        width, height, alphas = self.run(
            "const canvas = document.querySelectorAll('.panel canvas')[arguments[0]];"
            "const {width, height} = canvas;"
            "const data = canvas.getContext('2d').getImageData(0, 0, width, height).data;"
            "return [width, height, [...data.filter((_, at) => at % 4 === 3)]]",
            panel,
        )
        return np.asarray(alphas).reshape(height, width) > 0

    def correct(self, seed: int) -> None:
        """Clears a mask, and paints one point by the keyboard."""
        self.choose(f"image{seed}.png", png(picture(seed)))
        self.ask("blob")
        count = len(self.texts("#corrections li"))
        self.find(".panel .correct").click()
        self.find("#clear").click()
        self.find("#paint").send_keys("+ ")
        self.find("#keep").click()
        self.wait(f"document.querySelectorAll('#corrections li').length > {count}")


@pytest.fixture(scope="module")
def users(tmp_path_factory, address) -> Iterator[Callable[[], Page]]:
    """Opens the page as another user."""
    pages: list[Page] = []

    def another() -> Page:
        pages.append(Page(address, tmp_path_factory.mktemp("user")))
        return pages[-1]

    yield another
    for page in pages:
        page.driver.quit()


@pytest.fixture(scope="module")
def page(users) -> Page:
    """The first user's page; the tests go on from one another's state."""
    return users()


def test_an_image_and_phrases_give_the_masks_of_all_models(page):
    page.choose("scan.png", png(picture(1)))
    page.ask("seven, two")
    assert page.texts(".panel .name") == ["zero-shot", "run"]
    assert page.texts(".panel .phrase") == ["seven", "two", "seven", "two"]
    highest = tv.load_run(small.finished()).probabilities(picture(1), "two").max()
    assert page.texts(".confidence span")[3] == f"probability up to {round(100 * float(highest))} %"


def test_the_threshold_moves_in_the_browser_alone(page):
    run = tv.load_run(small.finished())
    probability = run.probabilities(picture(1), "seven")
    page.ask("seven")
    requests = page.run("return performance.getEntriesByType('resource').length")
    for percent in sorted({1, 50, int(100 * np.median(probability)), int(100 * probability.max())} - {0}):
        page.set_threshold(percent)
        mask = run.predict(picture(1), "seven", threshold=percent / 100)
        assert np.array_equal(page.marked(1), mask)
        area = page.texts(".panel .area")[1]
        assert area == "not found" if not mask.any() else f"{mask.sum():,} pixels" in area
    assert page.run("return performance.getEntriesByType('resource').length") == requests
    assert page.run("return performance.getEntriesByName('threshold', 'measure').length") > 1


def test_the_keyboard_moves_the_threshold_and_hides_masks(page):
    before = page.texts("#threshold-value")
    page.find("#threshold").send_keys("\ue012")  # the left arrow
    assert page.texts("#threshold-value") != before
    page.find("#show-masks").send_keys(" ")
    assert not page.find(".panel canvas").is_displayed()
    page.find("#show-masks").send_keys(" ")
    assert page.find(".panel canvas").is_displayed()


def test_a_download_is_a_zip_of_every_model(page):
    page.find("#download").click()
    path = page.folder / "downloads/scan_masks.zip"
    for _ in range(300):
        if path.exists():
            break
        time.sleep(0.1)
    with zipfile.ZipFile(path) as file:
        names = file.namelist()
    assert {"1_zero-shot/scan_mask.png", "2_run/scan_mask.png", "2_run/predictions.coco.json"} <= set(names)


def test_a_broken_file_is_named_and_the_page_goes_on(page):
    page.choose("broken.png", png(picture(1))[:100])
    page.wait("!document.querySelector('#message').hidden")
    assert page.message().startswith("Can't decode the image")
    page.choose("scan.png", png(picture(1)))
    page.ask("seven")
    assert page.run("return document.querySelector('#message').hidden")


def test_an_example_is_found_by_a_click(page):
    assert len(page.texts("#examples li")) == 6
    page.run("document.querySelector('#panels').replaceChildren()")
    page.find("#examples button").click()
    page.wait("document.querySelectorAll('.panel').length")
    assert page.run("return document.querySelector('#phrases').value")


def test_two_users_at_once_see_their_own_images(page, users):
    other = users()
    page.choose("one.png", png(picture(5, (48, 48))))
    other.choose("two.png", png(picture(6, (96, 48))))
    for each in (page, other):
        each.find("#phrases").clear()
        each.find("#phrases").send_keys("nine\n")
    for each, height in ((page, 48), (other, 96)):
        each.wait(f"document.querySelector('.panel img')?.naturalHeight === {height}")
    page.correct(5)
    other.open()
    assert other.texts("#corrections li") == [] and len(page.texts("#corrections li")) == 1


def test_corrections_are_painted_and_learnt(page):
    page.correct(7)
    page.run("document.querySelector('#epochs').value = 2")
    page.find("#train").click()
    page.wait("['done', 'failed'].includes(document.querySelector('#training-message').dataset.state)")
    assert page.texts("#training-message")[0].startswith("Trained: the run is in ")
    page.wait("document.querySelectorAll('.panel').length === 3")
    assert page.texts(".panel .name") == ["zero-shot", "run", "yours 1"]
    page.open()
    assert len(page.texts("#corrections li")) == 2, "they are there after a reload"


def test_it_fits_a_phone_in_dark_and_light(page):
    page.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    )
    colours = set()
    for scheme in ("dark", "light"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        assert page.run("return document.scrollingElement.scrollWidth") <= 360
        colours.add(page.run("return getComputedStyle(document.body).backgroundColor"))
    assert len(colours) == 2


def test_the_browser_reports_no_error(page):
    lines = [line for line in page.driver.get_log("browser") if line["level"] == "SEVERE"]
    wrong = [line for line in lines if "400 (Bad Request)" not in line["message"]]  # of the broken file
    assert not wrong, json.dumps(wrong, indent=1)
