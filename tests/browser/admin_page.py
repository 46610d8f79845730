"""Drives the admin page of a node in headless Chromium: an agent arrives and leaves, charts move, the drain button stops the node.

Usage: admin_page.py DIALBACK CHROMIUM [PICTURES]
The working directory has certs/ with a node, an agent and a caller, and rules.toml. With PICTURES, pictures of both themes are written there.
"""

import re
import subprocess
import sys
import threading

from playwright.sync_api import expect, sync_playwright

WAIT_MS = 60_000


class Process:
    """A dialback process whose log is read line by line."""

    def __init__(self, *args):
        self.child = subprocess.Popen([sys.argv[1], *args], stderr=subprocess.PIPE, text=True)

    def wait_for(self, pattern):
        for line in self.child.stderr:
            if found := re.search(pattern, line):
                # The rest is read too, so that the process never waits for it.
                threading.Thread(target=self.child.stderr.read, daemon=True).start()
                return found.group(1)
        raise SystemExit(f"the process ended without {pattern}")

    def end(self):
        return self.child.wait(timeout=WAIT_MS / 1000)


def call(at, method, data, *rest):
    subprocess.run([sys.argv[1], "call", "--node", at, "warehouse", method, "-d", data, *rest], capture_output=True, check=False)


def main():
    chromium, pictures = sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else None
    with open("node.toml", "w") as file:
        file.write('listen = "127.0.0.1:0"\n[admin]\nlisten = "127.0.0.1:0"\ndrain = true\n')
    node = Process("node", "--config", "node.toml", "--policy", "rules.toml")
    # The line with the address of the node comes first.
    at, admin = None, None
    for line in node.child.stderr:
        if found := re.search(r"listens on (\S+)", line):
            at = found.group(1)
        if found := re.search(r"status at (http\S+?),? ", line):
            admin = found.group(1)
        if at and admin:
            break
    assert at and admin, "the node does not start"
    threading.Thread(target=node.child.stderr.read, daemon=True).start()

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1100, "height": 900}, color_scheme="light")
        page.set_default_timeout(WAIT_MS)
        expect.set_options(timeout=WAIT_MS)
        errors = []
        page.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        others = []
        page.on("request", lambda request: None if request.url.startswith(admin) or request.url.startswith("data:") else others.append(request.url))

        page.goto(admin)
        expect(page.locator("#name")).to_have_text("edge-1")
        expect(page.locator("#state")).to_have_text("ready")
        links = page.locator("#links tbody")
        expect(links).not_to_contain_text("agent/warehouse")

        agent = Process("agent", "--node", at, "--demo")
        agent.wait_for("(registered) as warehouse")
        expect(links).to_contain_text("agent/warehouse")
        expect(page.locator("#changes")).to_contain_text("agent/warehouse")

        # A load for as long as the charts take to show it, with calls that fail in between.
        bench = subprocess.Popen(
            [sys.argv[1], "bench", "--node", at, "--duration", "30s", "--in-flight", "4", "--rate", "200", "warehouse", "Demo/Echo"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for _ in range(3):
            call(at, "Demo/Nope", "1")
        expect(page.locator("#v-calls")).to_have_text(re.compile(r"^[1-9]\d\d\.\d, at most [1-9]"))
        expect(page.locator("#c-calls path").first).to_have_attribute("d", re.compile(r"^M.*L"))
        expect(page.locator("#v-times")).to_have_text(re.compile(r"^\d+\.\d+ / \d+\.\d+, at most"))
        failed = page.locator("#failures li").first
        expect(failed).to_contain_text("Demo/Nope")
        expect(failed).to_contain_text("UNIMPLEMENTED (not_executed)")
        if pictures:
            bench.wait()
            page.screenshot(path=f"{pictures}/admin-light.png", full_page=True)
            page.emulate_media(color_scheme="dark")
            page.screenshot(path=f"{pictures}/admin-dark.png", full_page=True)
            page.set_viewport_size({"width": 390, "height": 844})
            page.screenshot(path=f"{pictures}/admin-phone.png", full_page=True)
        bench.kill()
        # On a phone only the table of links scrolls sideways.
        page.set_viewport_size({"width": 390, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page is wider than a phone"

        agent.child.terminate()
        assert agent.end() == 0
        expect(links).not_to_contain_text("agent/warehouse")

        # By keyboard alone: to the button, which asks first; then to its second button.
        page.locator("#drain").focus()
        page.keyboard.press("Enter")
        expect(page.locator("#confirm")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.locator("#confirm")).to_be_hidden()
        assert node.child.poll() is None
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        assert not errors, errors
        page.keyboard.press("Enter")
        assert node.end() == 0, "the node stops gracefully"
        assert not others, others
        browser.close()
    print("the page works")


main()
