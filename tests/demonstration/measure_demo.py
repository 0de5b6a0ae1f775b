"""Measures the demo on the embedded model: PYTHONPATH=.:tests python tests/demonstration/measure_demo.py [--run RUN].

It prints the seconds from start to the first mask of a photograph and of later ones, the milliseconds of a move of the
threshold in Chromium, and what 20 users at once get in a minute.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import cv2
import numpy as np
from demo_page import Page
from demo_user import User

MOVES = 40


def photograph() -> bytes:
    """A JPEG of 1500 x 2000 pixels: smooth shapes and noise."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (12, 16, 3)).astype(np.uint8)
    image = cv2.resize(small, (2000, 1500), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    image += rng.integers(-12, 12, image.shape)
    return cv2.imencode(".jpg", np.clip(image, 0, 255).astype(np.uint8))[1].tobytes()


def memory(process: int) -> float:
    """MiB of a process."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def latency(address: str, start: float) -> None:
    """Asks for one mask after another, and prints the seconds, those of the first since the start of the process."""
    ready = time.monotonic() - start
    data, user, times = photograph(), User(address), []
    for phrase in ("seven", *["seven", "a handwritten digit"] * 10):
        begin = time.monotonic()
        user.json("POST", "/segment", data, phrase=phrase)
        times.append(time.monotonic() - begin)
    print(f"start to ready {ready:.2f} s; first mask {times[0]:.2f} s later, in all {ready + times[0]:.2f} s")
    print(f"later masks: median {statistics.median(times[1:]):.3f} s, longest {max(times[1:]):.3f} s", flush=True)


def load(address: str, process: int, users: int, seconds: float) -> None:
    """Lets users ask one request after another, and prints how many were answered, lost, and the memory."""
    data, times, lost = photograph(), list[float](), list[str]()
    end = time.monotonic() + seconds

    def ask() -> None:
        user = User(address)
        while (start := time.monotonic()) < end:
            try:
                user.json("POST", "/segment", data, phrase="seven")
                times.append(time.monotonic() - start)
            except Exception as error:
                lost.append(repr(error))

    threads = [threading.Thread(target=ask) for _ in range(users)]
    for thread in threads:
        thread.start()
    sizes = []
    while any(thread.is_alive() for thread in threads):
        sizes.append(memory(process))
        time.sleep(1)
    print(f"{users} users for {seconds:.0f} s: {len(times)} answers, {len(lost)} lost {lost[:1]}")
    print(f"  seconds of an answer: median {statistics.median(times):.2f}, longest {max(times):.2f}")
    tenth = max(1, len(sizes) // 10)
    print(f"  MiB: {sizes[0]:.0f} at first, then {sizes[tenth]:.0f} {sizes[len(sizes) // 2]:.0f} {sizes[-1]:.0f}")


def threshold(address: str) -> None:
    """Moves the threshold in the browser, and prints how long drawing all masks took."""
    folder = Path(tempfile.mkdtemp())
    page = Page(address, folder)
    page.choose("photo.jpg", photograph())
    page.ask("seven, two")
    for move in range(MOVES):
        page.set_threshold(1 + 97 * move // MOVES)
    spans = page.run("return performance.getEntriesByName('threshold', 'measure').map((one) => one.duration)")
    panels = len(page.texts(".panel"))
    size = page.run("const {width, height} = document.querySelector('.panel canvas'); return `${width}x${height}`")
    page.driver.quit()
    spans = spans[-MOVES:]
    print(
        f"threshold, {panels} models at {size}: median {statistics.median(spans):.1f} ms, longest {max(spans):.1f} ms"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", nargs="*", default=[])
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--no-browser", action="store_true")
    options = parser.parse_args()
    print(f"load average {os.getloadavg()[0]:.1f}")
    start = time.monotonic()
    command = [sys.executable, "-m", "tunevlseg_jax.demo", "--output", tempfile.mkdtemp()]
    command += ["--run", *options.run] if options.run else []
    process = subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8")
    try:
        assert process.stdout is not None
        address = process.stdout.readline().rsplit(": ", 1)[1].strip().rstrip("/")
        latency(address, start)
        if not options.no_browser:
            threshold(address)
        load(address, process.pid, options.users, options.seconds)
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()
