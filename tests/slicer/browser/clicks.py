"""Runs in the browser environment: starts view.py, clicks through it in chromium, saves pictures, prints what was said as JSON.

python clicks.py CHROMIUM PICTURES [arguments of view.py]
"""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright

CLICKS = ("show-cbf", "show-att", "color-CV", "color-LAT")
PATIENCE = 120.0  # s until the page is served; the first import of VTK is slow


def main() -> int:
    chromium, pictures, *arguments = sys.argv[1:]
    Path(pictures).mkdir(parents=True, exist_ok=True)
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    view = Path(__file__).with_name("view.py")
    server = subprocess.Popen([sys.executable, str(view), *arguments, "--server", "--port", str(port)], start_new_session=True, stdout=2)
    try:
        print(json.dumps(click_through(chromium, port, Path(pictures), server)))
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(20)
    return 0


def click_through(chromium: str, port: int, pictures: Path, server: subprocess.Popen) -> dict[str, object]:
    said: dict[str, object] = {}
    changed: dict[str, float] = {}
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        wait_for(port, server)
        page.goto(f"http://127.0.0.1:{port}/", timeout=PATIENCE * 1000)
        page.wait_for_selector(f"#{CLICKS[0]}", timeout=PATIENCE * 1000)
        before = settled(page)
        for button in CLICKS:
            words = page.inner_text("#said")
            page.click(f"#{button}")
            page.wait_for_function("words => document.querySelector('#said').innerText !== words", arg=words, timeout=PATIENCE * 1000)
            after = settled(page)
            said[button] = page.inner_text("#said")
            changed[button] = float((np.abs(after.astype(int) - before).max(axis=2) > 16).mean())
            Image.fromarray(after).save(pictures / f"{button}.png")
            before = after
        browser.close()
    return said | {"changed": changed}


def wait_for(port: int, server: subprocess.Popen) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if server.poll() is not None:
            raise SystemExit(f"the viewer ended with code {server.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
            return
        except OSError:
            time.sleep(0.5)
    raise SystemExit("the viewer does not answer")


def settled(page) -> np.ndarray:
    """The page's picture once two in a row are alike: rendering goes on after the click."""
    last = shot(page)
    for _ in range(20):
        page.wait_for_timeout(1500)
        now = shot(page)
        if (now == last).mean() > 0.999:
            return now
        last = now
    return last


def shot(page) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))


if __name__ == "__main__":
    sys.exit(main())
