"""A video can make the decoder read nothing but its own bytes."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import av
import pytest

from flowprep.decode import opening
from flowprep.decode.bytestream import ByteStream
from flowprep.errors import ClipError


def lures(target: str) -> dict[str, str]:
    """Texts that make FFmpeg open `target` when they are taken for what they are."""
    return {
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n",
        "ffconcat": f"ffconcat version 1.0\nfile '{target}'\n",
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        "m=video 45454 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"'
        ' mediaPresentationDuration="PT1S"><Period><AdaptationSet mimeType="video/mp4">'
        f'<Representation id="0" bandwidth="1"><BaseURL>{target}</BaseURL></Representation>'
        "</AdaptationSet></Period></MPD>",
        "rtsp": f"RTSPtext\n{target}\n",
        "smil": f"<smil><body><video src='{target}'/></body></smil>",
        "asx": f'<asx version="3.0"><entry><ref href="{target}"/></entry></asx>',
        "asf reference": f"[Reference]\r\nRef1={target}\r\n",
        "pls": f"[playlist]\nNumberOfEntries=1\nFile1={target}\n",
        "xspf": '<?xml version="1.0"?><playlist version="1" xmlns="http://xspf.org/ns/0/">'
        f"<trackList><track><location>{target}</location></track></trackList></playlist>",
        "avisynth": f'FFmpegSource2("{target}")\n',
        "imf": '<?xml version="1.0"?><CompositionPlaylist '
        'xmlns="http://www.smpte-ra.org/schemas/2067-3/2016"><Id>urn:uuid:0</Id>'
        f"<ContentTitle>{target}</ContentTitle></CompositionPlaylist>",
        "svg": f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{target}"/></svg>',
        "bare": f"{target}\n",
        "late hls": "\0" * 64 + f"#EXTM3U\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n",
    }


@pytest.mark.parametrize("kind", list(lures("")))
@pytest.mark.parametrize("suffix", ["mp4", "m3u8"])
def test_a_playlist_in_disguise_reaches_no_server(tmp_path, decoder, server, kind, suffix):
    address, requests = server
    path = tmp_path / f"clip.{suffix}"
    path.write_text(lures(f"{address}/secret.ts")[kind])
    with pytest.raises(ClipError) as caught:
        decoder.probe(str(path))
    assert caught.value.reason == "not-a-video"
    assert requests == []


@pytest.mark.parametrize("kind", ["hls", "ffconcat", "dash"])
def test_a_playlist_in_disguise_reads_no_other_file(tmp_path, encode, decoder, kind):
    """The access time of the file it points at, set back by a day, does not move."""
    import os

    target = encode("secret.ts", n=10)
    path = tmp_path / "clip.mp4"
    path.write_text(lures(str(target))[kind])
    size = target.stat().st_size
    target.unlink()
    os.mkfifo(target)  # whoever opens it for reading lets the writer below through
    reached = threading.Event()
    writer = threading.Thread(target=lambda: (open(target, "wb").close(), reached.set()))
    writer.start()
    try:
        with pytest.raises(ClipError) as caught:
            decoder.probe(str(path))
        assert caught.value.reason == "not-a-video"
        assert size > 0
        assert not reached.wait(0.2)
    finally:
        os.close(os.open(target, os.O_RDONLY | os.O_NONBLOCK))
        writer.join(5)


def test_the_lure_works_where_nothing_guards(tmp_path, encode, server):
    """Otherwise the tests above would prove nothing."""
    target = encode("secret.ts", n=10)
    playlist = tmp_path / "list.m3u8"
    playlist.write_text(lures(target.name)["hls"])
    with av.open(str(playlist)) as container:
        assert container.format.name == "hls"
        assert next(container.decode(video=0)).width == 64
    address, requests = server
    playlist.write_text(lures(f"{address}/secret.ts")["hls"])
    with pytest.raises(av.error.FFmpegError):
        av.open(str(playlist), container_options={"protocol_whitelist": "file,http,tcp"})
    assert requests


@pytest.mark.parametrize("lock", ["FORMATS", "PROTOCOLS", "_refuse"])
def test_each_lock_holds_alone(tmp_path, decoder, server, monkeypatch, lock):
    address, requests = server
    path = tmp_path / "list.m3u8"
    path.write_text(lures(f"{address}/secret.ts")["hls"])
    unlocked = {
        "FORMATS": (*opening.FORMATS, "hls"),
        "PROTOCOLS": "file,http,tcp",
        "_refuse": None,
    }
    monkeypatch.setattr(ByteStream, "name", str(path), raising=False)  # a fourth lock: no name
    for name in set(unlocked) - {lock}:
        monkeypatch.setattr(opening, name, unlocked[name])
    with pytest.raises(ClipError):
        decoder.probe(str(path))
    assert requests == []
    monkeypatch.setattr(opening, lock, unlocked[lock])
    with pytest.raises(ClipError):
        decoder.probe(str(path))
    assert requests  # without the last lock it does reach out


def test_a_reference_out_of_a_movie_is_not_followed(tmp_path, encode, decoder):
    """A mov whose data reference is an alias to another file finds no frames in itself."""
    path = encode("a.mov", n=10)
    data = bytearray(path.read_bytes())
    at = data.index(b"url ")
    data[at : at + 8] = b"alis" + bytes(4)  # flags 0: the data is elsewhere
    path.write_bytes(data)
    assert decoder.probe(str(path)).n_frames == 10


def test_protocols_of_ffmpeg_are_names_of_files(decoder, server):
    address, requests = server
    for name in (f"cache:{address}/a.mp4", "concat:a.mp4|b.mp4", "pipe:0", "file:/etc/hostname"):
        with pytest.raises(ClipError) as caught:
            decoder.probe(name)
        assert caught.value.reason == "missing"
    assert requests == []


def test_importing_the_contract_loads_neither_av_nor_cv2():
    code = "import sys, flowprep.decode.base as b; assert not {'av', 'cv2'} & set(sys.modules)"
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
    code = "import sys, flowprep.decode.pyav, flowprep.decode.geometry;"
    code += "assert not {'av', 'cv2'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
