"""Command line and TOML in, one frozen record out."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowprep.errors import FlowprepError
from train.config import (
    DistillConfig,
    TeacherConfig,
    differences,
    dump_toml,
    load_config,
    parse,
)
from train.evaluate import EvaluateConfig
from train.ranges import flat

PROGRAM = "python -m train.distill"


def given(*arguments: str) -> DistillConfig:
    return parse(DistillConfig, PROGRAM, arguments)


def test_options_land_in_their_groups() -> None:
    config = given(
        "--shards", "s", "--lambda", "2.5", "--width", "0.25", "--epochs", "3", "--hflip"
    )
    assert config.data.shards == "s"
    assert config.lambda_ == 2.5
    assert config.net.width == 0.25
    assert config.optim.epochs == 3.0
    assert config.data.hflip


def test_what_toml_holds_comes_back_and_the_command_line_wins(tmp_path: Path) -> None:
    config = given("--shards", "s", "--loss", "kl", "--lr", "0.5")
    path = tmp_path / "config.toml"
    path.write_text(dump_toml(config))
    assert load_config(DistillConfig, path) == config
    assert given("--config", str(path), "--lr", "0.25") == parse(
        DistillConfig, PROGRAM, ["--shards", "s", "--loss", "kl", "--lr", "0.25"]
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nonsense = 1", "unknown setting nonsense"),
        ("[optim]\nlrr = 1", "unknown setting lrr"),
        ('loss = "mse"', "loss = 'mse' is not known"),
        ('[optim]\nbatch = "8"', "batch = '8' is a str"),
        ("[optim]\nbatch = true", "batch = True is a bool"),
        ("[optim", "is not TOML"),
    ],
)
def test_a_file_that_is_no_config_is_refused_by_name(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(FlowprepError, match=r"bad\.toml") as caught:
        given("--config", str(path))
    assert told in caught.value.message
    with pytest.raises(FlowprepError, match="no such file"):
        given("--config", str(tmp_path / "none.toml"))


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--lr", "0"),
        ("--lr", "nan"),
        ("--batch", "0"),
        ("--lambda", "-1"),
        ("--temperature", "0"),
        ("--val-share", "0"),
        ("--workers", "-2"),
        ("--momentum", "1"),
    ],
)
def test_numbers_out_of_range_are_refused_with_the_range(flag: str, value: str) -> None:
    with pytest.raises(FlowprepError, match=f"{flag} .* is not usable") as caught:
        given(flag, value)
    assert caught.value.hint.startswith("allowed: ")


@pytest.mark.parametrize("name", ["clips", "crops", "batch"])
def test_evaluation_has_ranges_too(name: str) -> None:
    with pytest.raises(FlowprepError, match=f"--{name} 0 is not usable"):
        parse(EvaluateConfig, "evaluate", [f"--{name}", "0"])
    with pytest.raises(FlowprepError, match="--val-share 2 is not usable"):
        parse(EvaluateConfig, "evaluate", ["--val-share", "2"])


def test_a_list_in_a_file_is_several_values(tmp_path: Path) -> None:
    path = tmp_path / "evaluate.toml"
    path.write_text('also = ["a", "b"]\n')
    assert load_config(EvaluateConfig, path).also == ("a", "b")
    path.write_text("also = [1]\n")
    with pytest.raises(FlowprepError, match="also = 1 is a int"):
        load_config(EvaluateConfig, path)


@pytest.mark.parametrize("option", ["--frames", "--crop", "--stride", "--resize", "--save-minutes"])
def test_evaluation_has_no_option_that_does_nothing(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(EvaluateConfig, "evaluate", [option, "8"])
    assert option in capsys.readouterr().err


def test_an_unknown_option_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        given("--losss", "kl")
    assert caught.value.code == 2
    assert "--losss" in capsys.readouterr().err


def test_only_settings_that_change_the_result_differ() -> None:
    before = given("--shards", "a", "--workers", "1", "--device", "cpu")
    assert differences(before, given("--shards", "b", "--workers", "3", "--run", "elsewhere")) == []
    assert differences(before, given("--skip-bad")) == []  # what stopped at a damaged sample
    assert differences(before, given("--lr", "0.5", "--seed", "1")) == [
        "lr: 0.001 -> 0.5",
        "seed: 0 -> 1",
    ]


def test_teacher_and_student_share_their_settings() -> None:
    assert set(flat(TeacherConfig())) < set(flat(DistillConfig()))


def test_every_option_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        given("--help")
    told = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for name in flat(DistillConfig()):
        flag = f"--{name.strip('_').replace('_', '-')}"
        assert flag in told or f"--no-{flag[2:]}" in told
        words = told.split(flag, 1)[-1].split("(default")[0].split()
        assert len(words) >= 3, flag
