"""The bytes of one encoded update.

    "FKD" | version, 1 byte | header length, 4 bytes | header | energies | payload | CRC-32 of all before, 4 bytes

Integers are little endian. The header is deflated; it holds the number of tensors and, for each, its name,
the tag of its kind, its shape and what the kind adds. In the same order the energies hold one byte a tensor, the energy
that its sender kept (see `energy.to_byte`), and the payload their numbers.
"""

import struct
import zlib
from collections.abc import Mapping

from fedkd_flwr.codec.buffer import Reader, Writer
from fedkd_flwr.codec.energy import from_byte, to_byte
from fedkd_flwr.codec.factored import Factored
from fedkd_flwr.codec.records import Dense, Empty, Record
from fedkd_flwr.codec.rotated import Rotated
from fedkd_flwr.errors import CodecError

MAGIC = b"FKD"
VERSION = 3
MAX_HEADER_BYTES = 1 << 20
MAX_DIMENSIONS = 16

_PREFIX = struct.Struct("<3sBI")
_CHECKSUM = struct.Struct("<I")
_RAW_DEFLATE = -15
_KINDS: dict[int, type[Record]] = {kind.tag: kind for kind in (Empty, Dense, Factored, Rotated)}


def pack(records: Mapping[str, Record]) -> bytes:
    """The bytes of `records`, in their order.

    Raises:
        CodecError: names and shapes exceed MAX_HEADER_BYTES, or a tensor has more than MAX_DIMENSIONS.
    """
    header, payload = _written(records)
    energies = bytes(to_byte(record.energy) for record in records.values())
    parts = [_PREFIX.pack(MAGIC, VERSION, len(header)), header, energies, *payload.parts]
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    return b"".join([*parts, _CHECKSUM.pack(checksum)])


def packed_nbytes(records: Mapping[str, Record]) -> int:
    """len(pack(records))."""
    header, _ = _written(records)
    return (
        _PREFIX.size + len(header) + len(records) + sum(record.nbytes for record in records.values()) + _CHECKSUM.size
    )


def _written(records: Mapping[str, Record]) -> tuple[bytes, Writer]:
    """The deflated header and the payload."""
    header, payload = Writer(), Writer()
    header.varint(len(records))
    for name, record in records.items():
        if len(record.shape) > MAX_DIMENSIONS:
            raise CodecError(f"tensor {name!r} has more than {MAX_DIMENSIONS} dimensions")
        header.text(name)
        header.varint(record.tag)
        header.varints(record.shape)
        record.write(header, payload)
    return _deflate(header.getvalue()), payload


def unpack(data: bytes) -> dict[str, Record]:
    """The records that `pack` wrote.

    Memory stays within a multiple of len(data) and MAX_HEADER_BYTES, whatever the header claims.

    Raises:
        CodecError: the bytes are anything else than one intact encoded update.
    """
    if len(data) < _PREFIX.size + _CHECKSUM.size:
        raise CodecError(f"not an encoded update: only {len(data)} bytes")
    magic, version, header_length = _PREFIX.unpack_from(data)
    if magic != MAGIC:
        raise CodecError(f"not an encoded update: starts with {magic!r}, not {MAGIC!r}")
    if version != VERSION:
        raise CodecError(f"encoded update has format version {version}, this side reads {VERSION}")
    body = memoryview(data)[: -_CHECKSUM.size]
    if (zlib.crc32(body),) != _CHECKSUM.unpack_from(data, len(body)):
        raise CodecError("encoded update is damaged: its checksum does not match")
    if header_length > len(body) - _PREFIX.size:
        raise CodecError("encoded update is damaged: its header ends too early")
    start = _PREFIX.size + header_length
    return _read(Reader(_inflate(body[_PREFIX.size : start])), Reader(body[start:]))


def _read(header: Reader, payload: Reader) -> dict[str, Record]:
    records: dict[str, Record] = {}
    current = "header"
    try:
        for byte in payload.raw(header.varint()):
            name = header.text()
            current = f"tensor {name!r}"
            if name in records:
                raise CodecError("comes twice")
            records[name] = _read_record(from_byte(byte), header, payload)
        current = "header"
        header.end()
        current = "payload"
        payload.end()
    except CodecError as error:
        raise CodecError(f"encoded update, {current}: {error}") from None
    return records


def _read_record(energy: float, header: Reader, payload: Reader) -> Record:
    tag = header.varint()
    if tag not in _KINDS:
        raise CodecError(f"unknown kind {tag}")
    return _KINDS[tag].read(header.varints(MAX_DIMENSIONS), energy, header, payload)


def _deflate(header: bytes) -> bytes:
    if len(header) > MAX_HEADER_BYTES:
        raise CodecError(f"names and shapes take {len(header)} bytes, at most {MAX_HEADER_BYTES} can be sent")
    return zlib.compress(header, level=9, wbits=_RAW_DEFLATE)


def _inflate(deflated: memoryview) -> bytes:
    stream = zlib.decompressobj(_RAW_DEFLATE)
    try:
        header = stream.decompress(deflated, MAX_HEADER_BYTES)
    except zlib.error:
        raise CodecError("encoded update, header: cannot be inflated") from None
    if not stream.eof or stream.unused_data:
        raise CodecError("encoded update, header: wrong length")
    return header
