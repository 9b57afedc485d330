"""A cable that takes its time: two TAP devices, what enters one leaves the other after a while.

usage: delay.py DEVICE DEVICE SECONDS     as root; the devices live as long as the process
"""

import fcntl
import os
import struct
import sys
import time
from collections import deque
from select import select

# linux/if_tun.h
_TUNSETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x400454D0
_TAP, _NO_PACKET_INFORMATION, _VNET_HEADER = 0x0002, 0x1000, 0x4000
_CHECKSUM, _TSO4, _TSO6 = 1, 2, 4

_LARGEST = 10 + 14 + (1 << 16)
"""Bytes of a header about offloads, one of Ethernet, and a segment that the stack leaves for the card to cut."""


def tap(name: str) -> int:
    """A new TAP device through which segments pass uncut."""
    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _TAP | _NO_PACKET_INFORMATION | _VNET_HEADER))
    fcntl.ioctl(device, _TUNSETOFFLOAD, _CHECKSUM | _TSO4 | _TSO6)
    return device


def main() -> None:
    one, other = map(tap, sys.argv[1:3])
    across = {one: other, other: one}
    delay = float(sys.argv[3])
    on_the_way: deque[tuple[float, int, bytes]] = deque()
    while True:
        wait = max(0.0, on_the_way[0][0] - time.monotonic()) if on_the_way else None
        for device in select([one, other], [], [], wait)[0]:
            frame = os.read(device, _LARGEST)
            on_the_way.append((time.monotonic() + delay, across[device], frame))
        while on_the_way and on_the_way[0][0] <= time.monotonic():
            _, device, frame = on_the_way.popleft()
            os.write(device, frame)


if __name__ == "__main__":
    main()
