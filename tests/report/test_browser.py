"""The report in a browser: nothing fails, nothing overflows, players play, a keyboard reaches everything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser_checks import look, open_browser

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as found:
        yield found


def test_a_phone_shows_the_report_and_plays_it(browser: Browser, site: Path) -> None:
    with look(browser, site / "report.html", 360) as seen:
        assert seen.overflowing() == []
        assert seen.broken_pictures() == []
        found = seen.play()
        assert found["faults"] == []
        films = [one for one in found["played"] if one["kind"] == "VIDEO"]
        sounds = [one for one in found["played"] if one["kind"] == "AUDIO"]
        assert sorted(round(one["seconds"], 1) for one in films) == [1.0, 15.0, 15.0]
        assert [one["cues"] for one in films if one["seconds"] > 9] == [3, 3]
        assert all(one["width"] for one in films)
        assert [round(one["seconds"], 1) for one in sounds] == [0.6, 0.6]
        assert seen.page.title().startswith("omnimill report"), "what data say is never run"
        assert seen.faults == []


def test_examples_are_chosen_by_source_content_and_words(browser: Browser, site: Path) -> None:
    with look(browser, site / "report.html", 1280) as seen:
        page = seen.page
        status = page.locator(".filter output")
        assert status.text_content() == "12 of 12 examples"
        page.locator("select[name=source]").select_option("photos")
        assert status.text_content() == "4 of 12 examples"
        assert not page.locator(".source").filter(has_text="sound-0").is_visible()
        page.locator("select[name=source]").select_option("")
        page.locator("select[name=has]").select_option("film")
        assert status.text_content() == "3 of 12 examples"
        page.get_by_label("that say").fill("put the block")
        assert status.text_content() == "1 of 12 examples"
        assert seen.faults == []


def test_what_was_generated_is_shown_as_what_it_is(browser: Browser, site: Path) -> None:
    with look(browser, site / "report.html", 768) as seen:
        shown = seen.page.locator("#generated")
        assert shown.get_by_text("onerror=alert(1)> written").is_visible()
        assert shown.get_by_alt_text("drawn by the model for: a ramp").count() == 1
        assert shown.get_by_text("0 answers to requests of a file").is_visible()
        assert shown.locator("article").count() == 3, "what is gone is not shown"
        assert seen.faults == []


def test_a_keyboard_reaches_everything_and_no_rule_of_accessibility_is_broken(browser: Browser, site: Path) -> None:
    with look(browser, site / "report.html", 1280) as seen:
        assert seen.not_reached() == []
        assert seen.violations() == []


@pytest.mark.fault
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_at_every_width_in_light_and_dark(browser: Browser, site: Path, pages: Path, scheme: str) -> None:
    files = [site / "report.html", *sorted(pages.glob("*.html"))]
    assert len(files) == 6
    for file in files:
        with look(browser, file, 1280, scheme) as seen:
            seen.page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
            for width in (320, 360, 768, 1280, 1920):
                seen.page.set_viewport_size({"width": width, "height": 900})
                assert seen.overflowing() == [], (file.name, width)
            assert seen.broken_pictures() == [], file.name
            assert seen.violations() == [], file.name
            assert seen.not_reached() == [], file.name
            assert seen.play()["faults"] == [], file.name
            assert seen.faults == [], file.name


@pytest.mark.fault
def test_links_of_a_folder_of_pages_lead_to_its_pages(browser: Browser, pages: Path) -> None:
    with look(browser, pages / "index.html", 1280) as seen:
        hrefs = seen.page.locator("a[href]").evaluate_all("(all) => all.map((one) => one.getAttribute('href'))")
    for href in hrefs:
        assert href.startswith("#") or (pages / href).exists(), href
