"""Data by name, from a server that drops connections, serves damage, knows no ranges, or isn't there."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

from genomamba.cli import cli
from genomamba.commands.fetch import run_fetch
from genomamba.fetching import catalogue as catalogues
from genomamba.fetching.catalogue import Entry, RemoteFile, catalogue, entry_named
from genomamba.fetching.download import fetch_file, listed
from mamba_data_prep.errors import Interrupted, UserError

DATA = bytes(range(256)) * 4096  # 1 MiB


@dataclass
class Server:
    """A server and its faults.

    Attributes:
        drops: bytes after which each of the first connections breaks off.
        ranges: whether it goes on in the middle of a file.
        tag: changes with the file.
        asked: path and Range header of every request.
    """

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    drops: list[int] = field(default_factory=list)
    ranges: bool = True
    tag: str = '"one"'
    asked: list[tuple[str, str | None]] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.asked.append((self.path, wanted))
            name = self.path.removeprefix("/")
            if name not in state.files:
                self.send_error(503 if name == "busy" else 404)
                return
            data, first = state.files[name], 0
            same = self.headers.get("If-Range") in (None, state.tag)
            if wanted and state.ranges and same:
                first = int(wanted.removeprefix("bytes=").removesuffix("-"))
                if first >= len(data):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(data)}")
                    self.end_headers()
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(data) - first))
            self.send_header("ETag", state.tag)
            self.end_headers()
            rest = data[first:]
            if state.drops:
                self.wfile.write(rest[: state.drops.pop(0)])
                self.wfile.flush()
                self.connection.close()
                return
            self.wfile.write(rest)

        def log_message(self, format: str, *arguments: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        state.address = f"http://127.0.0.1:{running.server_address[1]}"
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield state
        running.shutdown()
        thread.join()


def remote(server: Server, asked: str = "f", **more: object) -> RemoteFile:
    digest = hashlib.sha256(DATA).hexdigest()
    given = {"name": "f.gz", "urls": [f"{server.address}/{asked}"], "hash": f"sha256:{digest}", **more}
    return RemoteFile.model_validate(given)


def get(file: RemoteFile, folder: Path, **more: object) -> Path:
    return fetch_file(file, folder, say=lambda text: None, wait=0.0, **more)  # pyright: ignore[reportArgumentType]


def test_a_dropped_connection_goes_on_at_the_byte(server: Server, tmp_path: Path) -> None:
    server.files["f"], server.drops = DATA, [300_000, 1, 500_000]
    came: list[tuple[int, int | None]] = []
    path = get(remote(server), tmp_path, on_bytes=lambda count, total: came.append((count, total)))
    assert path.read_bytes() == DATA
    starts = [
        0 if wanted is None else int(wanted.removeprefix("bytes=").removesuffix("-")) for _, wanted in server.asked
    ]
    assert len(starts) == 4
    assert starts == sorted(starts)
    assert starts[1] > 0
    assert [count for count, total in came if total is not None] == starts
    assert {total for _, total in came} == {None, len(DATA)}
    assert sorted(one.name for one in tmp_path.iterdir()) == ["f.gz", "f.gz.fetched.json"]


def test_a_stopped_run_is_gone_on_with_by_the_next(server: Server, tmp_path: Path) -> None:
    server.files["f"] = DATA

    def stop(count: int, total: int | None) -> None:
        if total is None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get(remote(server), tmp_path, on_bytes=stop)
    part = (tmp_path / "f.gz.part").stat().st_size
    assert 0 < part < len(DATA)
    assert get(remote(server), tmp_path).read_bytes() == DATA
    assert server.asked[-1] == ("/f", f"bytes={part}-")


@pytest.mark.parametrize("fault", ["no ranges", "another file since"])
def test_what_cannot_be_gone_on_with_begins_anew(server: Server, tmp_path: Path, fault: str) -> None:
    server.files["f"], server.drops = b"\0" * len(DATA), [400_000]

    def stop(count: int, total: int | None) -> None:
        if total is None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get(remote(server), tmp_path, on_bytes=stop)
    server.files["f"] = DATA
    if fault == "no ranges":
        server.ranges = False
    else:
        server.tag = '"two"'
    assert get(remote(server), tmp_path).read_bytes() == DATA


def test_a_whole_part_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    server.files["f"] = DATA
    file = remote(server)
    (tmp_path / "f.gz.part").write_bytes(DATA)
    (tmp_path / "f.gz.part.json").write_text(json.dumps({"url": file.urls[0], "tag": server.tag}))
    assert get(file, tmp_path).read_bytes() == DATA
    (tmp_path / "g.gz.part").write_bytes(DATA + b"more")
    (tmp_path / "g.gz.part.json").write_text(json.dumps({"url": file.urls[0], "tag": server.tag}))
    assert get(file.model_copy(update={"name": "g.gz"}), tmp_path).read_bytes() == DATA


def test_a_damaged_file_is_refused_and_the_next_address_tried(server: Server, tmp_path: Path) -> None:
    server.files |= {"bad": DATA[:-1] + b"!", "good": DATA}
    file = remote(server, urls=[f"{server.address}/{name}" for name in ("missing", "busy", "bad", "good")])
    said: list[str] = []
    assert fetch_file(file, tmp_path, say=said.append, wait=0.0).read_bytes() == DATA
    notes = " ".join(said)
    assert "404" in notes
    assert "503" in notes
    assert "damaged" in notes
    only = remote(server, "bad")
    with pytest.raises(UserError, match="could not be fetched") as caught:
        get(only, tmp_path / "other")
    assert "damaged" in str(caught.value.found)
    assert not any((tmp_path / "other").glob("f.gz*"))


def test_a_server_that_brings_nothing_is_given_up(server: Server, tmp_path: Path) -> None:
    server.files["f"], server.drops = DATA, [0] * 50
    with pytest.raises(UserError) as caught:
        get(remote(server), tmp_path)
    assert "gave up after 5 tries" in str(caught.value.found)
    assert len(server.asked) == 5
    closed = remote(server, urls=["http://127.0.0.1:9/f"])
    with pytest.raises(UserError):
        get(closed, tmp_path)


def test_the_published_checksum_decides(server: Server, tmp_path: Path) -> None:
    server.files |= {"f": DATA, "sums": f"{hashlib.md5(DATA).hexdigest()}  ./f.gz\n".encode()}
    published = {"hash": None, "checksums": [f"{server.address}/none", f"{server.address}/sums"]}
    assert get(remote(server, **published), tmp_path).read_bytes() == DATA
    note = json.loads((tmp_path / "f.gz.fetched.json").read_text())
    assert note["published"] == f"md5:{hashlib.md5(DATA).hexdigest()}"
    server.files["sums"] = b"0" * 32 + b" *f.gz\n"
    with pytest.raises(UserError) as caught:
        get(remote(server, **published), tmp_path / "b")
    assert "damaged" in str(caught.value.found)
    server.files["sums"] = b"0" * 32 + b"  another\n"
    with pytest.raises(UserError) as caught:
        get(remote(server, **published), tmp_path / "c")
    assert "does not name f.gz" in str(caught.value.found)


def test_what_is_there_is_taken_without_the_network_and_noticed_where_changed(server: Server, tmp_path: Path) -> None:
    server.files["f"] = DATA
    file = remote(server, hash=None)
    with pytest.raises(UserError, match="--offline"):
        get(file, tmp_path, offline=True)
    path = get(file, tmp_path)
    asked = len(server.asked)
    assert get(file, tmp_path, offline=True) == path
    assert get(file, tmp_path) == path
    assert len(server.asked) == asked
    path.write_bytes(DATA[:-1] + b"!")
    with pytest.raises(UserError, match="changed after it was fetched"):
        get(file, tmp_path)
    path.unlink()
    server.files["f"] = DATA[::-1]
    with pytest.raises(UserError) as caught:  # it is held to its first download
        get(file, tmp_path)
    assert "remove f.gz.fetched.json" in str(caught.value.fix)
    (tmp_path / "f.gz.fetched.json").unlink()
    assert get(file, tmp_path).read_bytes() == DATA[::-1]
    (tmp_path / "f.gz.fetched.json").unlink()
    with pytest.raises(UserError, match="not fetched"):
        get(file, tmp_path)


def test_a_busy_server_is_asked_again(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        get(remote(server, "busy"), tmp_path)
    assert len(server.asked) == 5
    server.asked.clear()
    with pytest.raises(UserError):
        get(remote(server, "missing"), tmp_path)
    assert len(server.asked) == 1


def test_lists_of_checksums_are_read_in_each_form() -> None:
    md5, sha = "A" * 32, "b" * 64
    assert listed(f"{md5}  x.fa\n{sha} *dir/hg38.fa.gz\n", "hg38.fa.gz") == f"sha256:{sha}"
    assert listed(f"MD5 (./x.fa) = {md5}\n", "x.fa") == f"md5:{md5.lower()}"
    assert listed(f"{md5}  x.fa.gz\n", "x.fa") is None
    assert listed("", "x.fa") is None


def test_the_catalogue_is_whole() -> None:
    known = catalogue()
    assert {"hg38", "chm13", "epdnew", "clinvar", "genomic-benchmarks"} <= set(known)
    for entry in known.values():
        assert entry.about
        assert entry.terms
        names = [file.name for file in entry.files]
        assert len(set(names)) == len(names)
        assert all(url.startswith("https://") for file in entry.files for url in (*file.urls, *file.checksums))
    with pytest.raises(UserError, match="no such data") as caught:
        entry_named("hg83")
    assert "hg38" in str(caught.value.fix)


def test_the_command_fetches_lists_and_goes_on(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files |= {"f": DATA, "g": b"g"}
    files = (remote(server), remote(server, "g", name="sub/g.txt", hash=None))
    entry = Entry(about="Something small.", terms="none", files=files)
    monkeypatch.setattr(catalogues, "catalogue", lambda: {"small": entry})
    monkeypatch.setenv("SEQMAMBA_DATA", str(tmp_path / "data"))
    done = CliRunner().invoke(cli, ["fetch", "small", "--json"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "data" / "small" / "f.gz").read_bytes() == DATA
    assert (tmp_path / "data" / "small" / "sub" / "g.txt").read_bytes() == b"g"
    assert CliRunner().invoke(cli, ["fetch", "small", "--offline"]).exit_code == 0
    missing = CliRunner().invoke(cli, ["fetch", "small", "--offline", "--out", str(tmp_path / "other")])
    assert missing.exit_code == 2
    listing = CliRunner().invoke(cli, ["fetch"])
    assert "hg38" in listing.output
    assert "checksum published beside it" in listing.output


def test_a_stop_says_how_to_go_on(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*given: object, **more: object) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr("genomamba.commands.fetch.fetch_file", stopped)
    with pytest.raises(Interrupted, match="what has come is kept"):
        run_fetch(name="epdnew", out=tmp_path)
