"""The disk that the benchmarks work on: half wordy text, a quarter random bytes, a quarter holes."""

import random

UNIT = 1 << 20
PAGE = 4096


def write_image(path, size):
    """Fills `path` with `size` bytes, the same ones every time. Units of 1 MiB: text, text, random, hole."""
    chance = random.Random(20240229)
    pages = text_pages(chance, 2048)
    with open(path, "wb") as image:
        image.truncate(size)
        for unit in range(size // UNIT):
            image.seek(unit * UNIT)
            if unit % 4 < 2:
                image.write(b"".join(chance.choices(pages, k=UNIT // PAGE)))
            elif unit % 4 == 2:
                image.write(chance.randbytes(UNIT))


def text_pages(chance, count):
    """Pages of text out of 3000 invented words, the common ones short and frequent.

    A cluster of 64 KiB takes 16 of them, so that it hardly ever holds a page twice: what a compressor finds
    are words and phrases, as in real text, not copies.
    """
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    weights = [100 // (place + 2) + 1 for place in range(len(letters))]
    words = ["".join(chance.choices(letters, weights, k=2 + rank % 7 + rank // 600)) for rank in range(3000)]
    frequency = [1 / (rank + 3) for rank in range(len(words))]
    pages = []
    for _ in range(count):
        text = " ".join(chance.choices(words, frequency, k=PAGE // 3))
        pages.append(text.replace(" e", ".\n", 3).encode()[:PAGE].ljust(PAGE, b"\n"))
    return pages
