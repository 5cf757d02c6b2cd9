"""A server on the loopback address that fails as servers do."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Files(ThreadingHTTPServer):
    """Serves ``contents`` (bytes by path).

    Attributes:
        breaks: the connection is cut after so many bytes, as often as this list is long.
        ranges: whether it knows the header Range.
        requests: the path and the Range of each request.
        slow: an event for which an answer waits in the middle of the file.
    """

    daemon_threads = True

    def __init__(self, contents):
        super().__init__(('127.0.0.1', 0), _Handler)
        self.contents, self.breaks, self.ranges, self.requests, self.slow = contents, [], True, [], None

    @property
    def url(self):
        return f'http://127.0.0.1:{self.server_port}'


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        server = self.server
        begin = self.headers.get('Range')
        server.requests.append((self.path, begin))
        content = server.contents.get(self.path)
        if content is None:
            self.send_error(404)
            return
        start = int(begin.removeprefix('bytes=').rstrip('-')) if begin and server.ranges else 0
        if start and start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header('Content-Range', f'bytes {start}-{len(content) - 1}/{len(content)}')
        self.send_header('Content-Length', str(len(content) - start))
        self.end_headers()
        rest = content[start:]
        if server.breaks:
            self.wfile.write(rest[: server.breaks.pop(0)])
            self.wfile.flush()
            self.connection.close()
            return
        if server.slow is not None:
            self.wfile.write(rest[: len(rest) // 2])
            self.wfile.flush()
            server.slow.wait(60)
            rest = rest[len(rest) // 2 :]
        self.wfile.write(rest)


@contextmanager
def serving(contents):
    server = Files(contents)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
