"""A file from one of several addresses, whole or not at all: resumed where it broke off, checked, kept with its hash.

pooch downloads to one side, checks the hash and moves the file into place; how bytes come is told here, since its own
downloader begins anew wherever a connection drops.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from genomamba.fetching.catalogue import RemoteFile
from mamba_data_prep.atomic import atomic_write
from mamba_data_prep.errors import UserError

_BLOCK: Final = 2**18
_PARTIAL, _REFUSED, _NOT_SATISFIABLE, _BUSY = 206, 400, 416, 500  # statuses of HTTP, RFC 9110
_TRIES: Final = 5
"""Connections in a row that may bring nothing before an address is given up."""


class AddressError(Exception):
    """An address gave no whole file, and why."""


@dataclass(frozen=True)
class Resuming:
    """What pooch calls to download: goes on where an earlier connection, or an earlier run, stopped.

    Args:
        part: the file of what has come so far; it stays when the download is stopped.
        on_bytes: told how many bytes came, and before the first of them how many there are in all, if that is known.
        timeout: seconds without a byte after which a connection counts as dropped.
        wait: seconds before the second try, more before later ones.
    """

    part: Path
    on_bytes: Callable[[int, int | None], object] = field(default=lambda count, total: None)
    timeout: float = 30.0
    wait: float = 1.0

    def __call__(self, url: str, output_file: str, pooch: Any) -> None:
        """Downloads `url` into `output_file`.

        Raises:
            AddressError: it cannot be had whole from there.
        """
        self._forget_others(url)
        failures, why = 0, ""
        while failures < _TRIES:
            before = self._size()
            try:
                if self._connection(url):
                    os.replace(self.part, output_file)
                    self._note.unlink(missing_ok=True)
                    return
                why = "the connection dropped"
            except OSError as error:  # what requests raises is one
                why = str(error) or type(error).__name__
            failures = 0 if self._size() > before else failures + 1
            if failures:
                time.sleep(self.wait * failures)
        raise AddressError(f"gave up after {_TRIES} tries: {why}")

    def _connection(self, url: str) -> bool:
        """Takes what one connection brings; whether the file is whole then."""
        import requests

        have = self._size()
        headers = {"Accept-Encoding": "identity"}
        tag = self._noted().get("tag")
        if have:
            headers["Range"] = f"bytes={have}-"
            if tag:
                headers["If-Range"] = tag
        with requests.get(url, headers=headers, stream=True, timeout=self.timeout) as answer:
            if answer.status_code == _NOT_SATISFIABLE:
                return self._is_whole(answer.headers.get("Content-Range"), have)
            if answer.status_code >= _REFUSED:
                why = f"the server answers {answer.status_code} {answer.reason}"
                raise OSError(why) if answer.status_code >= _BUSY else AddressError(why)
            goes_on = answer.status_code == _PARTIAL and _begins(answer) == have
            have = have if goes_on else 0
            length = answer.headers.get("Content-Length")
            total = None if length is None else have + int(length)
            self._write_note(url, answer.headers.get("ETag") or answer.headers.get("Last-Modified"))
            self.on_bytes(have, total)
            with self.part.open("ab" if goes_on else "wb") as file:
                for block in answer.iter_content(_BLOCK):
                    file.write(block)
                    self.on_bytes(len(block), None)
            return total is None or self._size() == total

    def _is_whole(self, described: str | None, have: int) -> bool:
        """Whether all bytes have come already; what is longer than the file is thrown away."""
        found = re.search(r"/(\d+)$", described or "")
        if found and int(found[1]) == have:
            return True
        self.part.unlink(missing_ok=True)
        return False

    @property
    def _note(self) -> Path:
        return self.part.with_name(self.part.name + ".json")

    def _noted(self) -> dict[str, Any]:
        try:
            return json.loads(self._note.read_text())
        except (OSError, ValueError):
            return {}

    def _write_note(self, url: str, tag: str | None) -> None:
        with atomic_write(self._note) as file:
            json.dump({"url": url, "tag": tag}, file)

    def _forget_others(self, url: str) -> None:
        """What came from another address, or cannot be told, is not gone on with."""
        if self.part.exists() and self._noted().get("url") != url:
            self.part.unlink()

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0


def fetch_file(
    file: RemoteFile,
    folder: Path,
    *,
    offline: bool = False,
    say: Callable[[str], object] = print,
    on_bytes: Callable[[int, int | None], object] = lambda count, total: None,
    wait: float = 1.0,
) -> Path:
    """A file of the catalogue, from the folder if it is there whole, otherwise from the first address that gives it.

    Args:
        file: which.
        folder: where it is kept, with a note of its hash beside it.
        offline: read nothing from the network.
        say: told what is done.
        on_bytes, wait: see `Resuming`.

    Raises:
        UserError: it is not there and may not be fetched, no address gives it, or what is there was changed.
    """
    import pooch

    pooch.get_logger().setLevel("WARNING")
    path = folder / file.name
    if _is_kept(path):
        return path
    if offline:
        raise UserError(
            "the file has not been fetched yet, and --offline was asked", path=path, fix="leave it out once"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    failed: list[str] = []
    first = _first_download(path)
    for url in file.urls:
        expected = file.hash or _published(file, failed)
        if file.checksums and expected is None:
            break
        expected = expected or first
        say(f"{file.name} from {url}")
        try:
            pooch.retrieve(
                url, known_hash=expected, fname=path.name, path=path.parent,
                downloader=Resuming(part, on_bytes, wait=wait),  # pyright: ignore[reportArgumentType]
            )  # fmt: skip
        except AddressError as error:
            failed.append(f"{url}: {error}")
        except ValueError:  # the hash is another
            failed.append(f"{url}: what came is damaged, its checksum is not {expected}")
        else:
            _keep(path, url, expected)
            return path
        say(f"note: {failed[-1]}")
    fix = "try again later: what has come is kept and gone on with"
    if first is not None and not file.checksums and file.hash is None:
        fix += f"; if its source has changed it, remove {_note_of(path).name} to take it as it is now"
    raise UserError("the file could not be fetched", path=path, found="; ".join(failed), fix=fix)


def _published(file: RemoteFile, failed: list[str]) -> str | None:
    """The checksum that the source publishes beside the file, or None."""
    import requests

    for url in file.checksums:
        try:
            answer = requests.get(url, timeout=30)
            answer.raise_for_status()
        except OSError as error:
            failed.append(f"{url}: {error}")
            continue
        if found := listed(answer.text, Path(file.name).name):
            return found
        failed.append(f"{url}: does not name {file.name}")
    return None


def listed(text: str, name: str) -> str | None:
    """The checksum of a file in a list as md5sum and sha256sum write it, or BSD's; None where it is not in it.

    Examples:
        >>> listed("d41d8cd98f00b204e9800998ecf8427e  ./hg38.fa.gz", "hg38.fa.gz")
        'md5:d41d8cd98f00b204e9800998ecf8427e'
    """
    for line in text.splitlines():
        found = re.match(r"\s*([0-9a-fA-F]{32}|[0-9a-fA-F]{64})\s+\*?(\S+)\s*$", line)
        turned = re.match(r"\s*\w+ ?\((\S+)\) ?= ?([0-9a-fA-F]{32}|[0-9a-fA-F]{64})\s*$", line)
        digest, own = (found[1], found[2]) if found else (turned[2], turned[1]) if turned else ("", "")
        if digest and own.rpartition("/")[2] == name:
            return f"{'md5' if len(digest) == 32 else 'sha256'}:{digest.lower()}"
    return None


def _begins(answer: Any) -> int:
    """The first byte that an answer brings."""
    found = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    return int(found[1]) if found else -1


def _is_kept(path: Path) -> bool:
    """Whether a file lies there as it was fetched.

    Raises:
        UserError: it was changed since, or nobody knows what it should be.
    """
    note = _note_of(path)
    if not path.exists():
        return False
    if not note.exists():
        raise UserError("a file that was not fetched lies where one would be put", path=path, fix="move it away")
    known: Mapping[str, Any] = json.loads(note.read_text())
    if known["bytes"] != path.stat().st_size or known["sha256"] != _sha256(path):
        raise UserError("the file was changed after it was fetched", path=path, fix="remove it and fetch it again")
    return True


def _first_download(path: Path) -> str | None:
    """The hash of a file that was fetched once and is gone; None where it never was."""
    note = _note_of(path)
    return f"sha256:{json.loads(note.read_text())['sha256']}" if note.exists() else None


def _keep(path: Path, url: str, expected: str | None) -> None:
    """Notes what the file is, so that it is known again without the network."""
    note = {
        "url": url, "published": expected, "sha256": _sha256(path), "bytes": path.stat().st_size,
        "fetched": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip
    with atomic_write(_note_of(path)) as file:
        json.dump(note, file, indent=2)
        file.write("\n")


def _note_of(path: Path) -> Path:
    return path.with_name(path.name + ".fetched.json")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
