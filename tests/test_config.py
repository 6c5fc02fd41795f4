"""Settings: the fingerprint, the differences, TOML there and back, and recipes."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowprep.cli.options import SETTING_FLAGS
from flowprep.cli.recipes import chosen_settings
from flowprep.codec.base import CODECS, DEFAULT_FLOW, DEFAULT_RGB
from flowprep.config import Settings, dump_toml, load_toml, settings_from
from flowprep.errors import FlowprepError

OTHER: dict[str, Any] = {
    "fps": 10.0,
    "stride": 2,
    "short_side": 128,
    "resize": "cv2-linear",
    "apply_sar": True,
    "clip_max_s": 30.0,
    "clip_frames": 16,
    "clip_stride": 8,
    "labels": "none",
    "engine": "constant",
    "engine_params": {"dx": 2},
    "flow_map": "i3d",
    "bound_px": 10.0,
    "rgb_codec": "jpeg",
    "flow_codec": "ffv1-flow",
    "shard_frames": 4096,
    "seed": 1,
}
"""Another value for every field."""
NEEDS: dict[str, dict[str, Any]] = {"stride": {"fps": 0.0}, "clip_stride": {"clip_frames": 16}}
"""What a field cannot be changed without."""


def test_every_setting_is_covered_here_and_on_the_command_line() -> None:
    names = {f.name for f in fields(Settings)}
    assert set(OTHER) == names
    assert set(SETTING_FLAGS) == names - {"engine_params", "labels"}  # those are repeated
    assert all(f.metadata["help"] for f in fields(Settings))


def test_the_help_names_every_codec() -> None:
    described = {f.name: f.metadata["help"] for f in fields(Settings)}
    for name, entry in CODECS.items():
        help_text = described["rgb_codec" if entry.kind == "rgb" else "flow_codec"]
        assert name in re.split("[:;,] | ", help_text)


@pytest.mark.parametrize("name", OTHER)
def test_every_setting_changes_the_fingerprint_and_is_named_as_different(name: str) -> None:
    base = replace(Settings(), **NEEDS.get(name, {}))
    changed = replace(base, **{name: OTHER[name]})
    assert changed.fingerprint() != base.fingerprint()
    (difference,) = base.differences(changed)
    flag = SETTING_FLAGS.get(name, (f"--{name[:-1] if name == 'engine_params' else name}",))[0]
    assert difference.startswith(flag.split("/")[0].replace("_", "-"))
    assert base.differences(base) == []


def test_differences_are_told_as_options_and_none_is_rounded_away() -> None:
    base = Settings(fps=29.97, bound_px=20)
    other = replace(base, fps=29.9700001, short_side=0, engine_params={"dx": "2"})
    assert base.differences(other) == [
        "--fps 29.97 -> 29.9700001",
        "--size 256 -> native",
        "--engine-param dx unset -> 2",
    ]
    assert other.differences(replace(other, engine_params={"dx": 2})) != []


def test_differences_of_imported_frames_are_told_as_options_of_import() -> None:
    def imported(style: str, fps: float) -> Settings:
        params = {"style": style, "fps": fps}
        return Settings(engine="imported", engine_params=params, fps=0, short_side=0)

    told = imported("tsn", 25.0).differences(imported("denseflow", 12.5))
    assert sorted(told) == ["--fps 25 -> 12.5", "--style tsn -> denseflow"]


def test_the_fingerprint_is_the_same_in_every_process() -> None:
    params = {"tau": 0.2, "n_warps": 3, "a": "b"}
    settings = Settings(engine_params=params)
    code = (
        "from flowprep.config import Settings;"
        f"print(Settings(engine_params={dict(reversed(params.items()))}).fingerprint())"
    )
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed},
        )
        assert done.stdout.strip() == settings.fingerprint()


def test_the_fingerprint_is_short_hex() -> None:
    digits = Settings().fingerprint()
    assert len(digits) == 16
    assert int(digits, 16) >= 0


@given(
    st.fixed_dictionaries(
        {
            "fps": st.just(0.0) | st.floats(0.001, 1000),
            "short_side": st.integers(8, 4096),
            "apply_sar": st.booleans(),
            "bound_px": st.floats(0.1, 1024),
            "engine_params": st.dictionaries(
                st.sampled_from(["tau", "n_warps", "x"]),
                st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text("a\"'\\\n\t é"),
            ),
            "seed": st.integers(0, 2**60),
        }
    )
)
def test_toml_there_and_back(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any]
) -> None:
    settings = Settings(**values)
    path = tmp_path_factory.getbasetemp() / "round-trip.toml"
    path.write_text(dump_toml({"settings": asdict(settings)}), encoding="utf-8", newline="")
    back = settings_from(load_toml(path)["settings"], "here")
    assert back == settings
    assert back.fingerprint() == settings.fingerprint()


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"fsp": 25.0}, ("place", "fsp", "fps")),
        ({"fps": "25"}, ("place", "fps = '25'", "float")),
        ({"fps": True}, ("place", "fps = True", "float")),
        ({"seed": 1.0}, ("place", "seed = 1.0", "int")),
        ({"engine_params": [1]}, ("place", "engine_params", "dict")),
        ({"engine_params": {"a": [1]}}, ("a = [1]", "number")),
        ({"resize": "cubic"}, ("--resize 'cubic'", "area, cv2-linear")),
        ({"labels": "all"}, ("--labels 'all'", "auto, none")),
    ],
)
def test_a_table_that_is_not_usable_is_refused(
    values: dict[str, Any], told: tuple[str, ...]
) -> None:
    with pytest.raises(FlowprepError) as error:
        settings_from(values, "place")
    for part in told:
        assert part in str(error.value)


def test_a_whole_number_will_do_for_a_float() -> None:
    assert settings_from({"fps": 10}, "place") == Settings(fps=10.0)


# --- recipes ----------------------------------------------------------------------------------


def test_recipes_are_shipped_and_every_one_is_valid() -> None:
    from importlib.resources import files

    shipped = [p.name for p in files("flowprep.recipes").iterdir() if p.name.endswith(".toml")]
    assert {"kinetics400.toml", "ucf101.toml", "hmdb51.toml", "ssv2.toml"} <= set(shipped)
    for name in shipped:
        chosen_settings(name.removesuffix(".toml"), {})


def test_a_recipe_is_between_the_defaults_and_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        "[settings]\nfps = 10\nbound_px = 5.0\nengine_params = {tau = 0.1, n_warps = 2}\n"
    )
    given: dict[str, Any] = {"bound_px": 7.0, "seed": None, "engine_params": ("tau=0.2",)}
    chosen = chosen_settings(str(path), given)
    assert chosen == Settings(fps=10.0, bound_px=7.0, engine_params={"tau": 0.2, "n_warps": 2})


def test_the_config_of_a_dataset_is_a_recipe(tmp_path: Path) -> None:
    settings = Settings(fps=0.0, stride=3, engine="constant")
    table = {"settings": asdict(settings), "source": {"root": "/x"}, "versions": {"av": "1"}}
    path = tmp_path / "config.toml"
    path.write_text(dump_toml(table))
    assert chosen_settings(str(path), {}) == settings


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("fps = 10\n", ("fps", "[settings]")),
        ("[recipe]\nabout = 'x'\n", ("no [settings]",)),
        ("", ("no [settings]",)),
        ("settings = 3\n", ("no [settings]",)),
        ("[settings]\nfps = 10\n[setings]\n", ("setings",)),
        ("[settings]\nfsp = 10\n", ("unknown setting fsp", "fps")),
        ("[settings\n", ("is not TOML",)),
        ("\udcff", ("is not TOML",)),
    ],
)
def test_a_broken_recipe_is_refused(tmp_path: Path, text: str, told: tuple[str, ...]) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(FlowprepError) as error:
        chosen_settings(str(path), {})
    for part in ("mine.toml", *told):
        assert part in str(error.value)


def test_the_default_codecs_are_the_measured_ones() -> None:
    assert (Settings().rgb_codec, Settings().flow_codec) == (DEFAULT_RGB, DEFAULT_FLOW)
