"""Damages of a dataset's files by someone who knows tar, JSON, Parquet and TOML."""

from __future__ import annotations

import io
import json
import random
import re
import tarfile
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from mutate import mutate

BLOCK = 512
NAMES = (
    *("/tmp/flowprep_stray", "../flowprep_stray.json", "../../flowprep_stray.json", "", ".", "a"),
    *("a/b.json", "x" * 100, "con.json", "a\nb.json", "\x1b[2J.json", ".json", "é.json"),
)
TYPES = b"\x000123456789xgLKSDMNVAXz"
VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 2**31, 2**63, 2**64, -(2**63), 10**400, 0.5, 1e308, float("nan")),
    *(
        float("inf"),
        "",
        "x",
        "\0",
        "\ud800",
        [],
        [0],
        {},
        {"a": 1},
        [[[[]]]],
        "../../x",
        "9" * 5000,
    ),
)


def damage(name: str, data: bytes, other: bytes, rng: random.Random) -> tuple[str, bytes]:
    """(what was done, the bytes): half of the time blindly."""
    known = BY_SUFFIX.get(name.rpartition(".")[2], [])
    if not known or rng.random() < 0.4:
        return mutate(data, other, rng)
    chosen = rng.choice(known)
    return chosen.__name__.strip("_"), chosen(data, rng)


# tar


def _headers(data: bytes) -> list[int]:
    """Where the headers of the members lie."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return [member.offset for member in tar]


def _signed(header: bytearray) -> bytearray:
    """With the checksum that fits."""
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return header


def _rewrite(data: bytes, rng: random.Random, change: Callable[[bytearray], None]) -> bytes:
    at = rng.choice(_headers(data))
    header = bytearray(data[at : at + BLOCK])
    change(header)
    return data[:at] + _signed(header) + data[at + BLOCK :]


def _lying_size(data: bytes, rng: random.Random) -> bytes:
    sizes = [0, 1, 511, 10**4, 8**11 - 1, rng.randrange(10**6)]
    fields = [b"%011o\0" % size for size in sizes]
    fields += [b"\x80" + size.to_bytes(11, "big") for size in (2**40, 2**62, 2**70)]
    fields += [b"\xff" * 12, b"-0000000001\0", b"           \0", b"99999999999\0"]

    def change(header: bytearray) -> None:
        header[124:136] = rng.choice(fields)

    return _rewrite(data, rng, change)


def _other_name(data: bytes, rng: random.Random) -> bytes:
    def change(header: bytearray) -> None:
        name = rng.choice(NAMES).encode()[:100]
        header[:100] = name.ljust(100, b"\0")
        if rng.random() < 0.2:
            header[345:500] = b"../".ljust(155, b"\0")

    return _rewrite(data, rng, change)


def _other_type(data: bytes, rng: random.Random) -> bytes:
    """Links, devices, folders, sparse files, headers of other dialects."""

    def change(header: bytearray) -> None:
        header[156] = rng.choice(TYPES)
        if rng.random() < 0.5:
            header[157:257] = b"/etc/hostname".ljust(100, b"\0")

    return _rewrite(data, rng, change)


def _wrong_checksum(data: bytes, rng: random.Random) -> bytes:
    at = rng.choice(_headers(data)) + 148
    return data[:at] + rng.choice((b"0000000\0", b"zzzzzzzz", bytes(8))) + data[at + 8 :]


def _inserted(data: bytes, rng: random.Random) -> bytes:
    """A member more, or an extended header before one."""
    info = tarfile.TarInfo(rng.choice([n for n in NAMES if n]))
    content = rng.choice((b"", b"{}", b"x" * 600, b"\0" * 5000))
    if rng.random() < 0.6:
        info.type = rng.choice((b"x", b"g", b"L", b"K"))
        content = rng.choice(
            (
                *(b"19 path=../../x.y\n", b"20 size=99999999999\n", b"99999 path=x\n", b"-1 a=b\n"),
                *(
                    b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n",
                    b"28 GNU.sparse.map=0,9,9,9\n",
                ),
                *(b"0" * 5000 + b" path=x\n", b"30 GNU.sparse.realsize=9999999\n", b"/x\0"),
                b"24 hdrcharset=BINARY\n13 path=\xff.j\n",
            )
        )
    info.size = len(content)
    made = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    padding = bytes(-len(content) % BLOCK)
    at = rng.choice(_headers(data))
    return data[:at] + made + content + padding + data[at:]


def _doubled(data: bytes, rng: random.Random) -> bytes:
    starts = [*_headers(data), len(data) - len(data) % BLOCK]
    at = rng.randrange(len(starts) - 1)
    member = data[starts[at] : starts[at + 1]]
    where = rng.choice(starts)
    return data[:where] + member + data[where:]


def _dropped(data: bytes, rng: random.Random) -> bytes:
    starts = [*_headers(data), len(data) - len(data) % BLOCK]
    at = rng.randrange(len(starts) - 1)
    return data[: starts[at]] + data[starts[at + 1] :]


def _other_info(data: bytes, rng: random.Random) -> bytes:
    """Another value in a sample's json, in place where it has the same length."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        infos = [m for m in tar if m.name.endswith(".json")]
    member = rng.choice(infos)
    at, end = member.offset_data, member.offset_data + member.size
    if rng.random() < 0.5:
        return data[:at] + _other_digit(data[at:end], rng) + data[end:]
    text = _other_value(data[at:end], rng)
    header = bytearray(data[member.offset : member.offset + BLOCK])
    header[124:136] = b"%011o\0" % len(text)
    after = end + -member.size % BLOCK
    padded = text + bytes(-len(text) % BLOCK)
    return data[: member.offset] + _signed(header) + padded + data[after:]


# JSON, TOML, text


def _other_digit(data: bytes, rng: random.Random) -> bytes:
    places = [m.start() for m in re.finditer(rb"\d", data)]
    at = rng.choice(places)
    return data[:at] + str(rng.randrange(10)).encode() + data[at + 1 :]


def _other_value(data: bytes, rng: random.Random) -> bytes:
    """A field of any depth with a value of another kind, or gone."""
    try:
        root = json.loads(data)
    except ValueError:
        return data[: len(data) // 2]
    place = root
    while True:
        names = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not names:
            break
        name = rng.choice(names)
        if isinstance(place[name], dict | list) and place[name] and rng.random() < 0.7:
            place = place[name]
            continue
        if rng.random() < 0.1:
            del place[name]
        else:
            place[name] = rng.choice(VALUES)
        break
    return json.dumps(root, indent=rng.choice((1, None)), sort_keys=True).encode("utf-8", "replace")


def _json_bomb(data: bytes, rng: random.Random) -> bytes:
    depth = rng.choice((900, 100_000))
    return rng.choice(
        (
            *(b"[" * depth, b'{"a":' * depth, b"[" * depth + b"]" * depth, b"1" * depth),
            *(
                b'{"samples": ' + b"9" * 5000 + b"}",
                b'"' + b"\\ud800" * 100 + b'"',
                b"null",
                b"1e999",
            ),
            *(b"", b"\xff\xfe", b"[]", b"{}", b"NaN", data + data, data.replace(b'"', b"'")),
            b'{"sha256": 1, ' * 2000,
        )
    )


def _toml_bomb(data: bytes, rng: random.Random) -> bytes:
    return rng.choice(
        (
            *(b"a = " + b"[" * 50_000, b"a = " + b"{a=" * 2000, b"a." * 5000 + b"a = 1", b"= 1"),
            *(b"settings = 3\n", b"[settings]\nfps = nan\n", b"[settings]\nfps = " + b"9" * 5000),
            *(b"", b"\xff", data + data, data.replace(b"=", b""), b"a = 1979-99-99"),
        )
    )


def _lines(data: bytes, rng: random.Random) -> bytes:
    lines = data.split(b"\n")
    rng.shuffle(lines)
    return rng.choice((b"\n".join(lines), b"", b"\xff\xfe" + data, data * 50, data + b"more\n"))


# Parquet


def _other_column(data: bytes, rng: random.Random) -> bytes:
    """One value, or a whole column, of another kind; or a column gone, or twice the rows."""
    table = pq.read_table(io.BytesIO(data))
    if not len(table):
        return b"PAR1PAR1"
    at = rng.randrange(table.num_columns)
    name, values = table.column_names[at], table.column(at).to_pylist()
    action = rng.randrange(5)
    if action == 0:
        table = table.drop_columns([name])
    elif action == 1:
        table = pa.concat_tables([table, table])
    elif action == 2:
        table = table.set_column(at, name, pa.array([str(v) for v in values]))
    elif action == 3:
        table = table.set_column(at, name, pa.nulls(len(table)))
    else:
        numbers = (-1, 0, 1, 2, 511, 10**6, 2**31, 2**40, 2**62, -(2**63), 2**63 - 1)
        kind = table.schema.field(at).type
        new = rng.choice(numbers) if pa.types.is_integer(kind) else "../../etc/passwd"
        values[rng.randrange(len(values))] = new if not pa.types.is_floating(kind) else float("nan")
        try:
            table = table.set_column(at, name, pa.array(values, kind))
        except (pa.ArrowException, TypeError):
            table = table.drop_columns([name])
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


BY_SUFFIX: dict[str, list[Callable[[bytes, random.Random], bytes]]] = {
    "tar": [
        *(_lying_size, _lying_size, _other_name, _other_type, _other_type, _wrong_checksum),
        *(_inserted, _inserted, _doubled, _dropped, _other_info, _other_info, _other_info),
    ],
    "json": [_other_value, _other_value, _other_digit, _json_bomb],
    "parquet": [_other_column],
    "toml": [_toml_bomb, _other_digit],
    "txt": [_lines],
    "idx": [_lines, _other_digit],
}
