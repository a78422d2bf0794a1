"""Decoder: files are decoded in a child process that is limited and can be killed, so that no file harms the parent.

The parent reads a file once, without following links, and hashes what it read; the child gets those bytes through a
pipe, and gives back levels and plain facts. A child that dies, hangs or answers nonsense costs one file.
"""

from __future__ import annotations

import hashlib
import json
import os
import selectors
import stat
import struct
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import IO

from gmia_monai.dicom.decode import Decoded, decode_bytes
from gmia_monai.errors import InputError, ResourceError
from gmia_monai.typing import PathLike

__all__ = ["Decoder", "read_file"]

_LENGTHS = struct.Struct("<QQ")  # of the answer's facts and of its levels
_CHUNK = 1 << 20
_MAX_FACTS = 1 << 20
_START_SECONDS = 60.0


def read_file(path: PathLike, max_bytes: int) -> tuple[bytes, str]:
    """The bytes of a file and their SHA-256.

    Args:
        path: a plain file; links, pipes and devices are not opened.
        max_bytes: larger ones are not read.

    Raises:
        InputError: ``GM-D001`` where it cannot be opened, ``GM-D025`` where it is no plain file, ``GM-D026`` where it
            is too large, ``GM-D028`` where it changed while it was read.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise InputError("GM-D025", "not a plain file", next_step="links, pipes and devices are left alone")
        descriptor = os.open(path, flags)
    except OSError as error:
        raise InputError("GM-D001", "the file cannot be opened", got=error.strerror) from None
    with os.fdopen(descriptor, "rb") as stream:
        found = os.fstat(stream.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise InputError("GM-D025", "not a plain file")
        if found.st_size > max_bytes:
            raise InputError(
                "GM-D026", "the file is too large", got=found.st_size, expected=f"at most {max_bytes} bytes"
            )
        try:
            raw = stream.read(max_bytes + 1)
        except OSError as error:
            raise InputError("GM-D001", "the file cannot be read", got=error.strerror) from None
        if len(raw) != found.st_size or os.fstat(stream.fileno()).st_mtime_ns != found.st_mtime_ns:
            raise InputError("GM-D028", "the file changed while it was read", next_step="run again when it is complete")
    return raw, hashlib.sha256(raw).hexdigest()


class Decoder:
    """Decodes bytes in a child process, which is started when it is first needed and again when it was lost.

    Args:
        seconds: for one file, of wall clock and of processor.
        memory_mib: address space of the child, beside what it has when it starts.
    """

    def __init__(self, seconds: float = 30.0, memory_mib: int = 2048) -> None:
        self.seconds = seconds
        self.memory_mib = memory_mib
        self._child: subprocess.Popen[bytes] | None = None

    def decode(self, raw: bytes) -> Decoded:
        """The image of one file.

        Raises:
            InputError: as :func:`gmia_monai.dicom.decode.decode_bytes`; ``GM-D027`` where decoding took too long, too
                much memory, or ended the child.
            ResourceError: ``GM-R301`` where no child can be started.
        """
        child = self._started()
        deadline = time.monotonic() + self.seconds
        try:
            facts, levels = self._asked(child, raw, deadline)
            answer = json.loads(facts)
            if "code" in answer:
                raise InputError(answer["code"], answer["what"])
            return Decoded.from_about(answer, levels)
        except (OSError, EOFError, ValueError, KeyError, TypeError, MemoryError, TimeoutError):
            self.close()
            raise InputError(
                "GM-D027", "decoding the file took too much time or memory, or ended the decoder"
            ) from None
        except BaseException as error:
            if not isinstance(error, InputError):
                self.close()  # in the middle of an answer
            raise

    def close(self) -> None:
        """Ends the child."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()
            for stream in (child.stdin, child.stdout):
                if stream is not None:
                    _close(stream)

    def __enter__(self) -> Decoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._child.poll() is None:
            return self._child
        self.close()
        # Only what Python needs: no key, token or proxy of the parent's environment.
        kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH") if name in os.environ}
        limits = [str(self.memory_mib), str(max(1, round(self.seconds)))]
        code = "from gmia_monai.dicom.decoder import _serve; _serve()"
        try:
            child = subprocess.Popen(
                [sys.executable, "-c", code, *limits],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=kept | {"LANG": "C.UTF-8", "OMP_NUM_THREADS": "1"},
                cwd=Path(__file__).parents[2],
            )
        except OSError as error:
            raise ResourceError("GM-R301", "the decoder cannot be started", got=error.strerror) from None
        self._child = child
        assert child.stdout is not None
        try:
            if _read(child.stdout, 1, time.monotonic() + _START_SECONDS) != b"+":
                raise EOFError
        except (OSError, EOFError, TimeoutError):
            self.close()
            raise ResourceError(
                "GM-R301", "the decoder does not start", next_step="is the package installed, and memory free?"
            ) from None
        return child

    def _asked(self, child: subprocess.Popen[bytes], raw: bytes, deadline: float) -> tuple[bytes, bytes]:
        assert child.stdin is not None and child.stdout is not None
        _write(child.stdin, struct.pack("<Q", len(raw)), deadline)
        _write(child.stdin, raw, deadline)
        n_facts, n_levels = _LENGTHS.unpack(_read(child.stdout, _LENGTHS.size, deadline))
        if n_facts > _MAX_FACTS or n_levels > self.memory_mib << 20:
            raise ValueError
        return _read(child.stdout, n_facts, deadline), _read(child.stdout, n_levels, deadline)


def _read(stream: IO[bytes], n: int, deadline: float) -> bytes:
    """So many bytes of a pipe before the deadline."""
    descriptor = stream.fileno()
    parts, left = [], n
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while left:
            wait = deadline - time.monotonic()
            if wait <= 0 or not selector.select(wait):
                raise TimeoutError
            part = os.read(descriptor, min(left, _CHUNK))
            if not part:
                raise EOFError
            parts.append(part)
            left -= len(part)
    return b"".join(parts)


def _write(stream: IO[bytes], raw: bytes, deadline: float) -> None:
    descriptor = stream.fileno()
    os.set_blocking(descriptor, False)
    view = memoryview(raw)
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_WRITE)
        while view:
            wait = deadline - time.monotonic()
            if wait <= 0 or not selector.select(wait):
                raise TimeoutError
            view = view[os.write(descriptor, view[:_CHUNK]) :]


def _close(stream: IO[bytes]) -> None:
    try:
        stream.close()
    except OSError:
        pass


# -- in the child ---------------------------------------------------------------------------------------------------
def _serve() -> None:
    """Reads lengths and files from standard input, answers on standard output, until the input ends."""
    memory_mib, seconds = (int(word) for word in sys.argv[1:3])
    source, answer = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)  # what a library prints is no answer
    _warm()
    _limit(memory_mib)
    answer.write(b"+")
    answer.flush()
    while len(head := source.read(8)) == 8:
        _limit_processor(seconds)
        raw = source.read(struct.unpack("<Q", head)[0])
        facts, levels = _answer(raw)
        answer.write(_LENGTHS.pack(len(facts), len(levels)) + facts)
        answer.write(levels)
        answer.flush()


def _answer(raw: bytes) -> tuple[bytes, bytes]:
    try:
        decoded = decode_bytes(raw)
        return json.dumps(decoded.about()).encode(), decoded.levels.astype("<u2").tobytes()
    except InputError as error:
        return json.dumps({"code": error.code, "what": error.what}).encode(), b""
    except MemoryError:
        return json.dumps({"code": "GM-D027", "what": "decoding the file took too much memory"}).encode(), b""


def _warm() -> None:
    """Loads what decoding loads, before memory is limited: libraries reserve much more than they use."""
    import nibabel  # noqa: F401
    import pydicom.pixels.decoders.base  # noqa: F401

    for name in ("libjpeg", "openjpeg", "rle"):
        try:
            import_module(name)
        except ImportError:  # its files are then refused as ones that cannot be decoded
            continue


def _limit(memory_mib: int) -> None:
    try:
        import resource
    except ImportError:  # no limits on this system but the parent's clock
        return
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").is_file() else 0
    now = pages * resource.getpagesize()
    for kind, most in (
        (resource.RLIMIT_AS, now + (memory_mib << 20)),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
    ):
        try:
            resource.setrlimit(kind, (most, most))
        except (ValueError, OSError):  # a lower limit stands already
            continue


def _limit_processor(seconds: int) -> None:
    """So many seconds from now; the limit counts from the start of the process."""
    try:
        import resource
    except ImportError:
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + seconds + 1, resource.RLIM_INFINITY))
