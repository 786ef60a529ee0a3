"""A headless Chromium of this machine, and what is held against a page of the house in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_OVERFLOWING = """() => {
  const wide = document.documentElement.clientWidth;
  const found = [];
  const whole = document.scrollingElement.scrollWidth;
  if (whole > wide) found.push(`the page: ${whole} of ${wide} px`);
  for (const one of document.querySelectorAll("body *")) {
    const box = one.getBoundingClientRect();
    if (!box.width || (box.right <= wide + 1 && box.left >= -1)) continue;
    if (one.closest(".scroll, .skip, .unseen, svg")) continue;
    const what = `${one.tagName} ${one.className} ${one.textContent.slice(0, 60)}`;
    found.push(`${Math.round(box.left)}..${Math.round(box.right)} of ${wide} px: ${what}`);
  }
  return found.slice(0, 10);
}"""
_PICTURES = """async () => {
  const found = [];
  for (const one of document.querySelectorAll("img")) {
    one.loading = "eager";
    try { await one.decode(); } catch (error) { found.push(`${one.alt}: ${error}`); continue; }
    if (!one.naturalWidth) found.push(`${one.alt}: no size`);
  }
  return found;
}"""
_PLAYERS = """async (most) => {
  const played = [], faults = [];
  const once = (one, name) => new Promise((done, fail) => {
    one.addEventListener(name, done, { once: true });
    one.addEventListener("error", () => fail(new Error(one.error?.message)), { once: true });
    setTimeout(() => fail(new Error(`no ${name}`)), 8000);
  });
  for (const one of [...document.querySelectorAll("audio, video")].slice(0, most)) {
    try {
      if (one.readyState < 1) {
        one.preload = "metadata";
        const ready = once(one, "loadedmetadata");
        one.load();
        await ready;
      }
      if (!Number.isFinite(one.duration) || one.duration <= 0) throw new Error(`lasts ${one.duration}`);
      one.muted = true;
      const going = once(one, "timeupdate");
      await one.play();
      await going;
      one.pause();
      const cues = one.textTracks[0]?.cues?.length ?? 0;
      played.push({ kind: one.tagName, seconds: one.duration, width: one.videoWidth ?? 0, cues });
    } catch (error) { faults.push(`${one.getAttribute("aria-label")}: ${error.message}`); }
  }
  return { played, faults };
}"""
# What a keyboard has to reach: what the browser itself would go to; and a record of what it has reached.
_REACHABLE = """() => {
  const kinds = "a[href], summary, input, select, button, audio[controls], video[controls], [tabindex='0']";
  const shown = (one) => one.checkVisibility({ visibilityProperty: true });
  const found = [...document.querySelectorAll(kinds)].filter(shown);
  found.forEach((one, i) => one.dataset.reach = i);
  window.reached = {};
  document.addEventListener("focusin", ({ target }) => {
    window.reached[target.dataset.reach] = getComputedStyle(target).outlineStyle !== "none" || target.controls;
  });
  document.activeElement.blur();
  return [found.length, found.filter((one) => one.controls).length];
}"""
_NOT_REACHED = """(whole) => [...Array(whole).keys()].filter((i) => !window.reached[i]).map((i) => {
  const fault = i in window.reached ? "no outline" : "not reached";
  return `${fault}: ${document.querySelector(`[data-reach="${i}"]`).outerHTML.slice(0, 120)}`;
})"""
# Stops inside a player: its buttons.
_BUTTONS = 8


@dataclass
class Seen:
    """A page that is open, and what it did that no page of the house does: errors, requests that leave it."""

    page: Page
    faults: list[str] = field(default_factory=list)

    def overflowing(self) -> list[str]:
        """What is wider than the window."""
        return self.page.evaluate(_OVERFLOWING)  # type: ignore[no-any-return]

    def broken_pictures(self) -> list[str]:
        return self.page.evaluate(_PICTURES)  # type: ignore[no-any-return]

    def play(self, most: int = 1000) -> dict[str, list[Any]]:
        """Play players for a moment: ``played``, with their kinds and lengths in seconds, and ``faults``."""
        return self.page.evaluate(_PLAYERS, most)  # type: ignore[no-any-return]

    def not_reached(self) -> list[str]:
        """What the Tab key does not reach, or reaches without its showing."""
        whole, players = self.page.evaluate(_REACHABLE)
        for _ in range(whole + _BUTTONS * players):
            self.page.keyboard.press("Tab")
        return self.page.evaluate(_NOT_REACHED, whole)  # type: ignore[no-any-return]

    def violations(self) -> list[str]:
        """Rules of axe-core that the page breaks, with a place each."""
        self.page.evaluate(_axe())
        found = self.page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
        return [
            f"{one['id']} ({one['impact']}): {one['help']}: {node['html'][:160]} {node['failureSummary'][:200]}"
            for one in found["violations"]
            for node in one["nodes"][:3]
        ]


def program() -> str | None:
    """A Chromium or Chrome of this machine; ``OMNIMILL_BROWSER`` names another."""
    return os.environ.get("OMNIMILL_BROWSER") or next(filter(None, map(shutil.which, _PROGRAMS)), None)


@contextmanager
def open_browser() -> Iterator[Browser]:
    """The browser; the test that asks for it is skipped where there is none."""
    path = program()
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(_PROGRAMS)} is on this machine; set OMNIMILL_BROWSER to one")
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install 'omnimill[dev]'")
    with sync_api.sync_playwright() as engine:
        # Containers have no user namespaces and a small /dev/shm.
        flags = [
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--autoplay-policy=no-user-gesture-required",
            "--mute-audio",
        ]
        browser = engine.chromium.launch(executable_path=path, args=flags)
        yield browser
        browser.close()


@contextmanager
def look(browser: Browser, file: Path, width: int, scheme: str = "light") -> Iterator[Seen]:
    """A page of a file, in a window so wide; it may ask for nothing beyond itself."""
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme=scheme,
        reduced_motion="reduce",  # type: ignore[arg-type]
    )
    page = context.new_page()
    seen = Seen(page)
    page.on("console", lambda line: seen.faults.append(line.text) if line.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: seen.faults.append(str(error)))
    page.on(
        "request",
        lambda one: (
            None if one.url.startswith(("file:", "data:", "blob:")) else seen.faults.append(f"asks for {one.url}")
        ),
    )
    page.on("requestfailed", lambda one: seen.faults.append(f"failed: {one.url[:80]} {one.failure}"))
    page.goto(file.resolve().as_uri())
    yield seen
    context.close()


def _axe() -> str:
    spec = find_spec("axe_playwright_python")
    assert spec is not None
    assert spec.origin is not None
    (script,) = Path(spec.origin).parent.rglob("axe.min.js")
    return script.read_text(encoding="utf-8")
