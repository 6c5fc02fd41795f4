"""Colours and rotation against matrix arithmetic and array turns written out here."""

from __future__ import annotations

import av
import numpy as np
import pytest

from flowprep.decode.color import RgbConverter

KR_KB = {"601": (0.299, 0.114), "709": (0.2126, 0.0722), "2020": (0.2627, 0.0593)}
TAG = {"601": 6, "709": 1, "2020": 9}  # ITU-T H.273 matrix coefficients
LIMITED, FULL = 1, 2


def expected_rgb(planes: tuple[int, ...], matrix: str, full: bool, bits: int = 8) -> np.ndarray:
    scale = 2 ** (bits - 8)
    y, u, v = planes[:3]
    top = 256 * scale - 1
    luma = y / top if full else (y - 16 * scale) / (219 * scale)
    blue, red = ((c - 128 * scale) / (top if full else 224 * scale) for c in (u, v))
    kr, kb = KR_KB[matrix]
    r, b = luma + 2 * (1 - kr) * red, luma + 2 * (1 - kb) * blue
    g = (luma - kr * r - kb * b) / (1 - kr - kb)
    return np.clip(np.array([r, g, b]) * 255, 0, 255)


def assert_color(frames: np.ndarray, rgb: np.ndarray, tolerance: float = 2.0) -> None:
    assert np.abs(frames - rgb).max() <= tolerance, (frames[0, 0, 0], rgb)


@pytest.mark.parametrize("planes", [(81, 90, 240), (145, 54, 34), (41, 220, 110), (200, 128, 128)])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", ["601", "709", "2020"])
def test_tagged_matrix_and_range_are_honoured(solid, take, planes, matrix, full):
    tags = {"colorspace": TAG[matrix], "color_range": FULL if full else LIMITED}
    frames = take(solid("a.mkv", "yuv420p", planes, tags=tags))
    assert_color(frames, expected_rgb(planes, matrix, full))


@pytest.mark.parametrize(
    ("width", "height", "matrix"), [(64, 718, "601"), (64, 720, "709"), (1280, 480, "601")]
)
def test_untagged_is_601_below_720_lines_and_709_from_there(solid, take, width, height, matrix):
    planes = (81, 90, 240)
    frames = take(solid("a.mkv", "yuv420p", planes, width=width, height=height))
    assert_color(frames, expected_rgb(planes, matrix, full=False))
    other = "709" if matrix == "601" else "601"
    assert np.abs(expected_rgb(planes, other, full=False) - frames[0, 0, 0]).max() > 5


@pytest.mark.parametrize("width", [64, 65])
@pytest.mark.parametrize("height", [48, 49])
@pytest.mark.parametrize(
    ("pix_fmt", "bits"),
    [("yuv420p", 8), ("yuv422p", 8), ("yuv444p", 8), ("yuv420p10le", 10), ("yuv444p10le", 10)],
)
def test_every_subsampling_depth_and_odd_size(solid, take, pix_fmt, bits, width, height):
    planes = tuple(value << (bits - 8) for value in (81, 90, 240))
    frames = take(solid("a.mkv", pix_fmt, planes, width=width, height=height))
    assert frames.shape == (2, height, width, 3)
    assert_color(frames, expected_rgb(planes, "601", False, bits))


def test_alpha_is_dropped(solid, take):
    frames = take(solid("a.mkv", "yuva420p", (81, 90, 240, 7)))
    assert_color(frames, expected_rgb((81, 90, 240), "601", False))


@pytest.mark.parametrize(("color_range", "value"), [(FULL, 100.0), (LIMITED, 84 * 255 / 219)])
def test_gray_follows_its_range(solid, take, color_range, value):
    frames = take(solid("a.mkv", "gray", (100,), tags={"color_range": color_range}))
    assert_color(frames, np.full(3, value), tolerance=1)


def test_yuvj_is_full_range_without_a_tag(encode, take):
    frame = av.VideoFrame(64, 48, "yuvj420p")
    for plane, value in zip(frame.planes, (10, 128, 128), strict=True):
        plane.update(bytes([value]) * plane.buffer_size)
    path = encode("a.avi", "mjpeg", pix_fmt="yuvj420p", frames=[frame], options={"q": "2"})
    assert_color(take(path), np.full(3, 10.0))


def test_a_yuvj_frame_is_full_range_whatever_its_tag():
    frame = av.VideoFrame(64, 48, "yuvj420p")
    for plane, value in zip(frame.planes, (10, 128, 128), strict=True):
        plane.update(bytes([value]) * plane.buffer_size)
    assert frame.color_range != FULL
    to_rgb = RgbConverter(width=64, height=48, rotation_deg=0)
    assert_color(to_rgb(frame)[None], np.full(3, 10.0))


def test_rgb_video_passes_unchanged(encode, take):
    rgb = np.random.default_rng(3).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    frame = av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(format="bgr0")
    path = encode("a.mkv", "ffv1", pix_fmt="bgr0", frames=[frame])
    np.testing.assert_array_equal(take(path)[0], rgb)


def gif_image(codes: np.ndarray, transparent: int | None) -> bytes:
    """One image of a GIF: 7-bit pixels as 8-bit codes, cleared before the table can grow."""
    height, width = codes.shape
    runs = [codes.ravel()[i : i + 100].tolist() for i in range(0, codes.size, 100)]
    data = bytes([code for run in runs for code in (128, *run)] + [129])
    blocks = b"".join(
        bytes([len(data[i : i + 255])]) + data[i : i + 255] for i in range(0, len(data), 255)
    )
    flags = 0x05 if transparent is not None else 0x04  # keep what is under the next image
    control = b"\x21\xf9\x04" + bytes([flags, 10, 0, transparent or 0, 0])
    place = b"\x2c" + b"\0\0\0\0" + width.to_bytes(2, "little") + height.to_bytes(2, "little")
    return control + place + b"\0" + b"\x07" + blocks + b"\0"


def test_a_gif_gives_its_palette_colours_and_keeps_what_shows_through(tmp_path, take):
    palette = np.random.default_rng(5).integers(0, 256, (128, 3), dtype=np.uint8)
    below = np.random.default_rng(6).integers(0, 127, (24, 32), dtype=np.uint8)
    above = np.where(below % 2 == 0, 127, 3).astype(np.uint8)
    size = (32).to_bytes(2, "little") + (24).to_bytes(2, "little")
    images = gif_image(below, None) + gif_image(above, transparent=127)
    path = tmp_path / "a.gif"
    path.write_bytes(b"GIF89a" + size + b"\xe6\0\0" + palette.tobytes() + images + b"\x3b")
    first, second = take(path)
    np.testing.assert_array_equal(first, palette[below])
    np.testing.assert_array_equal(second, palette[np.where(above == 127, below, above)])


@pytest.mark.parametrize(
    ("matrix", "degrees"),
    [
        ((1, 0, 0, 1), 0),
        ((0, 1, -1, 0), 90),
        ((-1, 0, 0, -1), 180),
        ((0, -1, 1, 0), 270),
        ((-1, 0, 0, 1), 0),  # mirrored left to right: not undone
        ((1, 0, 0, -1), 180),  # mirrored top to bottom: upright, still mirrored
    ],
)
def test_rotation_sets_the_picture_upright(encode, decoder, take, turn, matrix, degrees):
    upright = encode("a.mp4", n=6, width=64, height=48)
    turned = turn(upright, matrix)
    media = decoder.probe(str(turned))
    assert media.rotation_deg == degrees
    expected = np.rot90(take(upright), -degrees // 90, axes=(1, 2))
    assert expected.shape[1:3] == (media.height, media.width)
    np.testing.assert_array_equal(take(turned), expected)


def test_rotation_is_what_ffmpeg_reports(encode, decoder, turn):
    for matrix in ((0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0)):
        turned = turn(encode("a.mp4", n=3), matrix)
        with av.open(str(turned)) as container:
            frame = next(container.decode(video=0))
        assert decoder.probe(str(turned)).rotation_deg == -frame.rotation % 360


def test_a_rotate_tag_counts_when_there_is_no_matrix(encode, decoder):
    media = decoder.probe(str(encode("a.mkv", n=3, metadata={"rotate": "90"})))
    assert (media.rotation_deg, media.width, media.height) == (90, 48, 64)


def test_the_sample_aspect_ratio_turns_with_the_picture(encode, decoder, turn):
    from fractions import Fraction

    path = encode("a.mp4", n=3, tags={"sample_aspect_ratio": Fraction(4, 3)})
    assert decoder.probe(str(path)).sar == Fraction(4, 3)
    assert decoder.probe(str(turn(path, (0, 1, -1, 0)))).sar == Fraction(3, 4)
