"""Takes memory and holds it until its standard input ends: ``ballast.py BYTES``."""

import sys

CHUNK = 16 * 2**20


def main() -> None:
    """Take it chunk by chunk, each page written to; say so; hold it."""
    held: list[bytes] = []
    left = int(sys.argv[1])
    while left > 0:
        held.append(bytes([len(held) % 255 + 1]) * min(CHUNK, left))
        left -= CHUNK
    print("held", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
