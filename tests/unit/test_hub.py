"""Hugging Face Hub, against an endpoint on this machine that speaks the part of its API in use.

Not seen here: the real Hub, files that it takes by another way because of their size (LFS, Xet).
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from helpers import MINI, TESTS, Runner, jittered

from sepvit_edge import save_checkpoint
from sepvit_edge.checkpoints.builtin import locate
from sepvit_edge.errors import SepViTError
from sepvit_edge.hub import parse_address

pytest.importorskip("huggingface_hub")
COMMIT = "0123456789012345678901234567890123456789"
PACKAGE = TESTS / "vectors" / "package"


class Hub(ThreadingHTTPServer):
    """Repositories by name, each a mapping of paths to contents."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.denies = False


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, document: object, status: int = 200, **headers: str) -> None:
        self._answer(
            status, json.dumps(document).encode(), Content_Type="application/json", **headers
        )

    def _missing(self, what: str) -> None:
        self._json({"error": "not found"}, 404, X_Error_Code=what)

    def do_GET(self) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        api = parts[:2] == ["api", "models"]
        name = "/".join(parts[2:4] if api else parts[:2])
        files = self.server.repositories.get(name)
        if files is None:
            return self._missing("RepoNotFound")
        revision = next((parts[i + 1] for i, p in enumerate(parts) if p in PLACES), "main")
        if revision not in ("main", COMMIT):
            return self._missing("RevisionNotFound")
        if api:
            siblings = [{"rfilename": path} for path in files]
            return self._json({"id": name, "sha": COMMIT, "siblings": siblings})
        path = "/".join(parts[4:])
        if path not in files:
            return self._missing("EntryNotFound")
        etag = hashlib.sha256(files[path]).hexdigest()
        self._answer(200, files[path], ETag=f'"{etag}"', X_Repo_Commit=COMMIT)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.server.denies:
            return self._json({"error": "no right to write"}, 403)
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            organisation = asked.get("organization") or "someone"
            name = f"{organisation}/{asked['name']}"
            if name in self.server.repositories:
                return self._json(
                    {"error": "exists", "url": f"http://{self.headers['Host']}/{name}"}, 409
                )
            self.server.repositories[name] = {}
            self.server.private[name] = asked.get("private") or asked.get("visibility") == "private"
            return self._json({"url": f"http://{self.headers['Host']}/{name}"})
        name = "/".join(self.path.split("/")[3:5])
        if "/preupload/" in self.path:
            files = [
                {**file, "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            return self._json({"files": files})
        if "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    value = line["value"]
                    content = base64.b64decode(value["content"])
                    self.server.repositories[name][value["path"]] = content
            url = f"http://{self.headers['Host']}/{name}/commit/{COMMIT}"
            return self._json({"commitUrl": url, "commitOid": COMMIT})
        self._json({})  # validation of the card


PLACES = ("revision", "resolve")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    from huggingface_hub import constants

    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_test")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def weights(tmp_path: Path) -> bytes:
    save_checkpoint(jittered(MINI, image_size=32), tmp_path / "lite.safetensors")
    return (tmp_path / "lite.safetensors").read_bytes()


def test_a_checkpoint_is_downloaded(hub: Hub, weights: bytes) -> None:
    hub.repositories["someone/sepvit"] = {
        "README.md": b"# a card",
        "model.safetensors": weights,
        "old.pth": b"x",
        "p/golden.safetensors": b"y",
    }
    path, key = locate("hf://someone/sepvit")
    assert path.read_bytes() == weights and key == ""
    path, key = locate("hf://someone/sepvit@main/old.pth::model")
    assert path.read_bytes() == b"x" and key == "model"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("hf://someone", "is not an address on the Hub"),
        ("hf://someone/none", "there is no hf://someone/none, or it is private"),
        ("hf://someone/two", "name one, as hf://someone/two/a.safetensors"),
        ("hf://someone/empty", "has no checkpoint"),
        ("hf://someone/two/none.pth", "there is no such file"),
        ("hf://someone/two@v9/a.safetensors", "there is no such revision"),
        ("hf://someone/-bad-", "is not a name that the Hub allows"),
    ],
)
def test_what_cannot_be_downloaded_is_one_sentence(
    hub: Hub, run_command: Runner, address: str, message: str
) -> None:
    hub.repositories["someone/two"] = {"a.safetensors": b"", "b.safetensors": b""}
    hub.repositories["someone/empty"] = {"README.md": b""}
    done = run_command("export", "--weights", address)
    assert done.status == 2 and message in done.err, done.err
    assert done.err.count("error:") == 1


def test_a_hub_that_is_away_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("time.sleep", lambda _: None)  # between its attempts
    with pytest.raises(SepViTError, match="the Hub cannot be reached"):
        locate("hf://someone/sepvit")
    with pytest.raises(SepViTError, match="the Hub cannot be reached"):
        locate("hf://someone/sepvit/a.safetensors")


def test_a_package_is_published_with_a_card(hub: Hub, run_command: Runner) -> None:
    arguments = ("push", PACKAGE, "hf://someone/new", "--license", "Apache-2.0", "--private")
    done = run_command(*arguments)
    assert done.status == 0, done.err
    assert done.out.endswith(f"/someone/new/commit/{COMMIT}\n")
    files = hub.repositories["someone/new"]
    assert hub.private["someone/new"]
    own = {f"package/{path.name}": path.read_bytes() for path in PACKAGE.iterdir()}
    assert {name: data for name, data in files.items() if name != "README.md"} == own
    card = files["README.md"].decode()
    assert card.startswith("---\nlicense: apache-2.0\n")
    assert "| `package` | onnxruntime " in card and "Not measured." in card
    again = run_command(*arguments[:3])
    assert again.status == 0
    assert "Their licence was not given" in hub.repositories["someone/new"]["README.md"].decode()


def test_a_dry_run_publishes_nothing(hub: Hub, run_command: Runner) -> None:
    done = run_command("push", PACKAGE, "hf://someone/new", "--dry-run", "--json")
    assert done.status == 0 and json.loads(done.out)["url"] is None
    assert hub.repositories == {}


def test_a_refusal_of_the_hub_is_one_sentence(hub: Hub, run_command: Runner) -> None:
    hub.denies = True
    done = run_command("push", PACKAGE, "hf://someone/new")
    assert done.status == 2 and "the Hub answered 403" in done.err and "hf auth login" in done.err
    wrong = run_command("push", PACKAGE, "hf://someone/new/file")
    assert wrong.status == 2 and "names a file" in wrong.err
    odd = run_command("push", PACKAGE, "hf://someone/new", "--license", "MIT\ntags: x")
    assert odd.status == 2 and "is not an SPDX identifier" in odd.err


def test_measurements_of_the_package_are_told(
    hub: Hub, run_command: Runner, tmp_path: Path
) -> None:
    from helpers import profile_with

    from sepvit_edge.profiling.results import save_result

    digest = json.loads((PACKAGE / "manifest.json").read_bytes())["digest"]
    save_result(profile_with([1, 2, 3], package__digest=digest), tmp_path)
    save_result(profile_with([7, 8, 9], package__digest="0" * 64), tmp_path)
    done = run_command("push", PACKAGE, "hf://someone/new", "--dry-run", "--results", tmp_path)
    assert done.status == 0 and "| 2.00 ms | 2.80 ms |" in done.out and "8.00 ms" not in done.out


def test_addresses() -> None:
    assert parse_address("hf://a/b").file == ""
    assert parse_address("hf://a/b@c/d/e.pth").file == "d/e.pth"
    for text in ("hf://", "hf://a", "hf://a/b@", "a/b", "hf:/a/b", "hf://a/b@c/"):
        with pytest.raises(SepViTError):
            parse_address(text)
