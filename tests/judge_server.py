"""A judge behind HTTP on this machine, which behaves as it is told: well, badly, slowly or not at all."""

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

JSON = "application/json"


def completion(content="A", **message):
    """The body of a chat completion."""
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": content, **message}}]})


class Server(ThreadingHTTPServer):
    """Answers each request as `reply(body, number)` says.

    `reply` is given the request and its number from 0; it returns the content of a chat completion, or
    `(status, content type, body)`, or None to close the connection without a word.

    Attributes:
        requests: bodies of the requests, in the order of their arrival.
        headers: of the requests.
        most_at_once: how many requests were being answered together.
        released: set when the server shall stop waiting.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, reply):
        super().__init__(("127.0.0.1", 0), Handler)
        self.reply = reply
        self.requests, self.headers = [], []
        self.lock, self.released = threading.Lock(), threading.Event()
        self.at_once = self.most_at_once = 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request, client_address):
        """A client that went away."""


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.lock:
            number = len(self.server.requests)
            self.server.requests.append(body)
            self.server.headers.append(self.headers)
            self.server.at_once += 1
            self.server.most_at_once = max(self.server.most_at_once, self.server.at_once)
        try:
            said = self.server.reply(body, number)
        finally:
            with self.server.lock:
                self.server.at_once -= 1
        if said is not None:
            status, kind, text = (200, JSON, completion(said)) if isinstance(said, str) else said
            self.say(status, kind, text)

    def say(self, status, kind, text):
        pieces = [text.encode()] if isinstance(text, str) else text
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("retry-after", "0")
        self.end_headers()
        for piece in pieces:
            self.wfile.write(piece)
            self.wfile.flush()

    def log_message(self, *args):
        pass


@contextmanager
def serving(reply):
    """A server that runs while the block does."""
    server = Server(reply)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


def slowly(server, piece=b" ", pause_s=0.02):
    """A body that never ends, a little at a time."""
    while not server.released.is_set():
        yield piece
        time.sleep(pause_s)
