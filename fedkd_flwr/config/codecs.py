"""The codecs by the value of run-config key `codec.kind`: what each says about itself. Importing this imports none."""

from dataclasses import dataclass

from fedkd_flwr.runtime.registry import Registry


@dataclass(frozen=True)
class CodecSpec:
    """A codec as the rest of the program sees it.

    Attributes:
        place: "module:function" of what a round's updates may cost or must keep, see `codec.settings.AllocationOf`.
        bits: values of `codec.bits` that it has beside 0.
        keys: run-config keys that it reads and other codecs may not.
        every_number: bits of a number where all are sent and `codec.bits` is 0; 0: not all are sent.
    """

    place: str
    bits: tuple[int, ...] = (3, 4, 5, 6, 8, 16, 32)
    keys: frozenset[str] = frozenset()
    every_number: int = 0


CODECS = Registry(
    "codec",
    {
        "budget": CodecSpec("fedkd_flwr.codec.settings:budget", keys=frozenset({"codec.budget"})),
        "energy": CodecSpec(
            "fedkd_flwr.codec.settings:energy", keys=frozenset({"codec.energy-start", "codec.energy-end"})
        ),
        "dense": CodecSpec("fedkd_flwr.codec.settings:dense", every_number=32),
        "rotated": CodecSpec("fedkd_flwr.codec.settings:rotated", bits=(1, 2, 3, 4), every_number=4),
    },
)
"""By name."""
