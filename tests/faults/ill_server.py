"""A server that is ill: it stands before a real one, and fails as servers do, for as long as it is told to."""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

Illness = Literal["500", "429", "silent", "cut", "torn", "none"]
ILLNESSES: tuple[Illness, ...] = ("500", "429", "silent", "cut", "torn")


@dataclass(slots=True)
class Ill:
    """What ails it now, and how many requests had to bear it.

    Attributes:
        port: where it listens, on 127.0.0.1.
        illness: `500` and `429` are answers, `silent` is none, `cut` ends amid an answer, when the real server has
            done what it was asked, `torn` amid what is sent to it, an upload say.
    """

    port: int
    illness: Illness
    borne: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self) -> None:
        with self._lock:
            self.borne += 1


@contextmanager
def ill_server(real: int, illness: Illness) -> Iterator[Ill]:
    """Stand before the server at port `real`."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            now, length = ill.illness, int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length // 2 if now == "torn" else length)
            if now != "none":
                ill.count()
            if now == "torn" and length:
                self.close_connection = True
                return
            if now in {"500", "429"}:
                self.close_connection = True
                self.send_response(int(now), "ill")
                self.send_header("Retry-After", "1")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if now == "silent":
                over.wait(600)
                self.close_connection = True
                return
            status, headers, answer = self._of_the_real_one(body)
            self.send_response(status)
            for name, value in headers:
                if name.lower() not in {"transfer-encoding", "connection", "content-length", "date", "server"}:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer) + 100 * (now == "cut")))
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(answer[: len(answer) // 2] if now == "cut" else answer)
            self.close_connection = now == "cut"

        def _of_the_real_one(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
            connection = http.client.HTTPConnection("127.0.0.1", real, timeout=60)
            headers = {k: v for k, v in self.headers.items() if k.lower() not in {"host", "connection"}}
            connection.request(self.command, self.path, body, {**headers, "Host": f"127.0.0.1:{real}"})
            response = connection.getresponse()
            found = (response.status, response.getheaders(), response.read())
            connection.close()
            return found

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815  http.server's names

        def log_message(self, *_: object) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    ill = Ill(listening.server_address[1], illness)
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    try:
        yield ill
    finally:
        over.set()
        listening.shutdown()
        listening.server_close()
