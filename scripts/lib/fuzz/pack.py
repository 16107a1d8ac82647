"""Packs an image as the fuzzers take it (Fuzz/Targets/PackedImage.swift): its sectors that hold something, and where they lie."""

SECTOR = 512
MAXIMUM_RUNS = 1023
# More than this is guest data, which no parser looks at.
MAXIMUM_SECTORS = 400


def is_worth_keeping(sector):
    """Zeros need no room, and what the guest's pattern fills says nothing."""
    return sector.count(sector[0]) != len(sector)


def pack(image):
    sectors = [image[start:start + SECTOR] for start in range(0, len(image), SECTOR)]
    kept = [number for number, sector in enumerate(sectors) if is_worth_keeping(sector)]
    if len(kept) > MAXIMUM_SECTORS:
        kept = kept[:MAXIMUM_SECTORS - 40] + kept[-40:]
    runs = []
    for number in kept:
        if runs and runs[-1][0] + runs[-1][1] == number:
            runs[-1][1] += 1
        elif len(runs) < MAXIMUM_RUNS:
            runs.append([number, 1])
    packed = (len(image) // SECTOR).to_bytes(3, "little") + (len(image) % SECTOR).to_bytes(2, "little")
    packed += len(runs).to_bytes(2, "little")
    for first, count in runs:
        packed += first.to_bytes(3, "little") + count.to_bytes(2, "little")
    for first, count in runs:
        packed += b"".join(sectors[number].ljust(SECTOR, b"\0") for number in range(first, first + count))
    return packed


def unpack(packed, path):
    """Writes the image of a packed one to a file: for other programs' opinion of a finding."""
    def number(offset, count):
        return int.from_bytes(packed[offset:offset + count], "little")

    place = 7 + 5 * (number(5, 2) % (MAXIMUM_RUNS + 1))
    with open(path, "wb") as file:
        file.truncate(number(0, 3) % (1 << 21) * SECTOR + number(3, 2) % SECTOR)
        end = file.seek(0, 2)
        for run in range(number(5, 2) % (MAXIMUM_RUNS + 1)):
            first, count = number(7 + 5 * run, 3) % (1 << 21), number(10 + 5 * run, 2) * SECTOR
            file.seek(first * SECTOR)
            file.write(packed[place:place + count][:max(end - first * SECTOR, 0)])
            place += count
