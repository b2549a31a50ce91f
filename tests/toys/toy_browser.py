"""A headless Chromium, driven through its own protocol."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tornado.websocket import websocket_connect

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE = 60
"""Seconds to wait for what a page should come to."""


class Page:
    """A page that is open: what it complains of, what it answers, how it looks."""

    def __init__(self, socket: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._socket, self._loop, self._numbers = socket, loop, itertools.count(1)
        self.complaints: list[str] = []
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        text = json.dumps({"id": number, "method": method, "params": params})

        async def ask() -> dict[str, Any]:
            await self._socket.write_message(text)
            while True:
                said = json.loads(await self._socket.read_message())
                self._note(said)
                if said.get("id") == number:
                    return said

        said = self._loop.run_until_complete(asyncio.wait_for(ask(), PATIENCE))
        if "error" in said:  # such as that the page was left meanwhile
            raise LookupError(said["error"])
        return said["result"]

    def _note(self, said: dict[str, Any]) -> None:
        of = said.get("params", {})
        if said.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(str(of["exceptionDetails"]))
        if said.get("method") == "Log.entryAdded" and of["entry"]["level"] == "error":
            self.complaints.append(f"{of['entry']['text']} {of['entry'].get('url')}")
        if said.get("method") == "Runtime.consoleAPICalled" and of["type"] == "error":
            self.complaints.append(str(of["args"]))

    def go(self, url: str) -> None:
        """Open an address."""
        self._call("Page.navigate", url=url)

    def ask(self, expression: str) -> Any:
        """Evaluate JavaScript."""
        found = self._call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, expression: str) -> Any:
        """Wait until JavaScript gives something that is true."""
        for _ in range(PATIENCE * 5):
            with suppress(LookupError):
                if value := self.ask(f"(() => {{ try {{ return {expression} }} catch {{}} }})()"):
                    return value
            self._loop.run_until_complete(asyncio.sleep(0.2))
        raise AssertionError(f"not within {PATIENCE} s: {expression}; {self.complaints}")

    def look(self, path: Path) -> Path:
        """Take a screenshot, PNG."""
        path.write_bytes(base64.b64decode(self._call("Page.captureScreenshot")["data"]))
        return path


@contextmanager
def browsing(folder: Path, size: str = "1280,900") -> Iterator[Page]:
    """Lend a browser with one page; WebGL is drawn by the CPU."""
    flags = ["--headless=new", "--no-sandbox", "--use-angle=swiftshader", "--no-first-run"]
    flags += ["--enable-unsafe-swiftshader", "--remote-debugging-port=0", f"--window-size={size}"]
    flags += ["--disable-dev-shm-usage", f"--user-data-dir={folder / 'profile'}", "about:blank"]
    assert BROWSER is not None
    process = subprocess.Popen([BROWSER, *flags], stderr=subprocess.PIPE, text=True)
    loop = asyncio.new_event_loop()
    socket = None
    try:
        assert process.stderr is not None
        (port,) = next(
            found.groups()
            for line in process.stderr
            if (found := re.search(r"ws://127\.0\.0\.1:(\d+)/", line))
        )
        socket = loop.run_until_complete(_connect(int(port)))
        yield Page(socket, loop)
    finally:
        if socket is not None:
            socket.close()
        process.terminate()
        process.communicate(timeout=PATIENCE)
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


async def _connect(port: int) -> Any:
    from tornado.httpclient import AsyncHTTPClient

    client = AsyncHTTPClient()
    for _ in range(PATIENCE * 5):
        answer = await client.fetch(f"http://127.0.0.1:{port}/json")
        pages = [p for p in json.loads(answer.body) if p["type"] == "page"]
        if pages:
            return await websocket_connect(
                pages[0]["webSocketDebuggerUrl"], max_message_size=1 << 28
            )
        await asyncio.sleep(0.2)
    raise AssertionError("the browser opens no page")
