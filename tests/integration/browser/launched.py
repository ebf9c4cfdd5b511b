"""`kraft up --faults` with its console, as a person starts it, and the buttons of its page."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from typing import Any

from tests.integration.browser.chromium import Page
from tests.integration.support.cluster import kraft
from tests.integration.support.waiting import wait_until


class Launched:
    """`kraft up` with its console, as a person starts it."""

    def __init__(self, *options: str, data: str = "") -> None:
        self.data = data
        command = [sys.executable, "-m", "kraft", "up", "--json", *options, *(("--data", data) if data else ())]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.facts: dict[str, Any] = json.loads(self.process.stdout.readline())
        try:
            wait_until(self._answers, what="the console", deadline_s=120)
        except BaseException:
            self.end()
            raise

    @property
    def console(self) -> str:
        return str(self.facts["console"])

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(self.console, timeout=20).close()
        except urllib.error.HTTPError:  # it needs its token
            return True
        except OSError:
            return False
        return True

    def saved(self, name: str) -> str:
        with urllib.request.urlopen(f"{self.console}/save/{name}", timeout=20) as answer:
            text: str = answer.read().decode()
        return text

    def status(self) -> dict[str, Any]:
        done = kraft("status", "--rest", self.facts["nodes"][0]["rest"], "--json")
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()


class Faulty(Launched):
    """`kraft up --faults`."""

    def __init__(self, *options: str) -> None:
        super().__init__("--faults", *options)


_PRESS = """
const found = [...document.querySelectorAll('button')]
  .find((each) => (each.getAttribute('aria-label') || each.textContent) === arguments[0]);
if (!found || found.disabled) return false;
found.click();
return true;
"""


def press(page: Page, label: str) -> None:
    """Presses a button as soon as it can be pressed: while an act is carried out, none can."""
    wait_until(lambda: page.driver.execute_script(_PRESS, label), what=f"the button {label!r}", deadline_s=60)
