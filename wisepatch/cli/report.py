"""``wisepatch report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wisepatch.cli import completion
from wisepatch.cli import options as o
from wisepatch.files import in_utf8


@o.with_settings
def command(
    common: o.Common,
    output_path: Annotated[Path, typer.Option("--output", "-o", help="The page: a .html.")] = Path("report.html"),
    run: Annotated[
        list[str],
        typer.Option(
            "--run",
            help="Runs to report, by id or name, or all. (default: the newest that swept alpha)",
            autocompletion=completion.runs,
        ),
    ] = [],  # noqa: B006 -- Typer copies defaults
    title: Annotated[
        str | None, typer.Option("--title", help="A title of your own.", callback=lambda text: text and in_utf8(text))
    ] = None,
    form: o.FormatOption = "table",
) -> None:
    """Write one page of HTML on a run: what was done, the chosen alpha and why, tests, charts, images, lineage.

    The page holds all that it shows, works offline, and is below 5 MB. Nothing is computed anew: images that were fixed and broken
    come from the stored answers and the data folder, and the page is written without them where either is missing, and says so.

    Example: `wisepatch report --output report.html`, `wisepatch report --run first,second --output both.html`
    """
    common = common.printing(form)
    output = common.output
    from wisepatch.reports.page.writing import report_problems, write_report

    for problem in report_problems(output_path):
        raise problem
    tables = write_report(
        common.open_store(), output_path, runs=o.run_names(run) or "newest",
        data=common.data_folder(), title=title,
    )  # fmt: skip
    for table in tables:
        output.result(table.caption)
        output.table(table.columns, table.rows, strong=next(iter(table.strong), None))
        output.records(table.records, "report")
    output.records([{"output": str(output_path)}], "page")
    output.result(f"the report is {output_path}")
