"""Multipart bodies, parsed as they stream: files go on, the label is kept, the rest goes by."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from ledger.errors import LimitExceeded, UsageError
from ledger.incoming import check_label

_MOST_HEADER_BYTES = 8 << 10
_MOST_LABEL_BYTES = 4 << 10
_MOST_IGNORED_BYTES = 1 << 20

# Not every client escapes a quote or a backslash inside quotes; one at the end may be either.
_PARAMETER = re.compile(
    rb';\s*([^\s=;]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"(?=\s*(?:;|$))|([^;]*))', re.DOTALL
)
_EXTENDED = re.compile(rb"(utf-8|iso-8859-1)'[^']*'(.*)", re.DOTALL | re.IGNORECASE)
_BY_BROWSERS = {b"%22": b'"', b"%0D": b"\r", b"%0A": b"\n"}


class Begin(NamedTuple):
    """A file begins; the bytes that follow are its own."""

    name: str


class Parts:
    """A multipart body, fed piece by piece. Raises UsageError where it is none, or broken.

    `label` is that of the text part of this name, once it was read.
    """

    def __init__(self, content_type: str) -> None:
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise UsageError("The files must be sent as multipart/form-data, with its boundary.")
        self.label: str | None = None
        self._ended = False
        self._found: list[Begin | bytes] = []
        self._headers: dict[bytes, bytes] = {}
        self._header = (bytearray(), bytearray())
        self._header_bytes = 0
        self._kind = "ignored"
        self._text = bytearray()
        self._ignored = 0
        try:
            self._parser = MultipartParser(
                options[b"boundary"],
                {
                    "on_part_begin": self._part_begins,
                    "on_header_field": self._header_field,
                    "on_header_value": self._header_value,
                    "on_header_end": self._header_ends,
                    "on_headers_finished": self._headers_end,
                    "on_part_data": self._data,
                    "on_part_end": self._part_ends,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise _broken(error) from None

    def feed(self, piece: bytes) -> list[Begin | bytes]:
        """What the piece has of files, in its order."""
        self._found = []
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise _broken(error) from None
        return self._found

    def finish(self) -> None:
        """Raises UsageError unless the body is whole."""
        if not self._ended:
            raise UsageError("The multipart body breaks off before its last boundary.")

    # What the parser says

    def _part_begins(self) -> None:
        self._headers = {}
        self._header_bytes = 0
        self._text.clear()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header[0].extend(data[start:end])
        self._count_header(end - start)

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1].extend(data[start:end])
        self._count_header(end - start)

    def _count_header(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > _MOST_HEADER_BYTES:
            raise UsageError("The headers of a multipart part are too long.")

    def _header_ends(self) -> None:
        field, value = self._header
        self._headers[bytes(field).lower()] = bytes(value)
        field.clear()
        value.clear()

    def _headers_end(self) -> None:
        given = _parameters(self._headers.get(b"content-disposition", b""))
        name = file_name(given)
        if name is not None:
            self._kind = "file" if name else "nothing"
            if name:
                self._found.append(Begin(name))
        else:
            self._kind = "label" if given.get(b"name") == b"label" else "ignored"
            self._let_go_by(self._header_bytes)

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._kind == "file":
            self._found.append(data[start:end])
        elif self._kind == "label":
            self._text.extend(data[start:end])
            if len(self._text) > _MOST_LABEL_BYTES:
                raise UsageError("A label may have 1,000 characters.")
        elif self._kind == "nothing":
            raise UsageError("A file part has an empty file name.")
        else:
            self._let_go_by(end - start)

    def _let_go_by(self, size: int) -> None:
        self._ignored += size
        if self._ignored > _MOST_IGNORED_BYTES:
            raise LimitExceeded("There is too much beside the files in this request.")

    def _part_ends(self) -> None:
        if self._kind == "label":
            self.label = check_label(_text(self._text, "A label")) or None

    def _end(self) -> None:
        self._ended = True


def _broken(error: FormParserError) -> UsageError:
    return UsageError(f"The multipart body is broken: {error}.")


def _parameters(disposition: bytes) -> dict[bytes, bytes]:
    """The parameters of a Content-Disposition, by their names in lower case."""
    found = {}
    for name, quoted, bare in _PARAMETER.findall(disposition):
        value = re.sub(rb'\\(["\\])', rb"\1", quoted) if quoted else bare.strip().strip(b'"')
        found[name.lower()] = value
    return found


def file_name(parameters: dict[bytes, bytes]) -> str | None:
    """The file's name as its sender has it; None where the part is no file, "" for an empty one.

    Raises UsageError where it is no text.
    """
    if b"filename*" in parameters:
        extended = _EXTENDED.fullmatch(parameters[b"filename*"])
        if extended is None:
            raise UsageError("A part's filename* must be encoded as RFC 5987 says.")
        raw = unquote_to_bytes(extended[2])
        return raw.decode("latin-1") if extended[1][0] in b"iI" else _text(raw, "A file name")
    if b"filename" not in parameters:
        return None
    # Browsers escape these three in a name, and no others.
    raw = re.sub(
        rb"%(?:22|0D|0A)",
        lambda match: _BY_BROWSERS[match[0].upper()],
        parameters[b"filename"],
        flags=re.IGNORECASE,
    )
    return _text(raw, "A file name")


def _text(raw: bytes | bytearray, what: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise UsageError(f"{what} must be valid Unicode, as UTF-8.") from None
