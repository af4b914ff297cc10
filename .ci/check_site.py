"""Check the built site: ``python .ci/check_site.py build/site``.

Always: every link inside the site and its anchor exist, and the search index finds words. Where a Chromium is on the
path, in it: every page loads without an error in the console and is not wider than a window of 400 pixels, text of some
pages has enough contrast in the dark, and the search page shows results.
"""

from __future__ import annotations

import contextlib
import functools
import html
import http.server
import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urlsplit

WORD = "bootstrap"
"""What is searched for; several pages have it."""
IN_THE_DARK = ("docs/index.html", "docs/data.html", "docs/reference/groups.html")
CONTRAST = 4.5
"""What WCAG 2 asks of text at level AA."""

DRIVER = """<!doctype html><meta charset="utf-8"><title>check</title><body><script>
const found = [];
const wait = ms => new Promise(done => setTimeout(done, ms));
async function opened(path) {
  const frame = document.createElement("iframe");
  frame.style.cssText = "width: 400px; height: 800px; border: 0";
  frame.src = "/" + path;
  const loaded = new Promise(done => frame.onload = done);
  document.body.append(frame);
  await loaded;
  return frame;
}
const light = ([r, g, b]) => {
  const [x, y, z] = [r, g, b].map(c => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * x + 0.7152 * y + 0.0722 * z;
};
const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
function ground(element) {
  for (; element; element = element.parentElement) {
    const colour = numbers(getComputedStyle(element).backgroundColor);
    if (colour.length < 4 || colour[3] > 0.5) return colour;
  }
  return [255, 255, 255];
}
function faint(page) {
  page.body.dataset.theme = "dark";
  const worst = {};
  const walker = page.createTreeWalker(page.querySelector("article"), NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const visible = element.checkVisibility({visibilityProperty: true, opacityProperty: true});
    if (!walker.currentNode.data.trim() || !visible ||
        element.closest(".headerlink, button, script, style, svg")) continue;
    const pair = [light(numbers(getComputedStyle(element).color)), light(ground(element))].sort((a, b) => b - a);
    const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
    if (ratio < CONTRAST) worst[element.tagName + "." + element.className] = ratio.toFixed(2);
  }
  return worst;
}
// Code and tables scroll by themselves; nothing else may reach over the edge.
function wide(page) {
  const scrolls = element => element.tagName !== "ARTICLE" &&
    (getComputedStyle(element).overflowX !== "visible" || scrolls(element.parentElement));
  return [...page.querySelectorAll("article *")].find(element =>
    element.getBoundingClientRect().right > 401 && element.checkVisibility() && !scrolls(element.parentElement));
}
(async () => {
  for (const path of PAGES) {
    const frame = await opened(path), page = frame.contentDocument, over = wide(page);
    if (over) found.push(path + ": wider than a window of 400 pixels: " + over.outerHTML.slice(0, 80));
    if (page.documentElement.scrollWidth > 400) found.push(path + ": scrolls sideways in a window of 400 pixels");
    if (DARK.includes(path)) {
      await wait(50);
      for (const [element, ratio] of Object.entries(faint(page)))
        found.push(path + ": contrast " + ratio + " of " + element + " in the dark");
    }
    frame.remove();
  }
  const frame = await opened("search.html?q=" + WORD);
  for (let i = 0; i < 100 && !frame.contentDocument.querySelector("ul.search li a"); i++) await wait(100);
  if (!frame.contentDocument.querySelector("ul.search li a")) found.push("search.html: no result for " + WORD);
  const result = document.createElement("pre");
  result.id = "found";
  result.textContent = JSON.stringify(found);
  document.body.append(result);
})();
</script>"""


class Page(HTMLParser):
    """The anchors and links of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors = {"", "top"}
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.anchors |= {str(given[key]) for key in ("id", "name") if given.get(key)}
        self.links += [str(given[key]) for key in ("href", "src") if given.get(key)]


def broken_links(site: Path, pages: dict[str, Page]) -> Iterator[str]:
    for name, page in pages.items():
        for link in page.links:
            address, anchor = urldefrag(link)
            if urlsplit(link).scheme or link.startswith("//"):
                continue
            path = (site / name).parent / unquote(urlsplit(address).path) if address else site / name
            target = (path / "index.html" if path.is_dir() else path).resolve()
            if not target.exists():
                yield f"{name}: {link} leads nowhere"
            known = pages.get(str(target.relative_to(site)))
            if known is not None and unquote(anchor) not in known.anchors:
                yield f"{name}: {link} has no such anchor"


def search_faults(site: Path) -> Iterator[str]:
    index = json.loads((site / "searchindex.js").read_text().removeprefix("Search.setIndex(").removesuffix(")"))
    hits = index["terms"].get(WORD, [])
    if not isinstance(hits, list) or len(hits) < 3:
        yield f"searchindex.js: {WORD!r} is found on {hits}, expected three pages or more"


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves the site, and the driver beside it."""

    driver = ""

    def do_GET(self) -> None:
        if self.path != "/driver":
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(self.driver.encode())

    def log_message(self, *arguments: Any) -> None:
        pass


@contextlib.contextmanager
def served(site: Path, driver: str) -> Iterator[str]:
    handler = type("_Handler", (Handler,), {"driver": driver})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=site)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/driver"
        server.shutdown()


def browser_faults(browser: str, site: Path, pages: dict[str, Page]) -> Iterator[str]:
    values = {"PAGES": sorted(pages), "DARK": IN_THE_DARK, "WORD": WORD, "CONTRAST": CONTRAST}
    driver = re.sub(r"\b(PAGES|DARK|WORD|CONTRAST)\b", lambda found: json.dumps(values[found[0]]), DRIVER)
    options = "--headless=new --no-sandbox --disable-gpu --enable-logging=stderr --virtual-time-budget=600000"
    # What is not of the site is not asked for.
    hosts = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    with served(site, driver) as address, tempfile.TemporaryDirectory() as profile:
        command = [browser, *options.split(), "--dump-dom", hosts, f"--user-data-dir={profile}", address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    for line in re.findall(r"CONSOLE.*?\] (.*)", done.stderr):
        if "http://127.0.0.1" in line:
            yield f"console: {line}"
    if not (found := re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)):
        yield f"the browser did not come to an end: {done.stderr[-2000:]}"
    else:
        yield from json.loads(html.unescape(found[1]))


def main() -> int:
    site = Path(sys.argv[1]).resolve()
    files = [path for path in site.rglob("*.html") if not path.relative_to(site).parts[0].startswith("_")]
    pages = {str(path.relative_to(site)): Page(path.read_text(encoding="utf-8")) for path in files}
    missing = set(IN_THE_DARK) - set(pages)
    faults = [f"{page}: is not there" for page in missing]
    faults += [*broken_links(site, pages), *search_faults(site)]
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser:
        faults += browser_faults(browser, site, pages)
    print(*faults, sep="\n", end="\n" if faults else "")
    looked = "links, search and browser" if browser else "links and search; the browser part was skipped: no Chromium"
    print(f"{len(pages)} pages, {looked}: {len(faults)} faults")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
