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
from fedkd_flwr.codec.tensors import Dense, Empty, EncodedTensor, Factored, Rotated
from fedkd_flwr.errors import CodecError

MAGIC = b"FKD"
VERSION = 3
MAX_HEADER_BYTES = 1 << 20
MAX_DIMENSIONS = 16

_PREFIX = struct.Struct("<3sBI")
_CHECKSUM = struct.Struct("<I")
_RAW_DEFLATE = -15
_KINDS: dict[int, type[EncodedTensor]] = {kind.tag: kind for kind in (Empty, Dense, Factored, Rotated)}


def serialize(tensors: Mapping[str, EncodedTensor]) -> bytes:
    """The bytes of `tensors`, in their order.

    Raises:
        CodecError: names and shapes exceed MAX_HEADER_BYTES, or a tensor has more than MAX_DIMENSIONS.
    """
    header, payload = _written(tensors)
    energies = bytes(to_byte(tensor.energy) for tensor in tensors.values())
    parts = [_PREFIX.pack(MAGIC, VERSION, len(header)), header, energies, *payload.parts]
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    return b"".join([*parts, _CHECKSUM.pack(checksum)])


def serialized_nbytes(tensors: Mapping[str, EncodedTensor]) -> int:
    """len(serialize(tensors))."""
    header, _ = _written(tensors)
    return (
        _PREFIX.size + len(header) + len(tensors) + sum(tensor.nbytes for tensor in tensors.values()) + _CHECKSUM.size
    )


def _written(tensors: Mapping[str, EncodedTensor]) -> tuple[bytes, Writer]:
    """The deflated header and the payload."""
    header, payload = Writer(), Writer()
    header.varint(len(tensors))
    for name, tensor in tensors.items():
        if len(tensor.shape) > MAX_DIMENSIONS:
            raise CodecError(f"tensor {name!r} has more than {MAX_DIMENSIONS} dimensions")
        header.text(name)
        header.varint(tensor.tag)
        header.varints(tensor.shape)
        tensor.write(header, payload)
    return _deflate(header.getvalue()), payload


def deserialize(data: bytes) -> dict[str, EncodedTensor]:
    """The tensors that `serialize` wrote.

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


def _read(header: Reader, payload: Reader) -> dict[str, EncodedTensor]:
    tensors: dict[str, EncodedTensor] = {}
    current = "header"
    try:
        for byte in payload.raw(header.varint()):
            name = header.text()
            current = f"tensor {name!r}"
            if name in tensors:
                raise CodecError("comes twice")
            tensors[name] = _read_tensor(from_byte(byte), header, payload)
        current = "header"
        header.end()
        current = "payload"
        payload.end()
    except CodecError as error:
        raise CodecError(f"encoded update, {current}: {error}") from None
    return tensors


def _read_tensor(energy: float, header: Reader, payload: Reader) -> EncodedTensor:
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
