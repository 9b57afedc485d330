import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedkd_flwr.codec import CodecError
from fedkd_flwr.codec.buffer import Reader, Writer

numbers = st.integers(0, 2**63 - 1)


@given(number=numbers, several=st.lists(numbers, max_size=5).map(tuple), text=st.text())
def test_what_is_written_is_read(number: int, several: tuple[int, ...], text: str) -> None:
    writer = Writer()
    writer.varint(number)
    writer.varints(several)
    writer.text(text)
    reader = Reader(writer.getvalue())
    assert (reader.varint(), reader.varints(5), reader.text()) == (number, several, text)
    reader.end()


def test_floats_are_read_into_writable_memory_of_their_own() -> None:
    writer = Writer()
    tensor = torch.tensor([[1.0, -0.0], [1e-45, 3.4e38]])
    writer.raw(tensor.T.numpy().astype("<f4").tobytes())
    read = Reader(writer.getvalue()).floats((2, 2))
    assert torch.equal(read, tensor.T)
    assert read[1, 0].signbit()
    read += 1


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff" * 9 + b"\x01"])
def test_bad_varint(data: bytes) -> None:
    with pytest.raises(CodecError):
        Reader(data).varint()


def test_bad_text_count_rest_and_floats() -> None:
    with pytest.raises(CodecError, match="UTF-8"):
        Reader(b"\x01\xff").text()
    with pytest.raises(CodecError, match="at most 2"):
        Reader(b"\x03\x01\x01\x01").varints(2)
    with pytest.raises(CodecError, match="1 bytes too many"):
        Reader(b"\x00").end()
    with pytest.raises(CodecError, match="too early"):
        Reader(b"\x00" * 7).floats((2,))
    with pytest.raises(CodecError, match="inf or nan"):
        Reader(b"\x00\x00\x80\x7f").floats((1,))
