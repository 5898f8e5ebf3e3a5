"""The page of thumbnails in a real Chromium, from the disk and without a network."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from edgecap.photos.alt_text import Described
from edgecap.photos.html_page import HtmlPage
from edgecap.runtime.caption import Caption, Timings

webdriver = pytest.importorskip("selenium.webdriver", reason="no selenium to drive a browser")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if CHROMIUM is None or DRIVER is None:
    pytest.skip("no chromium and chromedriver on this machine", allow_module_level=True)


def test_what_a_screen_reader_gets(tmp_path: Path) -> None:
    photo = tmp_path / "a #1.png"
    Image.new("RGB", (60, 40), "navy").save(photo)
    page = HtmlPage(tmp_path / "page.html")
    caption = Caption("a dog", (), -0.5, 0.75, True, Timings())
    for alt in ('A dog & a "cat".', ""):
        page.add(Described(photo, photo.name, caption, alt))
    page.close(True)
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    try:
        driver.set_window_size(360, 800)
        driver.get((tmp_path / "page.html").as_uri())
        first, second = driver.find_elements("tag name", "img")
        assert (first.aria_role, first.accessible_name) == ("image", 'A dog & a "cat".')
        assert second.accessible_name == ""
        assert driver.find_element("tag name", "h1").accessible_name == "Photographs"
        drawn = "return [...document.images].map(i => i.complete && i.naturalWidth)"
        assert driver.execute_script(drawn) == [60, 60]
        wide = "return document.documentElement.scrollWidth <= window.innerWidth"
        assert driver.execute_script(wide)
        driver.find_element("tag name", "a").click()
        assert driver.current_url == photo.as_uri()
        assert driver.get_log("browser") == []
    finally:
        driver.quit()
