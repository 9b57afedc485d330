"""Throw mutated payloads at the codec and count what it does with them.

    python -m benchmarks.fuzz_codec --payloads 100000

A payload may be refused with CodecError. It may be accepted only if it obeys every declared law: packed again it gives
records that read the same, it decodes to finite float32 tensors of its declared shapes or CodecError, and
`require` keeps anything but the student's names and shapes from being decoded. All else is a failure, and so is a
process that has grown by more than GROWTH.
"""

import argparse
import random
import resource
import struct
import time
import zlib
from collections import Counter

import torch

from fedkd_flwr.codec import Budget, CodecError, EncodedUpdate, Uniform, UpdateCodec
from fedkd_flwr.codec.wire_format import VERSION, serialize

PREFIX = struct.Struct("<3sBI")
GROWTH = 64 << 20
EDGES = (0, 1, 2, 3, 7, 8, 0x0F, 0x10, 0x7E, 0x7F, 0x80, 0xC0, 0xFE, 0xFF)


def seeds() -> tuple[dict[str, torch.Size], list[bytes]]:
    """Payloads of one small student, of every kind and width."""
    generator = torch.Generator().manual_seed(0)
    update = {
        "encoder.weight": torch.outer(*torch.randn(2, 48, generator=generator)) + 0.1 * torch.randn(48, 48),
        "encoder.bias": torch.randn(48, generator=generator),
        "conv": torch.randn(8, 4, 3, generator=generator),
        "frozen": torch.zeros(5),
        "scale": torch.tensor(1.0),
    }
    codecs = [UpdateCodec(0.9, bits=bits) for bits in (32, 16, 8, 6, 5, 4, 3)]
    codecs += [UpdateCodec(allocation=Budget(nbytes)) for nbytes in (300, 1000, 3000)]
    codecs += [UpdateCodec(allocation=Uniform(rotated=True), bits=bits) for bits in (4, 3, 2, 1)]
    shapes = {name: tensor.shape for name, tensor in update.items()}
    return shapes, [codec.encode(update).to_bytes() for codec in codecs] + [EncodedUpdate.dense(update).to_bytes()]


def split(data: bytes) -> tuple[bytes, bytes]:
    """Inflated header, and payload."""
    length = PREFIX.unpack_from(data)[2]
    start = PREFIX.size + length
    return zlib.decompress(data[PREFIX.size : start], -15), data[start:-4]


def sealed(deflated: bytes, payload: bytes) -> bytes:
    body = PREFIX.pack(b"FKD", VERSION, len(deflated)) + deflated + payload
    return body + struct.pack("<I", zlib.crc32(body))


def deflate(header: bytes) -> bytes:
    return zlib.compress(header, 6, -15)


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Some bytes flipped, set, cut out, doubled, inserted or swapped."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
        at = chance.randrange(len(changed) + 1)
        to = min(len(changed), at + chance.choice((1, 1, 2, 4, 9)))
        match chance.randrange(6):
            case 0 if at < len(changed):
                changed[at] ^= 1 << chance.randrange(8)
            case 1 if at < len(changed):
                changed[at] = chance.choice(EDGES)
            case 2:
                del changed[at:to]
            case 3:
                changed[at:at] = changed[at:to]
            case 4:
                changed[at:at] = bytes(chance.choice(EDGES) for _ in range(chance.randrange(1, 10)))
            case _:
                changed[at:to] = chance.randbytes(to - at)
    return bytes(changed)


def mutated(data: bytes, other: bytes, chance: random.Random) -> bytes:
    """Damage anywhere; three times of four under a right checksum, in the header, the payload or both."""
    header, payload = split(data)
    match chance.randrange(8):
        case 0:
            return damaged(data, chance)
        case 1:
            return data[: chance.randrange(len(data))]
        case 2 | 3:
            return sealed(deflate(damaged(header, chance)), payload)
        case 4:
            return sealed(deflate(header), damaged(payload, chance))
        case 5:
            return sealed(deflate(damaged(header, chance)), damaged(payload, chance))
        case 6:
            return sealed(damaged(deflate(header), chance), payload)
        case _:
            return sealed(deflate(header), split(other)[1])


def verdict(data: bytes, shapes: dict[str, torch.Size]) -> str:
    """refused, foreign, overflow or obeys; or what is wrong."""
    try:
        encoded = EncodedUpdate.from_bytes(data)
    except CodecError as error:
        return "WRONG: message of several lines" if "\n" in str(error) else "refused"
    again = EncodedUpdate.from_bytes(serialize(encoded._tensors))
    if again.rows() != encoded.rows() or again.shapes != encoded.shapes:
        return "WRONG: reads differently when packed again"
    try:
        encoded.require(shapes)
    except CodecError:
        return "foreign"
    try:
        decoded, twin = encoded.decode(), again.decode()
    except CodecError:
        return "overflow"
    for name, shape in shapes.items():
        tensor = decoded[name]
        if tensor.shape != shape or tensor.dtype != torch.float32 or not torch.isfinite(tensor).all():
            return f"WRONG: {name} decodes to {tensor.dtype} {tuple(tensor.shape)} or is not finite"
        if not torch.equal(tensor, twin[name]):
            return f"WRONG: {name} decodes differently when packed again"
    return "obeys"


def peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--payloads", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    chance = random.Random(arguments.seed)
    shapes, originals = seeds()
    counts: Counter[str] = Counter()
    start, before = time.perf_counter(), peak_memory()
    for _ in range(arguments.payloads):
        data = mutated(chance.choice(originals), chance.choice(originals), chance)
        if data in originals:
            counts["unchanged"] += 1
            continue
        try:
            counts[verdict(data, shapes)] += 1
        except Exception as error:
            counts[f"WRONG: {type(error).__name__}: {error}"] += 1
            print(f"{data.hex()}\n  {type(error).__name__}: {error}")
    print(f"{arguments.payloads} payloads in {time.perf_counter() - start:.0f} s")
    for name, count in counts.most_common():
        print(f"{count:8d}  {name}")
    growth = peak_memory() - before
    print(f"{growth / 2**20:8.1f}  MB more memory at the peak than before")
    raise SystemExit(any(name.startswith("WRONG") for name in counts) or growth > GROWTH)


if __name__ == "__main__":
    main()
