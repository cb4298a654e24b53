"""A proxy before an object store that misbehaves on demand.

It passes HTTP/1.1 requests on to the store, byte for byte, and answers back; what a fault changes
is only what travels, never what the store holds. A request is signed for the address it was sent
to, so a client that is given the proxy's port needs nothing else.
"""

import dataclasses
import http.client
import http.server
import socket
import struct
import threading
import time

PIECE_BYTES = 16 << 10
RESET = struct.pack("ii", 1, 0)
# Headers between two neighbours only.
HOP_HEADERS = {"connection", "keep-alive", "transfer-encoding", "content-length"}

STATUS = "status"  # answered by the proxy: with 503 SlowDown, or whatever `status` says
HANG = "hang"  # never answered, until the fault is taken away
RESET_BEFORE = "reset-before"  # the connection is reset, the store never hears of it
LOST_ANSWER = "lost-answer"  # the store does it, and the connection is reset instead of an answer
FALSE_503 = "false-503"  # the store does it, and the answer is 503 all the same
CUT = "cut"  # half of the body, then the end of the connection
RESET_BODY = "reset-body"  # half of the body, then a reset
SHORT = "short"  # half of the body, with a content-length that fits it
WRONG = "wrong"  # one byte in the middle of the body is another
SLOW = "slow"  # `bytes_per_second` each way

BEFORE = "before"  # the store has heard nothing of a request
HALF = "half"  # half of its body has been sent by the client
DONE = "done"  # the store has done it, the client does not know
ANSWERED = "answered"  # the client knows


@dataclasses.dataclass
class Fault:
    """What happens to which requests, and how often (None: until it is taken away)."""

    kind: str
    method: str = ""
    key: str = ""
    times: int | None = None
    status: int = 503
    bytes_per_second: int = 64 << 10

    def hits(self, method, path):
        """Whether this request is meant."""
        return self.method in ("", method) and self.key in path


class FaultProxy:
    """Listens on a free port before a store's; `seen` holds (method, path, status) of each request."""

    def __init__(self, store_port):
        self.store_port = store_port
        self.lock = threading.Lock()
        self.faults = []
        self.seen = []
        # Called with (stage, method, path) at the stages BEFORE, HALF, DONE and ANSWERED.
        self.watch = None
        self.connections = set()
        self.port = 0
        self.server = None
        self.start()

    def start(self):
        """Listens, on the port of before if it was stopped."""
        self.server = _Listener(("127.0.0.1", self.port), _Handler)
        self.server.proxy = self
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=[0.02], daemon=True)
        self.thread.start()

    def stop(self):
        """Refuses connections, and resets those there are: the store is down."""
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
        with self.lock:
            connections = list(self.connections)
        for connection in connections:
            _reset(connection, socket.SHUT_RDWR)

    def add(self, kind, **options):
        """Adds a fault; those added first are asked first."""
        fault = Fault(kind, **options)
        with self.lock:
            self.faults.append(fault)
        return fault

    def clear(self):
        """Takes all faults away; requests that hang are reset."""
        with self.lock:
            self.faults.clear()

    def count(self, method, key):
        """How many requests came for keys that contain `key`."""
        with self.lock:
            return sum(seen[0] == method and key in seen[1] for seen in self.seen)

    def take(self, method, path):
        """The fault for a request, spent by one."""
        with self.lock:
            for fault in self.faults:
                if fault.hits(method, path):
                    if fault.times is not None:
                        fault.times -= 1
                        if fault.times == 0:
                            self.faults.remove(fault)
                    return fault
        return None

    def active(self, fault):
        """Whether a fault is still there."""
        with self.lock:
            return any(fault is other for other in self.faults)


class _Listener(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        """A client that goes away is nothing to report."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self):
        super().setup()
        self.proxy = self.server.proxy
        self.upstream = http.client.HTTPConnection("127.0.0.1", self.proxy.store_port, timeout=60)
        with self.proxy.lock:
            self.proxy.connections.add(self.connection)

    def finish(self):
        with self.proxy.lock:
            self.proxy.connections.discard(self.connection)
        self.upstream.close()
        super().finish()

    def log_message(self, *_):
        """`seen` is the log."""

    def forward(self):
        """One request, one answer, and at most one fault."""
        fault = self.proxy.take(self.command, self.path)
        kind = fault.kind if fault else None
        if kind == RESET_BEFORE:
            return self.reset()
        self.stage(BEFORE)
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length // 2)
        self.stage(HALF)
        body += self.rfile.read(length - len(body))
        if len(body) < length:  # a client that died while it sent
            return self.reset()
        if kind == HANG:
            while self.proxy.active(fault):
                time.sleep(0.02)
            return self.reset()
        if kind == STATUS:
            return self.refuse(fault.status)
        if kind == SLOW:
            time.sleep(len(body) / fault.bytes_per_second)
        answer, content = self.ask(body)
        self.stage(DONE)
        if kind == LOST_ANSWER:
            return self.reset()
        if kind == FALSE_503:
            return self.refuse(503)
        self.answer(answer, content, fault)
        self.stage(ANSWERED)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = forward

    def stage(self, stage):
        """Tells whoever watches."""
        watch = self.proxy.watch
        if watch:
            watch(stage, self.command, self.path)

    def ask(self, body):
        """Asks the store; one that is down looks so to the client as well."""
        try:
            self.upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                self.upstream.putheader(name, value)
            self.upstream.endheaders(body or None)
            answer = self.upstream.getresponse()
            return answer, answer.read()
        except (OSError, http.client.HTTPException):
            self.reset()
            raise ConnectionResetError from None

    def answer(self, answer, content, fault):
        """Passes an answer on, changed as the fault says."""
        kind = fault.kind if fault else None
        length, half = len(content), len(content) // 2
        if kind == WRONG and content:
            content = content[:half] + bytes([content[half] ^ 0x55]) + content[half + 1 :]
        if kind == SHORT:
            content, length = content[:half], half
        if kind in (CUT, RESET_BODY):
            content = content[:half]
        if self.command == "HEAD":
            length = answer.headers.get("Content-Length", 0)
        self.note(answer.status)
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.headers.items():
            if name.lower() not in HOP_HEADERS:
                self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.send(content, fault)
        if kind == CUT:
            self.close_connection = True
        if kind == RESET_BODY:
            self.reset()

    def send(self, content, fault):
        """Sends a body, slowly if the fault says so."""
        view = memoryview(content)
        for start in range(0, len(view), PIECE_BYTES):
            piece = view[start : start + PIECE_BYTES]
            self.wfile.write(piece)
            if fault and fault.kind == SLOW:
                time.sleep(len(piece) / fault.bytes_per_second)

    def refuse(self, status):
        """An answer as S3 gives it to those it wants to slow down."""
        content = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
        self.note(status)
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def reset(self):
        """Ends the connection with a reset."""
        self.note(0)
        self.close_connection = True
        _reset(self.connection, socket.SHUT_RD)

    def note(self, status):
        with self.proxy.lock:
            self.proxy.seen.append((self.command, self.path, status))


def _reset(connection, direction):
    """Lets the close of a connection be a reset, and wakes whoever reads from it here."""
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        connection.shutdown(direction)
        connection.close()
    except OSError:
        pass
