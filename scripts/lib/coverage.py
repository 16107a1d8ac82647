"""Adds up what llvm-cov tells of files (its JSON on standard input) by folders, and prints a table."""

import collections
import json
import pathlib
import sys

# Folders whose parts are told one by one.
SPLIT = {"FormatEngine", "FormatEngine/Formats"}


def group(path):
    """The folder that a file is counted with."""
    parts = path.parent.parts
    name = parts[0]
    for part in parts[1:]:
        if name not in SPLIT:
            break
        name += "/" + part
    return name


def share(covered, count):
    return f"{100 * covered / count:6.1f} %" if count else "       -"


def main():
    root = pathlib.Path(sys.argv[1])
    sums = collections.defaultdict(collections.Counter)
    for file in json.load(sys.stdin)["data"][0]["files"]:
        path = pathlib.Path(file["filename"]).relative_to(root)
        if path.suffix != ".swift":
            continue
        for name in (group(path), "all"):
            for kind in ("lines", "regions"):
                for what in ("count", "covered"):
                    sums[name][kind, what] += file["summary"][kind][what]
    print(f"{'folder':40}{'lines':>8}{'run':>9}{'regions':>9}{'run':>9}")
    for name in sorted(sums, key=lambda name: (name == "all", name)):
        of = sums[name]
        print(
            f"{name:40}{of['lines', 'count']:8}{share(of['lines', 'covered'], of['lines', 'count']):>9}"
            f"{of['regions', 'count']:9}{share(of['regions', 'covered'], of['regions', 'count']):>9}"
        )


main()
