"""A headless Chromium, driven through its own pipe: nothing but the browser is needed."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "headless_shell")
_PIPES = "import os, sys; a, b, *c = sys.argv[1:]; os.dup2(int(a), 3); os.dup2(int(b), 4); os.execv(c[0], c)"


def installed() -> str | None:
    """The browser, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Page:
    """One page of a browser that ends with it.

    Args:
      browser: the program.
      profile: an empty folder.

    Attributes:
      problems: what the page's console has complained about.
    """

    def __init__(self, browser: str, profile: Path) -> None:
        from_us, to_it = os.pipe()
        from_it, to_us = os.pipe()
        # In the browser they must be 3 and 4, which neither may be before.
        theirs = [fcntl.fcntl(one, fcntl.F_DUPFD, 10) for one in (from_us, to_us)]
        flags = [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--remote-debugging-pipe", f"--user-data-dir={profile}", "--disable-background-networking",
        ]  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PIPES, *map(str, theirs), browser, *flags, "about:blank"],
            pass_fds=theirs, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for one in (from_us, to_us, *theirs):
            os.close(one)
        self._to, self._from = os.fdopen(to_it, "wb", 0), os.fdopen(from_it, "rb")
        self._count, self._session = 0, None
        self.problems: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **given: Any) -> Any:
        """One command of the DevTools protocol and its result."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": given}
        if self._session is not None:
            message["sessionId"] = self._session
        self._to.write(json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._count:
            if answer.get("method") == "Runtime.exceptionThrown":
                self.problems.append(str(answer["params"]["exceptionDetails"]))
            if answer.get("method") == "Log.entryAdded" and answer["params"]["entry"]["level"] == "error":
                self.problems.append(answer["params"]["entry"]["text"])
        assert "error" not in answer, answer
        return answer["result"]

    def _next(self) -> Any:
        found = bytearray()
        while (byte := self._from.read(1)) != b"\0":
            assert byte, "the browser has ended"
            found += byte
        return json.loads(found)

    def value(self, script: str) -> Any:
        """What an expression is in the page."""
        return self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def text(self, element: str) -> str:
        """The text of the element with this id."""
        return str(self.value(f"document.getElementById('{element}').textContent"))

    def wait(self, script: str) -> None:
        """Until an expression is true."""
        end = time.monotonic() + 60
        while not self.value(script):
            assert time.monotonic() < end, f"never: {script}; {self.problems}"
            time.sleep(0.02)

    def click(self, element: str) -> None:
        """A click of the mouse in the middle of the element with this id."""
        box = f"document.getElementById('{element}').getBoundingClientRect()"
        x, y = self.value(f"{box}.x + {box}.width / 2"), self.value(f"{box}.y + {box}.height / 2")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def fill(self, element: str, text: str) -> None:
        """Types into the field with this id, in the place of what is there."""
        self.click(element)
        self.value(f"document.getElementById('{element}').select()")
        self.call("Input.insertText", text=text)

    def close(self) -> None:
        """Ends the browser."""
        self._session = None
        self.call("Browser.close")
        self._process.wait()
        self._to.close(), self._from.close()
