"""The one file in a browser: examples/web captions a photograph in Chromium, all by itself."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
cv2 = pytest.importorskip("cv2")
data = pytest.importorskip("skimage.data")
webdriver = pytest.importorskip("selenium.webdriver", reason="no selenium to drive a browser")

from edgecap.export.single_file import SingleFileOptions, write_single_file  # noqa: E402
from edgecap.models import bundled  # noqa: E402
from edgecap.runtime.bundle import read_bundle  # noqa: E402
from edgecap.runtime.captioner import Captioner  # noqa: E402

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "web"
PAGE = ("index.html", "caption.js", "style.css")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if CHROMIUM is None or DRIVER is None:
    pytest.skip("no chromium and chromedriver on this machine", allow_module_level=True)
if not (EXAMPLE / "ort").is_dir():
    pytest.skip(
        "no onnxruntime-web: npm install --ignore-scripts and npm run copy in examples/web",
        allow_module_level=True,
    )
if "default" not in bundled():
    pytest.skip("this checkout has no default model", allow_module_level=True)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *words: Any) -> None:
        self.server.seen.append((self.command, self.path))  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ThreadingHTTPServer]:
    """The page as its documentation sets it up, served from this machine."""
    folder = tmp_path_factory.mktemp("site")
    for name in PAGE:
        shutil.copy(EXAMPLE / name, folder)
    shutil.copytree(EXAMPLE / "ort", folder / "ort")
    bundle = read_bundle(bundled()["default"])
    write_single_file(bundle, folder / "caption.onnx", SingleFileOptions())
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    server.seen = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def browser(site: ThreadingHTTPServer) -> Iterator[Any]:
    """A small screen with the page loaded and its model ready."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    try:
        driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": 360, "height": 640, "deviceScaleFactor": 2, "mobile": True},
        )
        driver.get(f"http://127.0.0.1:{site.server_port}/index.html")
        says(driver, "Ready.")
        yield driver
    finally:
        driver.quit()


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("photographs")
    paths = {name: folder / f"{name}.jpg" for name in ("cat", "astronaut")}
    for name, path in paths.items():
        cv2.imwrite(str(path), getattr(data, name)()[..., ::-1])
    return paths


def says(driver: Any, *texts: str) -> str:
    """Wait until the page says one of ``texts``, or anything else than its own words."""
    from selenium.webdriver.support.ui import WebDriverWait

    waiting = ("Loading the model…", "Looking…", "Ready.")

    def look(driver: Any) -> str | None:
        text = driver.find_element("id", "caption").text
        return text if (text in texts if texts else text not in waiting) else None

    found: str = WebDriverWait(driver, 120).until(look)
    return found


def check_caption(driver: Any, text: str) -> None:
    """``text`` is what ``Captioner`` says of the very pixels that the canvas made."""
    captioner = Captioner(bundled()["default"], threads=1)
    size = captioner.image_size
    pixels, tokens, score = driver.execute_script(
        "const {pixels, outputs} = globalThis.edgecap;"
        "return [Array.from(pixels), Array.from(outputs.tokens.data, Number),"
        " outputs.score.data[0]];"
    )
    picture = np.array(pixels, np.uint8).reshape(size, size, 3)
    expected = captioner.decode(captioner.engine.encode(picture[None]))[0]
    assert text == str(expected)
    assert tuple(tokens[: len(expected.tokens)]) == expected.tokens
    # WebAssembly has kernels of its own: the int8 encoder rounds a little differently.
    assert score == pytest.approx(expected.score, abs=5e-3)


def test_a_chosen_photograph_has_the_captioners_caption(
    browser: Any, photographs: dict[str, Path]
) -> None:
    browser.find_element("id", "file").send_keys(str(photographs["cat"]))
    text = says(browser)
    check_caption(browser, text)
    assert browser.find_element("id", "preview").get_attribute("alt") in text


def test_a_dropped_photograph_too(browser: Any, photographs: dict[str, Path]) -> None:
    before = browser.find_element("id", "caption").text
    browser.execute_async_script(
        """
        const [bytes, done] = arguments;
        const files = new DataTransfer();
        files.items.add(new File([Uint8Array.from(bytes)], 'dropped.jpg', {type: 'image/jpeg'}));
        globalThis.edgecap = {pixels: null, outputs: null};
        const event = new DragEvent('drop', {dataTransfer: files, bubbles: true, cancelable: true});
        const kept = document.getElementById('drop').dispatchEvent(event);
        const wait = () => globalThis.edgecap.outputs ? done(kept) : setTimeout(wait, 20);
        wait();
        """,
        list(photographs["astronaut"].read_bytes()),
    )
    text = says(browser)
    assert text != before
    check_caption(browser, text)


def test_what_is_no_picture_is_said(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    browser.find_element("id", "file").send_keys(str(tmp_path / "notes.txt"))
    says(browser, "notes.txt is no picture that this browser can read.")


def test_keyboard_screen_reader_and_small_screen(browser: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    caption = browser.find_element("id", "caption")
    assert caption.get_attribute("aria-live") == "polite"
    assert browser.find_element("id", "file").accessible_name.startswith("Choose a picture")
    browser.execute_script("document.activeElement.blur()")
    browser.find_element("tag name", "body").send_keys(Keys.TAB)
    assert browser.switch_to.active_element.get_attribute("id") == "file"
    width, screen = browser.execute_script(
        "return [document.documentElement.scrollWidth, innerWidth]"
    )
    assert (width, screen) == (360, 360)


def test_nothing_leaves_the_page(browser: Any, site: ThreadingHTTPServer) -> None:
    """Last: every request of the tests above went to the local server, to read the page's files."""
    origin = f"http://127.0.0.1:{site.server_port}/"
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [
        message["params"]["request"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
    outside = [r["url"] for r in asked if not r["url"].startswith((origin, "blob:", "data:"))]
    assert outside == []
    assert origin + "caption.onnx" in [request["url"] for request in asked]
    assert {request["method"] for request in asked} == {"GET"}
    assert {command for command, _ in site.seen} == {"GET"}  # type: ignore[attr-defined]
    files = {path for _, path in site.seen}  # type: ignore[attr-defined]
    ours = {f"/{name}" for name in (*PAGE, "caption.onnx")}
    assert {path for path in files if not path.startswith("/ort/")} == ours
    blocked = browser.execute_async_script(
        "fetch('http://127.0.0.2:9/').then(() => arguments[0]('sent'),"
        " (error) => arguments[0](error.message));"
    )
    assert "fetch" in blocked.lower()
    complaints = [entry["message"] for entry in browser.get_log("browser")]
    assert any("Content Security Policy" in text for text in complaints)
