"""A server on this machine that speaks as much of the Hugging Face hub's protocol as a download
and an upload take: what a repository is at, its list of files, a file, whole or from a byte on, and a
commit."""

import base64
import hashlib
import http.server
import json
import threading
from contextlib import contextmanager
from urllib.parse import unquote, urlsplit

import huggingface_hub.constants as constants

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

    def do_POST(self):
        """Takes a commit as its client sends it: a line of JSON for each file, its content in base64."""
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append(path)
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = (
                f"{asked['organization']}/{asked['name']}"
                if asked.get("organization")
                else asked["name"]
            )
            self.server.repositories.setdefault(name, {})
            self.server.private[name] = asked.get("private") or asked.get("visibility") == "private"
            self.send_json({"url": f"{self.server.url}/{name}"})
        elif "/preupload/" in path:
            files = json.loads(body)["files"]
            facts = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
            self.send_json({"files": [{"path": file["path"], **facts} for file in files]})
        elif "/commit/" in path:
            name = "/".join(path.removeprefix("/api/models/").split("/")[:2])
            for line in body.splitlines():
                item = json.loads(line)
                if item["key"] == "file":
                    content = base64.b64decode(item["value"]["content"])
                    self.server.repositories[name][item["value"]["path"]] = content
            url = f"{self.server.url}/{name}/commit/{self.server.commit}"
            self.send_json({"success": True, "commitOid": self.server.commit, "commitUrl": url})
        else:
            self.send_json({"errors": [], "warnings": []})

    def answer(self, with_body):
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append(path)
        if path.startswith("/api/models/"):
            owner, name, *rest = path.removeprefix("/api/models/").split("/")
            files = self.server.files_of(f"{owner}/{name}")
            if not files:
                self.send_error(404)
            elif rest[:1] == ["tree"]:
                self.server.revisions.append(rest[1])
                self.send_json(self.server.listing(files))
            else:
                self.send_json({"id": f"{owner}/{name}", "sha": self.server.commit})
        else:
            place, _, file = path[1:].partition("/resolve/")
            self.send_file(self.server.files_of(place), file.partition("/")[2], with_body)

    def send_json(self, content):
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_file(self, files, name, with_body):
        if name not in files:
            self.send_error(404)
            return
        if name in self.server.redirects:
            self.send_response(302)
            self.send_header("Location", self.server.redirects[name])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = files[name] + self.server.surplus
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        self.send_response(206 if start else 200)
        for header in ("ETag", "X-Linked-ETag"):
            etag = self.server.etag or hashlib.sha256(content).hexdigest()
            self.send_header(header, f'"{etag}"')
        self.send_header("X-Repo-Commit", self.server.commit)
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
    """What it has and how it lies may be changed at any time.

    Attributes:
        repositories: name → its files, name → bytes; ``files``: those of the first.
        commit: what every repository is at; private: name → whether it was made so.
        hashes: name → the hash that it states in place of the file's own; sizes: likewise.
        etag: what it sends as the ETag of any file, if not the hash; surplus: bytes that it sends
            after any file.
        redirects: name → the address that it sends a client to.
        cuts: name → number of bytes after which it sends nothing more.
        downloads: names of files that were sent; requests: paths; revisions: those that were listed.
    """

    daemon_threads = True

    def __init__(self, repository):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories = {repository: {}}
        self.first = repository
        self.commit = COMMIT
        self.private = {}
        self.hashes, self.sizes, self.redirects, self.cuts = {}, {}, {}, {}
        self.etag, self.surplus = "", b""
        self.downloads, self.requests, self.revisions = [], [], []
        self.is_cut, self.is_over = threading.Event(), threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"

    @property
    def files(self):
        return self.repositories[self.first]

    @files.setter
    def files(self, files):
        self.repositories[self.first] = files

    def files_of(self, repository):
        return self.repositories.get(repository, {})

    def listing(self, files):
        return [
            {
                "type": "file",
                "path": name,
                "size": self.sizes.get(name, len(content)),
                "oid": "0" * 40,
                "lfs": {
                    "oid": self.hashes.get(name, hashlib.sha256(content).hexdigest()),
                    "size": self.sizes.get(name, len(content)),
                    "pointerSize": 134,
                },
            }
            for name, content in files.items()
        ]


@contextmanager
def serving(repository, monkeypatch, cache):
    """The server as the hub of this process, with an empty folder as the client's cache."""
    with Hub(repository) as hub:
        monkeypatch.setenv("no_proxy", "*")
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", f"{cache}")
        thread = threading.Thread(target=hub.serve_forever, args=(0.01,))
        thread.start()
        yield hub
        hub.is_over.set()
        hub.shutdown()
        thread.join()
