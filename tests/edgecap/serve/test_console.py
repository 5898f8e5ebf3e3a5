"""The web console in a real Chromium, on a real server over a stream of pictures.

EDGECAP_SCREENSHOTS=FOLDER keeps pictures of it: docs/images has them.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp")
cv2 = pytest.importorskip("cv2")
data = pytest.importorskip("skimage.data")
Image = pytest.importorskip("PIL.Image")
webdriver = pytest.importorskip("selenium.webdriver", reason="no selenium to drive a browser")
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select, WebDriverWait  # noqa: E402
from served import serving  # noqa: E402

from edgecap.models import bundled  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if CHROMIUM is None or DRIVER is None:
    pytest.skip("no chromium and chromedriver on this machine", allow_module_level=True)
if "default" not in bundled():
    pytest.skip("this checkout has no default model", allow_module_level=True)

SIZES = {"wide": (1440, 960, False), "phone": (360, 740, True)}
TOKEN = "a-token-of-many-letters"
# The ratio of contrast as WCAG 2.2 defines it, of every text that is seen.
CONTRAST = """
const part = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
const parts = (text) => text.match(/[\\d.]+/g).map(Number);
const behind = (element) => {
  for (let each = element; each; each = each.parentElement) {
    const colour = parts(getComputedStyle(each).backgroundColor);
    if (colour.length < 4 || colour[3] === 1) return colour;
  }
  return [255, 255, 255];
};
const low = [];
for (const element of document.querySelectorAll("body *")) {
  const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  if (!own || !element.checkVisibility() || element.disabled) continue;
  if (element.closest(".viewfinder, .unseen, .skip")) continue;
  const style = getComputedStyle(element);
  const [a, b] = [light(parts(style.color)), light(behind(element))];
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const large = parseFloat(style.fontSize) >= 24;
  if (ratio < (large ? 3 : 4.5)) low.push([element.className, element.textContent, ratio]);
}
return low;
"""
VIOLATIONS = """
globalThis.violations = [];
addEventListener("securitypolicyviolation", (e) => violations.push(e.violatedDirective));
globalThis.spoken = [];
addEventListener("DOMContentLoaded", () => {
  const region = document.getElementById("caption");
  new MutationObserver(() => spoken.push(region.textContent))
    .observe(region, {childList: true, characterData: true, subtree: true});
});
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of different photographs, which a stream shows in turn."""
    folder = tmp_path_factory.mktemp("pictures")
    for name in ("astronaut", "cat", "coffee", "rocket"):
        picture = getattr(data, name)()[..., ::-1]
        assert cv2.imwrite(str(folder / f"{name}.jpg"), picture)
    return folder


@pytest.fixture(scope="module")
def address(pictures: Path) -> Iterator[str]:
    """A server with a camera that shows another photograph twice a second."""
    arguments = ["--source", f"camera=file://{pictures}", "--loop", "--frame-rate", "2"]
    with serving(*arguments) as address:
        yield address


@pytest.fixture
def open_page() -> Iterator[Callable[..., Any]]:
    """Opens a page in a browser of its own: ``open_page(address, "phone")``."""
    drivers = []

    def open_it(address: str, size: str = "wide", dark: bool = False) -> Any:
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
            options.add_argument(word)
        # A live preview never ends: do not wait for the page to be complete.
        options.page_load_strategy = "eager"
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
        drivers.append(driver)
        width, height, mobile = SIZES[size]
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": VIOLATIONS})
        driver.get(address)
        return driver

    yield open_it
    for driver in drivers:
        driver.quit()


def wait(driver: Any, condition: Callable[[Any], Any], seconds: float = 60) -> Any:
    return WebDriverWait(driver, seconds, poll_frequency=0.1).until(condition)


def text(driver: Any, name: str) -> str:
    # Not the visible text: that is read as empty while an animation begins.
    found = driver.find_element("id", name).get_property("textContent")
    return str(found).replace("\N{NO-BREAK SPACE}", " ").strip()


def captioned(driver: Any) -> str:
    """Wait for a caption on the screen."""
    return str(wait(driver, lambda d: text(d, "caption")))


def screenshot(driver: Any, name: str) -> None:
    folder = os.environ.get("EDGECAP_SCREENSHOTS")
    if folder:
        time.sleep(1.5)  # lets thumbnails and the animation arrive
        picture = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
        path = Path(folder) / f"console-{name}.png"
        picture.quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


def check_quiet(driver: Any) -> None:
    """No error in the console of the browser, and nothing against the security policy."""
    assert driver.execute_script("return globalThis.violations") == []
    worse = [line for line in driver.get_log("browser") if line["level"] in ("SEVERE", "WARNING")]
    assert worse == []


@pytest.mark.parametrize(
    ("size", "dark"), [("wide", False), ("wide", True), ("phone", False), ("phone", True)]
)
def test_it_shows_captions_and_fits(
    address: str, open_page: Callable[..., Any], size: str, dark: bool
) -> None:
    driver = open_page(address, size, dark)
    captioned(driver)
    wait(driver, lambda d: d.find_element("id", "preview").is_displayed())
    wait(driver, lambda d: len(d.find_elements("css selector", "#history li")) >= 3)
    screenshot(driver, f"{size}-{'dark' if dark else 'light'}")
    inner, content = driver.execute_script(
        "return [document.documentElement.clientWidth, document.documentElement.scrollWidth]"
    )
    assert content <= inner <= SIZES[size][0]
    assert driver.execute_script("return document.getElementById('preview').naturalWidth") > 0
    assert text(driver, "state") == "Live"
    assert "%" in text(driver, "confidence")
    assert float(text(driver, "delay").removesuffix(" ms")) >= 0.0
    assert driver.execute_script(CONTRAST) == []
    check_quiet(driver)


def test_stages_and_counts_are_the_servers(address: str, open_page: Callable[..., Any]) -> None:
    driver = open_page(address)
    captioned(driver)
    # At once: the page writes them anew with each caption.
    rows = driver.execute_script(
        "return [...document.querySelectorAll('#stages tbody tr')]"
        ".map((row) => [row.dataset.stage, row.innerText])"
    )
    stages = {stage: words.split()[-2] for stage, words in rows}
    assert float(stages["encode"]) > 0.0
    assert float(stages["total"]) >= float(stages["encode"])
    wait(driver, lambda d: text(d, "frames") not in ("", "\N{EN DASH}", "0"))
    assert int(text(driver, "captions").replace(",", "")) >= 1
    assert text(driver, "model").startswith("Model: default")
    status = driver.execute_async_script(
        "fetch('/v1/status').then((a) => a.json()).then(arguments[0])"
    )
    assert text(driver, "engine") == f"Engine: {status['engine']}"


def test_the_live_region_is_written_only_when_the_caption_changes(
    address: str, open_page: Callable[..., Any]
) -> None:
    driver = open_page(address)
    captioned(driver)
    region = driver.find_element("id", "caption")
    assert region.get_attribute("aria-live") == "polite"
    wait(driver, lambda d: len(d.execute_script("return spoken")) >= 3)
    spoken = driver.execute_script("return spoken")
    assert all(a != b for a, b in itertools.pairwise(spoken))


def test_history_has_thumbnails_that_open(address: str, open_page: Callable[..., Any]) -> None:
    driver = open_page(address, "phone")
    first = "#history li img"
    wait(driver, lambda d: d.find_elements("css selector", first))
    driver.execute_script("document.querySelector(arguments[0]).scrollIntoView()", first)
    wait(
        driver,
        lambda d: d.execute_script(
            "return document.querySelector(arguments[0]).naturalWidth", first
        ),
    )
    button = driver.find_element("css selector", "#history li button")
    said = button.find_element("css selector", ".words").text
    button.send_keys(Keys.ENTER)
    assert driver.find_element("id", "photo").is_displayed()
    assert text(driver, "photo-caption") == said


def test_every_control_is_reached_by_tab_and_has_a_name(
    address: str, open_page: Callable[..., Any]
) -> None:
    driver = open_page(address)
    captioned(driver)
    reached = set()
    for _ in range(12):
        webdriver.ActionChains(driver).send_keys(Keys.TAB).perform()
        element = driver.switch_to.active_element
        reached.add(element.get_attribute("id") or element.get_attribute("class"))
        assert element.accessible_name
    assert {"skip", "profile", "describe", "upload"} <= reached


def test_describe_now_by_the_key(pictures: Path, open_page: Callable[..., Any]) -> None:
    """A camera that never changes is silent after its first caption, until it is asked."""
    with serving(
        "--source", f"file://{pictures / 'cat.jpg'}", "--loop", "--frame-rate", "10"
    ) as still:
        driver = open_page(still)
        captioned(driver)
        count = "return document.querySelectorAll('#history li').length"
        wait(driver, lambda d: d.execute_script(count) >= 1)
        time.sleep(1.0)
        before = driver.execute_script(count)
        driver.find_element("tag name", "body").send_keys("d")
        wait(driver, lambda d: d.execute_script(count) > before)
        check_quiet(driver)


def test_the_profile_is_switched(address: str, open_page: Callable[..., Any]) -> None:
    driver = open_page(address)
    captioned(driver)
    choice = wait(driver, lambda d: d.find_element("id", "profile"))
    wait(driver, lambda d: choice.is_displayed())
    Select(choice).select_by_value("driving")
    wait(driver, lambda d: "driving" in text(d, "note"))
    status = driver.execute_async_script(
        "fetch('/v1/status').then((a) => a.json()).then(arguments[0])"
    )
    assert status["profile"] == "driving"


def test_a_photo_of_the_user_is_captioned(
    address: str, pictures: Path, open_page: Callable[..., Any], tmp_path: Path
) -> None:
    driver = open_page(address, "phone")
    captioned(driver)
    driver.find_element("id", "upload").send_keys(str(pictures / "cat.jpg"))
    wait(driver, lambda d: text(d, "photo-caption"))
    assert "ms" in text(driver, "photo-facts")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes((pictures / "cat.jpg").read_bytes()[:900])
    driver.find_element("id", "upload").send_keys(str(broken))
    wait(driver, lambda d: "bad" in d.find_element("id", "note").get_attribute("class"))
    assert text(driver, "note")


def test_a_caption_is_never_html(address: str, open_page: Callable[..., Any]) -> None:
    driver = open_page(address)
    captioned(driver)
    evil = "<img src=x onerror='globalThis.owned = 1'><script>globalThis.owned = 1</script>"
    event = {
        "id": 10**9, "source": "camera", "time": "2026-01-01T00:00:00Z", "text": evil,
        "confidence": 0.5, "sure": False, "truncated": False, "thumbnail": None,
        "latency_ms": {"total": 1.0},
    }  # fmt: skip
    driver.execute_async_script(
        """
        const [event, done] = arguments;
        import("/console/view.js").then((view) => {
          view.showCaption(event, 1.0);
          view.addHistory(event, () => {});
          view.showPhoto("", event.text, event.text);
          done();
        });
        """,
        event,
    )
    assert evil in driver.find_element("css selector", "#history .words").text
    assert driver.execute_script("return globalThis.owned") is None


def test_a_token_opens_the_console(pictures: Path, open_page: Callable[..., Any]) -> None:
    with serving(
        "--source", f"camera=file://{pictures}", "--loop", "--frame-rate", "2", token=TOKEN
    ) as address:
        driver = open_page(address, "phone")
        field = wait(driver, lambda d: d.find_element("id", "token"))
        wait(driver, lambda d: field.is_displayed())
        screenshot(driver, "login")
        assert driver.switch_to.active_element == field
        field.send_keys("wrong", Keys.ENTER)
        wait(driver, lambda d: text(d, "login-note") == "That is not the token.")
        field.clear()
        field.send_keys(TOKEN, Keys.ENTER)
        captioned(driver)
        assert not field.is_displayed()
        stored = driver.execute_script("return document.cookie + JSON.stringify(localStorage)")
        assert TOKEN not in stored


def test_it_finds_the_server_again(pictures: Path, open_page: Callable[..., Any]) -> None:
    arguments = ["--source", f"camera=file://{pictures}", "--loop", "--frame-rate", "2"]
    with serving(*arguments) as address:
        driver = open_page(address)
        captioned(driver)
    wait(driver, lambda d: text(d, "state") == "Reconnecting")
    port = int(address.rsplit(":", 1)[1].strip("/"))
    with serving(*arguments, port=port):
        wait(driver, lambda d: text(d, "state") == "Live")
        latest = json.dumps(driver.execute_script("return document.title"))
        assert latest == '"EdgeCap"'
