"""From a file's bytes to its text: compression, encodings, and the files that only look like tables."""

from __future__ import annotations

import gzip
import io
import re
import zlib
from pathlib import Path

from mamba_data_prep.bytestream import opened
from mamba_data_prep.errors import UserError
from mamba_data_prep.series.report import IngestReport
from mamba_data_prep.workbooks import is_workbook, sheet_names, sheet_text

LARGEST = 8 << 30
"""Bytes a compressed table may unfold to."""

_ACCEPTED = "CSV or other delimited text (plain or gzip), Parquet, or an Excel workbook (.xlsx)"
_KINDS: tuple[tuple[bytes, str, str], ...] = (
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook (.xls)", "open it and save it as .xlsx, or the sheet as CSV UTF-8"),
    (b"BZh", "compressed with bzip2", "bunzip2 it, or recompress it with gzip"),
    (b"\xfd7zXZ\x00", "compressed with xz", "unxz it, or recompress it with gzip"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "unzstd it, or recompress it with gzip"),
    (b"7z\xbc\xaf", "a 7z archive", "unpack it and give the file inside"),
    (b"%PDF", "a PDF", "download the data itself as CSV"),
    (b"\x89HDF", "HDF5", "export the table as CSV or Parquet"),
    (
        b"SQLite format 3",
        "an SQLite database",
        "export the table as CSV: sqlite3 -csv -header FILE 'select * from TABLE'",
    ),
    (b"ARROW1", "an Arrow (Feather) file", "save it as Parquet"),
    (b"\x93NUMPY", "a NumPy array", "save it as CSV: numpy.savetxt(..., delimiter=',')"),
    (b"\x80\x04", "a Python pickle, which can run code when it is opened", "save the table as CSV or Parquet"),
    (b"\x80\x05", "a Python pickle, which can run code when it is opened", "save the table as CSV or Parquet"),
    (b"\x7fELF", "a program", "give the table"),
    (b"\x89PNG", "a picture", "give the table that it was drawn from"),
)
_BOMS = ((b"\xff\xfe\0\0", "utf-32"), (b"\0\0\xfe\xff", "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_WEB_PAGE = re.compile(r"\s*<(!doctype|html|head|body|table|\?xml)", re.IGNORECASE)


def read_bytes(path: str | Path, report: IngestReport) -> bytes:
    """Gives a file's bytes, unfolded if they are gzip.

    Raises:
        UserError: the file is missing, broken, or of a kind that holds no delimited text.
    """
    with opened(path) as stream:
        data = stream.read()
    if data[:2] == b"\x1f\x8b":
        data = _unfolded(data, path)
        report.detected["compression"] = "gzip"
    for magic, what, fix in _KINDS:
        if data.startswith(magic):
            raise UserError(f"this file is {what}, not a table", path=path, line=1, accepted=_ACCEPTED, fix=fix)
    if data.startswith(b"PK\x03\x04") and not is_workbook(data):
        fix = "unzip it and give the file inside"
        raise UserError("this file is a zip archive, not a table", path=path, line=1, accepted=_ACCEPTED, fix=fix)
    return data


def to_sheet(data: bytes, path: str | Path, sheet: str | None, report: IngestReport) -> str:
    """Gives a workbook's sheet as comma-separated text.

    Raises:
        UserError: the workbook cannot be read, has no such sheet, or the sheet is empty.
    """
    names, chosen = sheet_names(Path(path), data, sheet)
    report.detected |= {"format": "Excel", "sheet": chosen}
    if sheet is None and len(names) > 1:
        others = ", ".join(name for name in names if name != chosen)
        report.note("sheets", f"sheet {chosen!r} is read; the workbook has others ({others}): --sheet NAME")
    text = sheet_text(Path(path), data, sheet)
    if not text.strip(",\n"):
        raise UserError("the sheet is empty", path=path, found=chosen, accepted=", ".join(names), fix="--sheet NAME")
    return text


def to_text(data: bytes, path: str | Path, encoding: str | None, report: IngestReport) -> str:
    """Gives bytes as text with `\\n` line ends, without a byte order mark.

    Raises:
        UserError: the bytes are no text, or none in the encoding that was named.
    """
    text = _named(data, path, encoding) if encoding else _detected(data, path, report)
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UserError("the text holds NUL bytes", path=path, line=line, fix="the file is damaged: copy it again")
    if text.startswith("\ufeff"):
        text = text[1:]
        report.repair("byte_order_mark", "an invisible mark at the start of the file was removed", lines=(1,))
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    _refuse_other_text(text, path)
    return text


def _unfolded(data: bytes, path: str | Path) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
            unfolded = stream.read(LARGEST + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise UserError(f"the gzip data is broken ({error})", path=path, line=1, fix="copy the file again") from None
    if len(unfolded) > LARGEST:
        raise UserError(
            "the gzip data unfolds to more than 8 GiB", path=path, fix="cut the file in parts and give them one by one"
        )
    return unfolded


def _named(data: bytes, path: str | Path, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except LookupError:
        raise UserError(
            "there is no such encoding", found=encoding, accepted="utf-8, cp1252, latin-1, utf-16, ..."
        ) from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        fix = "name another encoding, or leave it to be detected"
        raise UserError(f"this is not text in {encoding}", path=path, line=line, fix=fix) from None


def _detected(data: bytes, path: str | Path, report: IngestReport) -> str:
    for mark, codec in _BOMS:
        if data.startswith(mark):
            return _converted(_named(data, path, codec), codec.upper(), codec, report)
    head = data[:4000]
    for codec, zeros, others in (("utf-16-le", head[1::2], head[::2]), ("utf-16-be", head[::2], head[1::2])):
        if len(head) >= 8 and zeros.count(0) > 0.9 * len(zeros) and others.count(0) == 0:
            return _converted(_named(data, path, codec), codec.upper(), codec, report)
    try:
        text = data.decode("utf-8")
        report.detected["encoding"] = "ASCII" if text.isascii() else "UTF-8"
        return text
    except UnicodeDecodeError as error:
        return _eight_bit(data, path, error.start, report)


def _eight_bit(data: bytes, path: str | Path, place: int, report: IngestReport) -> str:
    """Text in Windows-1252, which holds Latin-1, unless most of it is UTF-8 that was damaged."""
    line = data.count(b"\n", 0, place) + 1
    lenient = data.decode("utf-8", errors="surrogateescape")
    broken = sum(len(run) for run in re.findall(r"[\udc80-\udcff]+", lenient))
    if sum(not character.isascii() for character in lenient) >= 2 * broken and broken < 100:
        fix = "repair that line, or name the encoding"
        raise UserError("this is UTF-8 text with broken characters", path=path, line=line, fix=fix)
    if len(re.findall(rb"[\x00-\x08\x0e-\x1f]", data[:4000])) > 20:
        raise UserError(
            "this file is binary data, not a table", path=path, line=1, accepted=_ACCEPTED, fix="export it as CSV"
        )
    try:
        text, codec = data.decode("cp1252"), "cp1252"
    except UnicodeDecodeError:
        text, codec = data.decode("latin-1"), "latin-1"
    return _converted(text, "Windows-1252 (Latin-1)", codec, report, line)


def _converted(text: str, name: str, codec: str, report: IngestReport, line: int = 1) -> str:
    report.detected |= {"encoding": name, "codec": codec}
    report.repair("encoding", f"text in {name} was converted to UTF-8", lines=(line,))
    return text.removeprefix("\ufeff")


def _refuse_other_text(text: str, path: str | Path) -> None:
    head = text[:2000].lstrip()
    if not head:
        raise UserError("the file is empty", path=path, line=1, fix="check that the download or export is complete")
    if _WEB_PAGE.match(head):
        fix = "download the file itself (its raw link), not the page that shows it"
        raise UserError("this file is a web page or XML, not a table", path=path, line=1, accepted=_ACCEPTED, fix=fix)
    if re.match(r"[\[{]\s*[\[{\"\]}]", head):
        fix = "convert it: pandas.read_json(FILE).to_csv(...)"
        raise UserError("this file is JSON, not a table", path=path, line=1, accepted=_ACCEPTED, fix=fix)
