import struct
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedkd_flwr.codec import CodecError, UpdateCodec
from fedkd_flwr.codec.buffer import Writer
from fedkd_flwr.codec.tensors import Dense, Empty
from fedkd_flwr.codec.wire_format import (
    MAX_DIMENSIONS,
    MAX_HEADER_BYTES,
    VERSION,
    deserialize,
    serialize,
    serialized_nbytes,
)

torch.manual_seed(0)
UPDATE = {
    "layer.weight": torch.outer(torch.randn(6), torch.randn(8)),
    "layer.bias": torch.randn(3),
    "frozen": torch.zeros(2, 2),
}
DATA = UpdateCodec().encode(UPDATE).to_bytes()

E = b"\xff"  # of one tensor: all of its energy is kept


def framed(header: bytes, payload: bytes = b"", length: int | None = None) -> bytes:
    """A message with a right checksum around any header."""
    compressor = zlib.compressobj(9, wbits=-15)
    deflated = compressor.compress(header) + compressor.flush()
    return sealed(deflated, payload, length)


def sealed(deflated: bytes, payload: bytes = b"", length: int | None = None) -> bytes:
    body = struct.pack("<3sBI", b"FKD", VERSION, len(deflated) if length is None else length) + deflated + payload
    return body + struct.pack("<I", zlib.crc32(body))


def header(write: Callable[[Writer], None], count: int = 1) -> bytes:
    writer = Writer()
    writer.varint(count)
    write(writer)
    return writer.getvalue()


def tensor(writer: Writer, name: str, tag: int, shape: tuple[int, ...], *more: int) -> None:
    writer.text(name)
    writer.varint(tag)
    writer.varints(shape)
    for number in more:
        writer.varint(number)


def twice(writer: Writer) -> None:
    tensor(writer, "a", 0, ())
    tensor(writer, "a", 0, ())


def test_length_is_known_before_packing() -> None:
    assert serialized_nbytes(deserialize(DATA)) == len(DATA)


def test_every_flipped_bit_is_noticed() -> None:
    for position in range(len(DATA) * 8):
        damaged = bytearray(DATA)
        damaged[position // 8] ^= 1 << position % 8
        with pytest.raises(CodecError):
            deserialize(bytes(damaged))


def test_every_truncation_and_every_addition_is_noticed() -> None:
    for length in range(len(DATA)):
        with pytest.raises(CodecError):
            deserialize(DATA[:length])
    for addition in (b"\0", b"FKD", DATA):
        with pytest.raises(CodecError):
            deserialize(DATA + addition)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_with_one_exception(data: bytes) -> None:
    for candidate in (data, b"FKD" + bytes([VERSION]) + data, sealed(data), framed(data), framed(data, data)):
        try:
            records = deserialize(candidate)
        except CodecError as error:
            assert "\n" not in str(error)
        else:
            assert deserialize(serialize(records)).keys() == records.keys()


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damage_under_a_right_checksum_is_refused_with_one_exception(data: st.DataObject) -> None:
    def write(writer: Writer) -> None:
        for name, record in deserialize(DATA).items():
            tensor(
                writer,
                name,
                record.tag,
                record.shape,
                *{"empty": (), "dense": (32,), "factored": (1, 32, 1)}[record.kind],
            )

    raw = bytearray(header(write, 3))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    payload = b"\0" * data.draw(st.sampled_from([0, 15, 59, 71]))
    try:
        deserialize(framed(bytes(raw), payload))
    except CodecError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "only 0 bytes"),
        (b"PK\x03\x04" + DATA, "starts with"),
        (b"FKD\x01" + DATA[4:], "version 1"),
        (DATA[:-1] + bytes([DATA[-1] ^ 1]), "checksum"),
        (sealed(b"", length=1), "ends too early"),
        (sealed(b"\xff\xff\xff"), "inflated"),
        (sealed(zlib.compress(b"\0", wbits=-15)[:-1]), "wrong length"),
        (sealed(zlib.compress(b"\0", wbits=-15) + b"\0"), "wrong length"),
        (framed(b"\0" * (MAX_HEADER_BYTES + 1)), "wrong length"),
        (framed(b""), "header: ends too early"),
        (framed(b"\0\0"), "header: 1 bytes too many"),
        (framed(b"\0", b"\0"), "payload: 1 bytes too many"),
        (framed(header(lambda w: tensor(w, "a", 9, ())), E), "'a': unknown kind 9"),
        (framed(header(twice, 2), 2 * E), "'a': comes twice"),
        (framed(header(lambda w: tensor(w, "a", 1, (2,), 32)), E + b"\0" * 7), "'a': ends too early"),
        (framed(header(lambda w: tensor(w, "a", 1, (2,), 32)), E + b"\0" * 9), "1 bytes too many"),
        (framed(header(lambda w: tensor(w, "a", 1, (1,), 32)), E + b"\0\0\xc0\x7f"), "'a': holds inf or nan"),
        (framed(header(lambda w: tensor(w, "a", 1, (2**62, 2**62), 32)), E), "'a': ends too early"),
        (framed(header(lambda w: tensor(w, "a", 0, (1,) * 17)), E), "at most 16"),
        (framed(header(lambda w: tensor(w, "a", 2, (2, 3), 1, 32, 3)), E), "'a': rank 3"),
        (framed(header(lambda w: tensor(w, "a", 2, (2, 3), 1, 32, 0)), E), "'a': rank 0"),
        (framed(header(lambda w: tensor(w, "a", 2, (0, 3), 1, 32, 1)), E), "'a': rank 1"),
        (framed(header(lambda w: tensor(w, "a", 2, (2**40, 2**40), 1, 32, 1)), E), "'a': ends too early"),
        (framed(header(lambda w: tensor(w, "a", 0, ()))), "header: ends too early"),
        (framed(header(lambda w: tensor(w, "a", 0, ()), 2**40), E), "header: ends too early"),
    ],
)
def test_hostile_message(data: bytes, message: str) -> None:
    with pytest.raises(CodecError, match=message):
        deserialize(data)


def test_hostile_headers_allocate_little() -> None:
    bomb = framed(b"\0" * (64 << 20))
    huge = framed(header(lambda w: tensor(w, "a", 0, (2**40, 2**20))), E)
    tracemalloc.start()
    with pytest.raises(CodecError):
        deserialize(bomb)
    assert deserialize(huge)["a"].shape == (2**40, 2**20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * MAX_HEADER_BYTES


def test_what_cannot_be_sent_is_refused_by_the_sender() -> None:
    with pytest.raises(CodecError, match="dimensions"):
        serialize({"a": Empty((1,) * (MAX_DIMENSIONS + 1))})
    with pytest.raises(CodecError, match="names and shapes"):
        serialize({"a" * MAX_HEADER_BYTES: Empty((1,))})


def test_limits_themselves_can_be_sent() -> None:
    name = "a" * (MAX_HEADER_BYTES - 6)
    assert list(deserialize(serialize({name: Empty(())}))) == [name]
    assert deserialize(serialize({"a": Empty((1,) * MAX_DIMENSIONS)}))["a"].shape == (1,) * MAX_DIMENSIONS


@given(st.lists(st.text(), unique=True, max_size=10))
def test_any_names_in_any_order(names: list[str]) -> None:
    read = deserialize(serialize({name: Dense.of(torch.tensor(float(i))) for i, name in enumerate(names)}))
    assert list(read) == names
    assert [record.decode().item() for record in read.values()] == list(range(len(names)))
