"""flowprep extract"""

from __future__ import annotations

import sys
from typing import Any

import click

from flowprep.cli.group import EXIT_FAILURES, EXIT_USER, complain, interrupt, is_debug, on_signals
from flowprep.cli.options import RESOURCES, resource_options, run_options, setting_options
from flowprep.cli.recipes import chosen_settings


@click.command()
@click.option("--src", required=True, help="Folder, video, list (.csv, .parquet, .jsonl), or URL.")
@click.option(
    "--out", required=True, help="Folder or URL of the dataset, such as s3://bucket/shards."
)
@click.option("--recipe", help="Settings of a named dataset, or of a .toml file.")
@setting_options
@resource_options
@click.option("--join-report", default="", metavar="FILE.csv",
              help="Write what came of every file and annotation; with --dry-run too.")  # fmt: skip
@run_options
def extract(
    src: str,
    out: str,
    recipe: str | None,
    labels: tuple[str, ...],
    join_report: str,
    dry_run: bool,
    retry_failed: bool,
    max_failures: int,
    strict_versions: bool,
    log_json: bool,
    quiet: bool,
    **given: Any,
) -> None:
    """Decode videos, compute flow, write shards. Run it again to go on, or to add new videos."""
    from flowprep.labels.registry import chosen
    from flowprep.run.executors import Resources
    from flowprep.run.prepare import Request

    on_signals(interrupt)
    resources = Resources(**{name: given.pop(name) for name in RESOURCES})
    kind, annotations = chosen(labels)
    request = Request(
        src=src,
        out=out,
        settings=chosen_settings(recipe, given | {"labels": kind}),
        annotations=annotations,
        join_report=join_report,
        resources=resources,
        retry_failed=retry_failed,
        strict_versions=strict_versions,
    )
    carry_out(request, dry_run, max_failures, log_json, quiet)


def carry_out(request: Any, dry_run: bool, max_failures: int, log_json: bool, quiet: bool) -> None:
    """Do what a `run.prepare.Request` asks for, or with `dry_run` show the plan.

    Ends the process where the exit code is not 0.
    """
    from flowprep.run.extract import extract as run_extract
    from flowprep.run.progress import make_display
    from flowprep.run.tell import tell_plan, tell_summary

    display = make_display(log_json, quiet)
    if dry_run:
        tell_plan(request, display, log_json)
        return
    summary = run_extract(request, display)
    tell_summary(summary, request.out, display, log_json, is_debug())
    if summary.interrupted:
        raise KeyboardInterrupt
    if summary.lost:
        complain(
            f"{len(summary.lost)} shards could not be made; what is finished stays",
            "mend it and run the same command again; with flowprep --debug it tells more",
        )
        sys.exit(EXIT_USER)
    if len(summary.failures) > max_failures:
        sys.exit(EXIT_FAILURES)
