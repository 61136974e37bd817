"""NVRTC through ctypes: compiles CUDA source to machine code on any machine, with the assembler's report."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import re
from pathlib import Path
from typing import NamedTuple

REPORT = re.compile(
    r"Compiling entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
    r".*?Used (\d+) registers",
    re.DOTALL,
)


class Usage(NamedTuple):
    """What one kernel uses: bytes of local memory, bytes spilled and reloaded, registers of a thread."""

    stack: int
    spill_stores: int
    spill_loads: int
    registers: int


@functools.cache
def library() -> ctypes.CDLL | None:
    """NVRTC of the wheel `nvidia-cuda-nvrtc`; None if it is not installed."""
    spec = importlib.util.find_spec("nvidia")
    folders = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []
    found = [
        path for folder in folders for path in sorted(folder.glob("*/lib/libnvrtc.so.*")) if ".alt." not in path.name
    ]
    if not found:
        return None
    for builtins in found[0].parent.glob("libnvrtc-builtins.so.*"):
        ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)  # NVRTC opens it by its bare name
    return ctypes.CDLL(str(found[0]))


def compiled(
    source: str, name: str, architecture: str, options: tuple[str, ...]
) -> tuple[bytes, dict[str, Usage], str]:
    """The cubin, what each kernel uses, and the log (empty but for the report when there is nothing to say).

    Raises:
        SyntaxError: the source does not compile; the log is the message.
    """
    flags = (f"--gpu-architecture={architecture}", "--ptxas-options=-v", *options)
    cubin, log = _compile(source, name, flags, "CUBIN")
    return cubin, {kernel: Usage(*map(int, numbers)) for kernel, *numbers in REPORT.findall(log)}, log


def assembly(source: str, name: str, options: tuple[str, ...]) -> str:
    """The PTX for compute capability 9.0."""
    return _compile(source, name, ("--gpu-architecture=compute_90", *options), "PTX")[0].decode()


def _compile(source: str, name: str, flags: tuple[str, ...], result: str) -> tuple[bytes, str]:
    nvrtc = library()
    assert nvrtc is not None
    program = ctypes.c_void_p()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), name.encode(), 0, None, None) == 0
    encoded = (ctypes.c_char_p * len(flags))(*(flag.encode() for flag in flags))
    failed = nvrtc.nvrtcCompileProgram(program, len(flags), encoded)
    log = _read(nvrtc, "ProgramLog", program).rstrip(b"\0").decode()
    if failed:
        raise SyntaxError(log)
    output = _read(nvrtc, result, program)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return output, log


def _read(nvrtc: ctypes.CDLL, what: str, program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    assert getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size)) == 0
    buffer = ctypes.create_string_buffer(size.value)
    assert getattr(nvrtc, f"nvrtcGet{what}")(program, buffer) == 0
    return buffer.raw
