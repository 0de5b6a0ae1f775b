"""Tests of the demo's page in headless Chromium: upload, phrases, threshold, downloads, painting, training."""

import json
import time
import zipfile
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import small
from demo_page import PROGRAMS, Page
from demo_process import needs_server
from demo_user import picture, png

import tunevlseg_jax as tv

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("demo page"),  # they go on from one another's state
    needs_server,
    pytest.mark.skipif(None in PROGRAMS.values(), reason=f"needs a browser and its driver: {PROGRAMS}"),
]


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
    page.wait("document.querySelectorAll('#examples li').length === 6")
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
    page.wait("['done', 'failed'].includes(document.querySelector('#training-message').dataset.state)", seconds=600)
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
