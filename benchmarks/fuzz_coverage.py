"""Let atheris (libFuzzer) search for bytes that the codec wrongly accepts, guided by the code that they reach.

    pip install -e '.[fuzz]'
    python -m benchmarks.fuzz_coverage --payloads 100000

Payloads are header and payload of an encoded update; prefix, deflate and checksum are put around them, so that the
search gets past them. The laws are those of benchmarks.fuzz_codec.
"""

import argparse
import struct
import sys
import tempfile
from collections import Counter
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["fedkd_flwr.codec"]):
    from benchmarks.fuzz_codec import deflate, sealed, seeds, split, verdict

LENGTH = struct.Struct("<H")
STATUS_EVERY = 10_000


def framed(data: bytes) -> bytes:
    """The message of which `data` are length of the header, header and payload."""
    length = LENGTH.unpack(data[:2].ljust(2, b"\0"))[0]
    return sealed(deflate(data[2 : 2 + length]), data[2 + length :])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--payloads", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    shapes, originals = seeds()
    counts: Counter[str] = Counter()

    def one(data: bytes) -> None:
        try:
            counts[verdict(framed(data), shapes)] += 1
        except Exception as error:
            counts[f"WRONG: {type(error).__name__}: {error}"] += 1
            print(f"{data.hex()}\n  {type(error).__name__}: {error}", flush=True)
        total = sum(counts.values())
        if total % STATUS_EVERY == 0:
            accepted = sum(n for name, n in counts.items() if name.startswith("WRONG") and "Error" not in name)
            other = sum(n for name, n in counts.items() if name.startswith("WRONG")) - accepted
            print(
                f"{total} payloads: {dict(counts)}; accepted wrongly {accepted}, other exceptions {other}", flush=True
            )

    with tempfile.TemporaryDirectory() as corpus:
        for index, original in enumerate(originals):
            header, payload = split(original)
            (Path(corpus) / str(index)).write_bytes(LENGTH.pack(len(header)) + header + payload)
        limits = [f"-runs={arguments.payloads}", f"-seed={arguments.seed}", "-max_len=20000", "-rss_limit_mb=4096"]
        atheris.Setup([sys.argv[0], *limits, corpus], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
