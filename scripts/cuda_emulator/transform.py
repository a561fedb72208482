#!/usr/bin/env python3
"""Prepares a .cu or .cuh file for execution.h: each block's memory starts as NaN, and kernels are registered under their names.

The names come from the preprocessed source on standard input, in which `cuda_emulator_kernel` marks kernels (macros make most names).
Headers have no kernels of their own.

usage: c++ -E ... SOURCE.cu | transform.py SOURCE.cu OUTPUT.cc
       transform.py HEADER.cuh OUTPUT.cuh
"""
import re
import sys
from pathlib import Path


def fill_block_memory(source, path):
    """Returns the text with declarations of block memory that fill it with NaN."""
    text = re.sub(r"extern\s+__shared__\s+([\w ]+?)\s+(\w+)\[\];", r"\1 *\2 = (\1 *)emulator::dynamic_shared();", source)
    text = re.sub(
        r"__shared__\s+([\w:]+)\s+(\w+)((?:\[[^\]]*\])*);",
        r"static \1 \2\3; emulator::fresh((void *)&\2, sizeof \2);",
        text,
    )
    left = re.search(r"^.*__shared__.*$", text, re.M)
    if left:
        sys.exit(f"{path}: a declaration of block memory that transform.py does not know: {left.group().strip()}")
    return f'#line 1 "{path}"\n{text}\n'


def registrations(preprocessed, path):
    """Returns a line per kernel that registers it."""
    names = re.findall(r'extern\s+"C"\s+cuda_emulator_kernel\s+void\s+(\w+)\s*\(', preprocessed)
    if not names:
        sys.exit(f"{path}: no kernel found")
    return "".join(f"CUDA_EMULATOR_KERNEL({name})\n" for name in dict.fromkeys(names))


if __name__ == "__main__":
    path, output = sys.argv[1:]
    text = fill_block_memory(Path(path).read_text(), path)
    if path.endswith(".cu"):
        text += registrations(sys.stdin.read(), path)
    Path(output).write_text(text)
