"""Compiles the .cu files for the CPU (shim.h) and launches them on NumPy arrays, checking every argument's type."""

from __future__ import annotations

import ctypes
import functools
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np

from kernels.cuda.launchers import SOURCES

HERE = Path(__file__).parent
KERNEL = re.compile(r'extern "C" __global__ void __launch_bounds__\((\d+)[, \d]*\) (\w+)\((.*?)\) \{', re.DOTALL)
FLAGS = [
    *("-std=c++17", "-O2", "-fPIC", "-shared", "-ffp-contract=off", "-frounding-math", "-fno-strict-aliasing", "-w"),
    # A vector load at a wrong address, or an index past a fixed array, ends the process.
    *("-fsanitize=alignment,bounds,signed-integer-overflow", "-fsanitize-undefined-trap-on-error"),
]
C_TYPES = {
    "float": "float32",
    "double": "float64",
    "int": "int32",
    "unsigned char": "uint8",
    "unsigned short": "uint16",
    "unsigned int": "uint32",
    "long long": "int64",
    "unsigned long long": "uint64",
}
# Arrays whose NumPy type has no name in CUDA C without headers.
STORED_AS = {"float16": "uint16", "bool": "uint8"}

compiler = shutil.which("g++")


def kernels_of(path: Path) -> dict[str, tuple[int, list[str]]]:
    """Launch bound and parameter types ("float32*" or "int32") of each kernel of a .cu file."""
    found = {}
    for bound, name, parameters in KERNEL.findall(path.read_text()):
        types = []
        for parameter in parameters.split(","):
            words = parameter.replace("__restrict__", "").replace("const ", "").split()[:-1]
            declared = " ".join(words)
            types.append(C_TYPES[declared.rstrip("*")] + ("*" if declared.endswith("*") else ""))
        found[name] = int(bound), types
    return found


class PretendedCuPy:
    """NumPy under another name, so that code for CuPy runs. Launches must be emulated."""

    class cuda:
        class Device:
            id = 0

        class Stream:
            def synchronize(self):
                pass

        class runtime:
            @staticmethod
            def getDeviceProperties(_):
                return {"multiProcessorCount": 4}

        get_current_stream = Stream

    def __getattr__(self, name):
        return getattr(np, name)


class Emulator:
    """Stands in for `cuda_kernels._launch`. `seed` decides the order in which threads of a block run."""

    def __init__(self, folder: Path, sources: Path = SOURCES) -> None:
        self.folder, self.sources = folder, sources
        self.seed = 0
        self._library = functools.cache(self._compile)
        self._kernels = functools.cache(lambda source: kernels_of(sources / f"{source}.cu"))

    def launch(self, source, name, grid, block, arguments):
        bound, types = self._kernels(source)[name]
        assert block <= bound
        assert all(type(argument) is not int for argument in arguments)
        if min(grid) == 0:
            return
        values = [self._value(argument, kind, name) for argument, kind in zip(arguments, types, strict=True)]
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        run = getattr(self._library(source), f"launch_{name}")
        run.restype = ctypes.c_char_p
        message = run((ctypes.c_uint * 3)(*grid), ctypes.c_uint(block), pointers, ctypes.c_uint(self.seed))
        assert message is None, f"{name}: {message.decode()}"

    @staticmethod
    def _value(argument, kind, name):
        """A C variable that holds the argument: a pointer or a number of exactly the declared type."""
        if kind.endswith("*") and isinstance(argument, np.uintp):
            assert argument == 0
            return ctypes.c_void_p(0)
        dtype = STORED_AS.get(argument.dtype.name, argument.dtype.name)
        if not kind.endswith("*"):
            assert dtype == kind, f"{name}: {dtype} for {kind}"
            return np.ctypeslib.as_ctypes_type(argument.dtype)(argument.item())
        assert dtype + "*" == kind, f"{name}: {dtype}* for {kind}"
        assert argument.flags.c_contiguous or argument.strides[-1] == argument.itemsize
        return ctypes.c_void_p(argument.ctypes.data)

    def _compile(self, source):
        glue = [f'#include "{HERE / "shim.h"}"', f'#include "{self.sources / source}.cu"']
        glue += [
            f'extern "C" const char* launch_{name}(unsigned* grid, unsigned block, void** arguments, unsigned seed)'
            f" {{ return shim::launch({name}, grid, block, arguments, seed); }}"
            for name in self._kernels(source)
        ]
        path, library = self.folder / f"{source}.cpp", self.folder / f"{source}.so"
        path.write_text("\n".join(glue) + "\n")
        subprocess.run([compiler, *FLAGS, "-o", library, path], check=True, capture_output=True, text=True)
        return ctypes.CDLL(str(library))
