"""Hub ids, against a server on this machine that answers as the hub does.

The hub itself is out of reach of these tests. The client is huggingface_hub, in a process of its
own, since it reads the hub's address when it is imported.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

pytest.importorskip("huggingface_hub")
pytest.importorskip("transformers")
pytest.importorskip("torch")

from small_captioners import vit_gpt2

NAME = "someone/vit-gpt2"
ASK = """
import json, sys
from edgecap.export.importers import open_source
from edgecap.runtime.errors import EdgeCapError
try:
    found = open_source(sys.argv[1])
    print(json.dumps({"family": found.family, "notes": found.notes}))
except EdgeCapError as error:
    print(json.dumps({"error": str(error)}))
"""


class Hub:
    """branches : revision -> file name -> bytes; requests : (author, title, number)"""

    def __init__(self, branches: dict[str, dict[str, bytes]], requests: list[tuple[str, str, int]]):
        self.branches, self.requests = branches, requests
        self.served: list[str] = []

    def answer(self, path: str) -> tuple[int, Any, dict[str, str]]:
        if path == f"/api/models/{NAME}/discussions":
            return 200, self._discussions(), {}
        start = f"/api/models/{NAME}/revision/"
        if path.startswith(start) and path[len(start) :] in self.branches:
            return 200, self._info(path[len(start) :]), {}
        start = f"/api/models/{NAME}/tree/"
        for branch, files in self.branches.items():
            if path == start + commit(branch):
                return 200, [tree_entry(*item) for item in files.items()], {}
        start = f"/{NAME}/resolve/"
        if path.startswith(start):
            sha, _, name = path[len(start) :].partition("/")
            for branch, files in self.branches.items():
                if sha == commit(branch) and name in files:
                    self.served.append(name)
                    etag = hashlib.sha256(files[name]).hexdigest()
                    return 200, files[name], {"ETag": f'"{etag}"', "X-Repo-Commit": sha}
        return 404, {"error": "not found"}, {"X-Error-Code": "RepoNotFound"}

    def _info(self, branch: str) -> dict[str, Any]:
        siblings = [{"rfilename": name} for name in self.branches[branch]]
        return {"id": NAME, "modelId": NAME, "sha": commit(branch), "siblings": siblings}

    def _discussions(self) -> dict[str, Any]:
        rows = [
            {
                "title": title,
                "num": number,
                "author": {"name": author},
                "createdAt": "2023-01-01T00:00:00.000Z",
                "status": "open",
                "repo": {"name": NAME, "type": "model"},
                "isPullRequest": True,
            }
            for author, title, number in self.requests
        ]
        return {"discussions": rows, "count": len(rows), "start": 0}


def commit(branch: str) -> str:
    return hashlib.sha1(branch.encode()).hexdigest()


def tree_entry(name: str, data: bytes) -> dict[str, Any]:
    oid = hashlib.sha1(data).hexdigest()
    return {"type": "file", "path": name, "size": len(data), "oid": oid}


@pytest.fixture
def serve() -> Iterator[Callable[[Hub], str]]:
    running = []

    def start(hub: Hub) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body, headers = hub.answer(unquote(urlsplit(self.path).path))
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(data)

            do_HEAD = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        running.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("model")
    vit_gpt2(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def ask(address: str, cache: Path) -> dict[str, Any]:
    plain = {k: v for k, v in os.environ.items() if not k.upper().endswith("_PROXY")}
    environment = {**plain, "HF_ENDPOINT": address, "HF_HOME": str(cache), "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", ASK, NAME],
        env=environment, capture_output=True, text=True, timeout=200, check=True,
    )  # fmt: skip
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def pickled(files: dict[str, bytes]) -> dict[str, bytes]:
    kept = {name: data for name, data in files.items() if name != "model.safetensors"}
    return {**kept, "pytorch_model.bin": b"a pickle that nobody opens"}


def test_a_hub_id_is_fetched(serve, files: dict[str, bytes], tmp_path: Path) -> None:
    hub = Hub({"main": {**files, "run.py": b"raise SystemExit"}}, [])
    found = ask(serve(hub), tmp_path)
    assert found.get("family") == "vit-gpt2", found
    assert not any("branch" in note for note in found["notes"])
    assert "model.safetensors" in hub.served
    assert "run.py" not in hub.served


def test_the_hubs_own_conversion_of_a_pickle(serve, files: dict[str, bytes], tmp_path) -> None:
    requests = [
        ("somebody", "Adding `safetensors` variant of this model", 3),
        ("SFconvertbot", "Adding `safetensors` variant of this model", 5),
    ]
    hub = Hub({"main": pickled(files), "refs/pr/5": files, "refs/pr/3": {}}, requests)
    found = ask(serve(hub), tmp_path)
    assert found.get("family") == "vit-gpt2", found
    assert any("refs/pr/5" in note for note in found["notes"])
    assert "pytorch_model.bin" not in hub.served


def test_a_pickle_that_nobody_converted(serve, files: dict[str, bytes], tmp_path: Path) -> None:
    requests = [("somebody", "Adding `safetensors` variant of this model", 3)]
    found = ask(serve(Hub({"main": pickled(files), "refs/pr/3": files}, requests)), tmp_path)
    assert "safetensors" in found["error"]


def test_what_the_hub_does_not_have(serve, tmp_path: Path) -> None:
    assert "hub did not give it" in ask(serve(Hub({}, [])), tmp_path)["error"]
