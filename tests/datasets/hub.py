"""A server on this machine that speaks as much of the Hugging Face hub's protocol as a download
takes: a repository's list of files, and a file with its hash, whole or from a byte on."""

import hashlib
import http.server
import json
import threading
from contextlib import contextmanager
from urllib.parse import urlsplit

from tests.runs import PATIENCE

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Handler(http.server.BaseHTTPRequestHandler):
    timeout = PATIENCE

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(with_body=False)

    def do_GET(self):
        self.answer(with_body=True)

    def answer(self, with_body):
        path = urlsplit(self.path).path
        if path == f"/api/models/{self.server.repository}/tree/main":
            self.send_json(self.server.listing())
        elif path.startswith(f"/{self.server.repository}/resolve/"):
            self.send_file(path.rpartition("/")[2], with_body)
        else:
            self.send_error(404)

    def send_json(self, content):
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_file(self, name, with_body):
        if name not in self.server.files:
            self.send_error(404)
            return
        content = self.server.files[name]
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        self.send_response(206 if start else 200)
        for header in ("ETag", "X-Linked-ETag"):
            self.send_header(header, f'"{self.server.hash_of(name)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("Accept-Ranges", "bytes")
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if with_body:
            self.server.downloads.append(name)
            self.wfile.write(content[start : self.server.cuts.get(name)])
            self.wfile.flush()
            if name in self.server.cuts:
                self.server.is_cut.set()
                self.server.is_over.wait(PATIENCE)


class Hub(http.server.ThreadingHTTPServer):
    """Its files may be changed at any time.

    Attributes:
        files: name → bytes; hashes: name → the hash that it gives in place of the file's own.
        cuts: name → number of bytes after which it sends nothing more; downloads: names of files
            that were asked for.
    """

    daemon_threads = True

    def __init__(self, repository):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repository = repository
        self.files, self.hashes, self.cuts, self.downloads = {}, {}, {}, []
        self.is_cut, self.is_over = threading.Event(), threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def hash_of(self, name):
        return self.hashes.get(name) or hashlib.sha256(self.files[name]).hexdigest()

    def listing(self):
        return [
            {
                "type": "file",
                "path": name,
                "size": len(content),
                "oid": "0" * 40,
                "lfs": {"oid": self.hash_of(name), "size": len(content), "pointerSize": 134},
            }
            for name, content in self.files.items()
        ]


@contextmanager
def serving(repository):
    with Hub(repository) as hub:
        thread = threading.Thread(target=hub.serve_forever, args=(0.01,))
        thread.start()
        yield hub
        hub.is_over.set()
        hub.shutdown()
        thread.join()
