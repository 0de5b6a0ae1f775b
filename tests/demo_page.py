"""Drives the demo's page in headless Chromium."""

import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from demo_user import picture, png

PROGRAMS = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
)


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
