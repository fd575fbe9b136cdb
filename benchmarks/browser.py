"""Decoding in a headless Chromium's WASM beside torch: `python -m benchmarks.browser PHOTO`.

Needs node, npm and Chromium. Prints, of the same file in the same run, the median time of a one-step decode by torch in
float32, by onnxruntime in Python, and in the browser, with as many threads each, and what a first visit loads.
"""

from __future__ import annotations

import argparse
import base64
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from playwright.sync_api import sync_playwright

from benchmarks import record
from benchmarks.server import running_server
from cdc_client.decoder import Decoder
from model.codec import Codec
from model.config import rate_of_quality
from model.weights.files import load_weights
from model.weights.registry import SHIPPED
from tests.browser.conftest import launch
from tests.programs import need

PACKAGE = Path(__file__).parents[1] / "client" / "js"
SIZE = (768, 512)
DECODE = """async ([text, rounds, threads]) => {
  const { WorkerDecoder } = await import("/decoder/cdc-image.js");
  const base = new URL("/decoder/", location.href);
  const data = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const decoder = await WorkerDecoder.load(base, { runtimePath: base.href, threads });
  const found = [];
  for (let i = 0; i < rounds; i++) {
    const start = performance.now();
    const { times } = await decoder.decode(data, { gamma: 0 });
    found.push({ whole: performance.now() - start, ...times });
  }
  return found;
}"""


def timed(run: Callable[[], object], rounds: int) -> float:
    """Median milliseconds, the first call left out."""
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        run()
        times.append(1000 * (time.perf_counter() - start))
    return median(times[1:])


def main() -> None:
    """Measure and print a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photo", type=Path)
    parser.add_argument("--quality", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    given = record.parse(parser)
    torch.set_num_threads(given.threads)
    codec = Codec(load_weights(SHIPPED / "cdc-lite.safetensors"), "float32")
    with Image.open(given.photo) as image:
        pixels = np.asarray(image.convert("RGB").resize(SIZE) if image.size != SIZE else image.convert("RGB"))
    data = codec.pack(codec.analyse(np.ascontiguousarray(pixels)), rate_of_quality(given.quality))
    own = Decoder(threads=given.threads)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        subprocess.run([need("npm"), "ci", "--no-audit", "--no-fund", "--silent"], cwd=PACKAGE, check=True)
        subprocess.run([need("node"), "bundle.mjs", folder], cwd=PACKAGE, check=True)
        with running_server(browser_dir=folder) as (http, _):
            browser = launch(playwright)
            page = browser.new_page()
            loaded: list[int] = []
            page.on("requestfinished", lambda r: loaded.append(r.sizes()["responseBodySize"]))
            page.goto(str(http.base_url))
            page.wait_for_selector("html[data-device=ready]")
            visit = sum(loaded)
            found = page.evaluate(DECODE, [base64.b64encode(data).decode(), given.rounds + 2, given.threads])[2:]
            torch_ms = timed(lambda: codec.decode(data, 1, 0.0), given.rounds)
            own_ms = timed(lambda: own.decode(data), given.rounds)
            browser.close()
    browser_ms, entropy_ms = (median(f[name] for f in found) for name in ("whole", "entropy"))
    figures = {
        "threads": given.threads,
        "torch_ms": round(torch_ms),
        "python_onnxruntime_ms": round(own_ms),
        "browser_ms": round(browser_ms),
        "browser_entropy_ms": round(entropy_ms),
        "ratio": round(browser_ms / torch_ms, 2),
        "first_visit_bytes": visit,
        "file_bytes": len(data),
    }
    record.finish(given, figures)


if __name__ == "__main__":
    main()
