"""What a person does with the page."""

from __future__ import annotations

import base64

from playwright.sync_api import Page, expect

# A file comes in as by drag and drop, or from the clipboard.
TRANSFER = """([kind, name, type, base64]) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([Uint8Array.from(atob(base64), (c) => c.charCodeAt(0))], name, { type }));
    const options = { bubbles: true, cancelable: true };
    const event = kind === "drop"
        ? new DragEvent("drop", { ...options, dataTransfer: transfer })
        : new ClipboardEvent("paste", { ...options, clipboardData: transfer });
    document.body.dispatchEvent(event);
}"""


def give(page: Page, kind: str, name: str, type: str, data: bytes) -> None:
    page.evaluate(TRANSFER, [kind, name, type, base64.b64encode(data).decode()])


def upload(page: Page, data: bytes, name: str = "photo.png", type: str = "image/png") -> None:
    page.set_input_files("#file", {"name": name, "mimeType": type, "buffer": data})


def slide(page: Page, selector: str, value: float) -> None:
    page.locator(selector).fill(str(value))


def compress(page: Page, steps: int = 2) -> None:
    """Press the button and wait for the whole result."""
    slide(page, "#steps", steps)
    page.click("#go")
    expect(page.locator("#figures tbody tr")).to_have_count(5)
    expect(page.locator("#cancel")).to_be_hidden()


def cells(page: Page, row: int) -> list[str]:
    return page.locator(f"#figures tbody tr:nth-child({row}) > *").all_inner_texts()
