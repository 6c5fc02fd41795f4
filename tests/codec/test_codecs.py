"""The contract suite over every codec in the registry; a new codec needs no new test file."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import contract_files as files
import contract_video as video
import numpy as np
import pytest
from codec_clips import encode, make_frames

from flowprep.codec import base
from flowprep.codec.base import CODECS, CodecEntry, get_codec
from flowprep.errors import ClipError, FlowprepError


def load_contract() -> ModuleType:
    """tests/codec/contract.py: the flow engines have one of the same name."""
    path = Path(__file__).with_name("contract.py")
    spec = importlib.util.spec_from_file_location("codec_contract", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


contract = load_contract()


def checks_for(entry: CodecEntry) -> list[video.Check]:
    """The checks that a codec of this family has to pass."""
    checks = [*contract.ALL, *files.ALL]
    if entry.kind != "rgb":
        checks.append(contract.check_zero_flow_is_exact)
    if entry.target.endswith(":JpegZip"):
        return [*checks, *files.INDEXED, video.check_plain_reader_of_zip]
    checks += [*video.ALL, *files.VIDEO]
    if entry.target.endswith(":FFV1"):
        return [*checks, *files.MKV, video.check_lossless_damage_is_seen]
    checks += video.H264
    if entry.kind == "rgb":
        checks.append(video.check_textbook_conversion)
    return [*checks, *files.INDEXED]


PAIRS = [
    pytest.param(name, check, id=f"{name}-{check.__name__.removeprefix('check_')}")
    for name, entry in CODECS.items()
    for check in checks_for(entry)
]


@pytest.mark.parametrize(("name", "check"), PAIRS)
def test_codec_keeps_the_contract(name: str, check: video.Check, tmp_path: Path) -> None:
    check(get_codec(name, [CODECS[name].kind]), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("width", [16, 48, 90, 171, 340])
def test_200_encodes_are_equal(name: str, width: int, tmp_path: Path) -> None:
    codec = get_codec(name, [CODECS[name].kind])
    frames = make_frames(codec.kind, 64, width)
    assert len({encode(codec, frames, tmp_path) for _ in range(200)}) == 1


@pytest.mark.parametrize("name", CODECS)
def test_full_disk_is_an_oserror(name: str, tmp_path: Path) -> None:
    """A file size limit stands in for the disk; in a process of its own, as it is for good."""
    script = f"""
import os, resource, signal, sys
import numpy as np
from pathlib import Path
from flowprep.codec.base import CODECS, CodecEntry, get_codec
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
entry = CODECS[{name!r}]
codec = get_codec({name!r}, [entry.kind])
shape = (40, 96, 96, 3) if entry.kind == "rgb" else (40, 96, 96)
dtype = np.uint16 if entry.kind == "flow16" else np.uint8
noise = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape).astype(dtype)
path = Path({str(tmp_path)!r}) / "full"
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
n_open = len(os.listdir("/proc/self/fd"))
try:
    with codec.open_writer(path, 96, 96) as writer:
        for i in range(10):
            writer.write(noise, (np.arange(40) + 40 * i) / 30)
except OSError as error:
    assert error.errno == 27, error
    assert not path.exists()
    assert len(os.listdir("/proc/self/fd")) == n_open
    sys.exit(17)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 17


def test_names_of_the_presets_are_registered() -> None:
    assert CODECS[base.DEFAULT_RGB].kind == CODECS[base.FAST_RGB].kind == "rgb"
    assert CODECS[base.DEFAULT_FLOW].kind == CODECS[base.FAST_FLOW].kind == "flow8"
    assert CODECS[base.DEFAULT_FLOW16].kind == "flow16"


@pytest.mark.parametrize("kind", ["rgb", "flow8"])
def test_each_kind_has_a_lossless_and_a_compact_codec(kind: base.Kind) -> None:
    lossless = {get_codec(n, [kind]).lossless for n, e in CODECS.items() if e.kind == kind}
    assert lossless == {True, False}


def test_unknown_or_unfit_names_are_refused() -> None:
    with pytest.raises(FlowprepError, match="jpeg, x264"):
        get_codec("h265", ["rgb"])
    with pytest.raises(FlowprepError, match="ffv1-flow16"):
        get_codec("x264", ["flow8", "flow16"])


@pytest.mark.parametrize("name", CODECS)
def test_params_are_one_line_and_name_the_settings(name: str) -> None:
    params = get_codec(name, [CODECS[name].kind]).params
    assert "=" in params
    assert "\n" not in params


def test_an_empty_clip_is_a_clip_error(tmp_path: Path) -> None:
    for name, entry in CODECS.items():
        writer = get_codec(name, [entry.kind]).open_writer(tmp_path / name, 16, 16)
        with pytest.raises(ClipError, match="no frame"), writer:
            pass


def test_the_registry_loads_neither_pyav_nor_opencv() -> None:
    code = (
        "import sys; from flowprep.codec.base import *; get_codec('x264', ['rgb']);"
        "sys.exit(sum(name in sys.modules for name in ('av', 'cv2')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_window_touches_only_its_groups(tmp_path: Path) -> None:
    """Bytes of other groups may be damaged: they are not decoded."""
    codec = get_codec("ffv1-flow", ["flow8"])
    frames = make_frames("flow8", 40, 48)
    data = bytearray(encode(codec, frames, tmp_path))
    first = bytes(video.packets_of(bytes(data))[3])
    at = bytes(data).index(first)
    data[at + 10 : at + 20] = b"\0" * 10
    with pytest.raises(ValueError, match="checksum"):
        codec.read(bytes(data), 0, 8)
    np.testing.assert_array_equal(codec.read(bytes(data), 20, 30), frames[20:30])


def test_memory_does_not_grow_with_the_clip(tmp_path: Path) -> None:
    script = f"""
import resource, sys
import numpy as np
from pathlib import Path
from flowprep.codec.base import get_codec
codec = get_codec("x264", ["rgb"])
noise = np.random.default_rng(0).integers(0, 255, (16, 240, 320, 3)).astype(np.uint8)
peaks = []
with codec.open_writer(Path({str(tmp_path)!r}) / "long.mp4", 240, 320) as writer:
    for i in range(40):
        writer.write(noise, (np.arange(16) + 16 * i) / 30)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
sys.exit(int(peaks[-1] - peaks[4] > 8000))
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
