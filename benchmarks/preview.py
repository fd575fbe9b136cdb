"""How soon a browser shows the first preview of a 768x512 image, in denoising steps.

    [CDC_SHARED=FOLDER] python -m benchmarks.preview [--runs 5] [--steps 17] [--quality 50] [--json FILE]

A real server, a real Chromium and the page at /, all on this machine. The image is FOLDER/data/kodak/kodim05.png, or
where there is none a landscape that the page draws. Times are the page's own marks: the button, the decode request, and
the first task after the frame with the first preview has been painted. A step is the median time between two
progress events of the same run. The bar is two steps from the decode request.
"""

from __future__ import annotations

import argparse
import os
import statistics
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect, sync_playwright

from benchmarks import record
from benchmarks.server import running_server
from tests.browser.conftest import ARGUMENTS
from tests.programs import find

BAR_STEPS = 2.0
# Notes when the page hears of each step, beside its own marks.
WATCH = """
new MutationObserver(() => {
    const text = document.getElementById("stage-text").textContent;
    if (/^Decoding, step/.test(text)) performance.mark("bar:" + text);
}).observe(document.getElementById("stage-text"), { childList: true });
"""
READ = """() => {
    const at = (name) => performance.getEntriesByName(name)[0].startTime;
    const steps = performance.getEntriesByType("mark").filter((e) => e.name.startsWith("bar:")).map((e) => e.startTime);
    return { start: at("cdc:start"), decode: at("cdc:decode"), preview: at("cdc:preview"), steps };
}"""


def open_picture(page: Page, base_url: str, picture: Path | None) -> None:
    """Open the page with an image chosen."""
    page.goto(base_url)
    page.wait_for_selector("#samples button")
    if picture is None:
        page.click("text=Landscape")
    else:
        page.set_input_files("#file", str(picture))
    expect(page.locator("#chip-left")).to_contain_text("768 × 512")
    page.evaluate(WATCH)


def measure(page: Page, steps: int, quality: int, seed: int) -> dict[str, Any]:
    """One run, times in milliseconds."""
    page.locator("#quality").fill(str(quality))
    page.locator("#steps").fill(str(steps))
    page.locator("#gamma").fill("1")  # without noise there is one pass, whatever the steps
    page.fill("#seed", str(seed))  # another seed is other work, even for a service that remembers
    page.click("#go")
    expect(page.locator("#figures tbody tr")).to_have_count(5, timeout=120_000)
    marks = page.evaluate(READ)
    step = statistics.median(b - a for a, b in zip(marks["steps"], marks["steps"][1:], strict=False))
    first = marks["preview"] - marks["decode"]
    return {
        "step_ms": step,
        "encode_ms": marks["decode"] - marks["start"],
        "first_preview_ms": first,
        "in_steps": first / step,
        "from_button_in_steps": (marks["preview"] - marks["start"]) / step,
        "heard_in_steps": (marks["steps"][0] - marks["decode"]) / step,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=17)
    parser.add_argument("--quality", type=int, default=50)
    options = record.parse(parser)
    chromium = find("chromium")
    if chromium is None:
        raise SystemExit("no Chromium; set CDC_CHROMIUM")
    kodak = Path(os.environ.get("CDC_SHARED", ".")) / "data" / "kodak" / "kodim05.png"
    rows = []
    with running_server() as (client, _), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        for run in range(options.runs + 1):
            page = browser.new_page()
            open_picture(page, str(client.base_url), kodak if kodak.is_file() else None)
            row = measure(page, options.steps, options.quality, run)
            page.close()
            if run:  # the first one warms up
                rows.append(row)
        browser.close()
    median = {name: round(statistics.median(row[name] for row in rows), 2) for name in rows[0]}
    record.finish(options, {"bar_steps": BAR_STEPS, "runs": len(rows), "median": median})


if __name__ == "__main__":
    main()
