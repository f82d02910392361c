"""The command line. Options are parsed here; nothing heavy is imported before a command needs it."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from attnspec import __version__
from attnspec.errors import UsageError
from attnspec.progress import Progress
from attnspec.run_file import RunFile

if TYPE_CHECKING:
    from attnspec.auditor import Report, Unit
    from attnspec.properties.verdict import Record

PROFILES = ("quick", "ci", "deep")


class _Group(click.Group):
    """Turns errors of ours into a message and an exit code, and knows the nearest command."""

    def invoke(self, ctx: click.Context) -> Any:
        from attnspec.properties.case import CaseError
        from attnspec.properties.claim import UnknownClaim

        try:
            return super().invoke(ctx)
        except (UsageError, UnknownClaim, CaseError) as error:
            raise SystemExit(_refuse(str(error))) from None
        except BrokenPipeError:
            raise SystemExit(0) from None
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:  # nothing is known then, least of all that a claim is violated
            click.echo(_broken(error), err=True)
            raise SystemExit(3) from None
        except KeyboardInterrupt:  # before or after the audit itself; click would make it 1, "violated"
            raise SystemExit(130) from None


def _refuse(message: str) -> int:
    click.echo(f"attnspec: error: {message}", err=True)
    return 2


def _broken(error: Exception) -> str:
    return f"{''.join(traceback.format_exception(error))}attnspec: error of attnspec itself: {type(error).__name__}: {error}"


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="attnspec")
def main() -> None:
    """The conformance suite for attention and Transformers."""


def _pairs(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    """KEY=VALUE options as a mapping; a key given twice is an error, since one of them would be lost silently."""
    del ctx
    flag = parameter.opts[0]
    options: dict[str, Any] = {}
    for pair in values:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"{flag} {pair}: an option is key=value, for example {flag} layout=bthd")
        if key in options:
            raise UsageError(f"{flag} {key}: given twice ({options[key]} and {value}); give it once")
        options[key] = value
    return options


def _auditing(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that `audit` and `demo` share."""
    for option in reversed(
        (
            click.option("--select", multiple=True, metavar="CLAIM", help="Only these claims: an id or a family, e.g. mask."),
            click.option("--ignore", multiple=True, metavar="CLAIM", help="Not these claims."),
            click.option(
                "--profile", type=click.Choice(PROFILES), default="quick", show_default=True, help="How long to look."
            ),
            click.option("--seed", type=int, default=2718, show_default=True, help="Seed of the search."),
            click.option(
                "--timeout",
                type=click.FloatRange(min=0, min_open=True),
                help="Seconds for one unit before it is UNKNOWN.",
            ),
            click.option(
                "--json",
                "json_file",
                type=click.Path(dir_okay=False, path_type=Path),
                help="Write NDJSON results here.",
            ),
            click.option(
                "--report",
                "report_folder",
                type=click.Path(file_okay=False, path_type=Path),
                help="Write an HTML report here.",
            ),
            click.option("--fail-on", type=click.Choice(["must", "should", "may"]), default="must", show_default=True),
            click.option("-v", "--verbose", is_flag=True, help="Conventions with their origin, and what is not applicable."),
        )
    ):
        command = option(command)
    return command


@main.command()
@click.argument("targets", nargs=-1, required=True, metavar="TARGET...")
@click.option(
    "-o", "options", multiple=True, metavar="KEY=VALUE", callback=_pairs, help="Declare a convention of the target."
)
@click.option("--in-process", is_flag=True, help="No worker process: for debuggers.")
@click.option("-j", "--jobs", type=click.IntRange(min=1), help="How many processes work at a time; by default one a core.")
@click.option(
    "--resume", is_flag=True, help="Leave out the targets that an interrupted run with the same --json file finished."
)
@click.option("--keep-going-ok", is_flag=True, help="A target that cannot be loaded does not set the exit code.")
@_auditing
def audit(
    targets: tuple[str, ...],
    options: dict[str, Any],
    in_process: bool,
    keep_going_ok: bool,
    resume: bool,
    **settings: Any,
) -> None:
    """Audit attention functions and language models: module:attribute, path/file.py::name, or LIBRARY:NAME such as
    torch:scaled_dot_product_attention or hf-tiny:llama.

    The exit code is 0 if nothing that counts is violated, 1 if something is, 2 for what cannot be used, 3 if something could
    not be decided, 5 if nothing was exercised.
    """
    from attnspec.target import declarations

    declarations(options)
    _selected(settings)
    if resume and settings["json_file"] is None:
        raise UsageError("--resume: it reads what was finished from the --json file; name that file too")
    reports, code, resumed = [], 0, False
    with _run_file(settings, resume=resume) as file:
        for number, target in enumerate(targets, start=1):
            done = file.finished(target, options, settings["profile"], settings["seed"]) if file is not None else None
            if done is not None:
                click.echo(f"{target}: done before, exit {done}")
                code, resumed = _worse(code, done), True
                continue
            place = f"{number}/{len(targets)}" if len(targets) > 1 else ""
            try:
                report = _one(target, options, in_process, settings, file, place)
            except Exception as error:
                if len(targets) == 1:
                    raise
                usage = isinstance(error, UsageError)
                click.echo(f"attnspec: {error}" if usage else _broken(error), err=True)
                code = code if usage and keep_going_ok else _worse(code, 3)
                continue
            reports.append(report)
            code = _worse(code, report.exit_code)
            if report.interrupted:
                break
    _written(reports, settings)
    raise SystemExit(code if reports or resumed else _worse(code, 5))  # an audit that exercised nothing is not green


def _run_file(settings: dict[str, Any], *, resume: bool = False) -> AbstractContextManager[RunFile | None]:
    """The file of --json, if one is wanted. Errors: UsageError."""
    path, folder = settings["json_file"], settings["report_folder"]
    if path is None:
        return nullcontext()
    if folder is not None and path.resolve() == (folder / "results.ndjson").resolve():
        raise UsageError(f"--json {path}: --report {folder} writes a file of that name; leave --json out, or name another")
    return RunFile(path, resume=resume)


def _selected(settings: dict[str, Any]) -> None:
    from attnspec.properties.claim import select

    select(settings["select"], settings["ignore"])


def _worse(*codes: int) -> int:
    """2 > 130 > 1 > 3 > 5 > 0 (engine 3)."""
    return max(codes, key=lambda code: (0, 5, 3, 1, 130, 2).index(code))


def _one(
    target: str,
    options: dict[str, Any],
    in_process: bool,
    settings: dict[str, Any],
    file: RunFile | None,
    place: str,
) -> Report:
    """Audits one target, shows progress, writes down what is found as it is found, and prints the report."""
    from attnspec.auditor import audit as run
    from attnspec.kept_cases import keep_cases
    from attnspec.report.terminal import render

    with Progress(target, place) as progress:

        def begun(report: Report, units: Sequence[Unit]) -> None:
            progress.begin(units)
            if file is not None:
                file.begin(report)

        def found(unit: Unit, record: Record) -> None:
            progress.done(unit, record)
            if file is not None:
                file.found(record)

        report = run(
            target,
            select=settings["select"],
            ignore=settings["ignore"],
            profile=settings["profile"],
            seed=settings["seed"],
            timeout=settings["timeout"],
            in_process=in_process or None,
            jobs=settings.get("jobs"),
            progress=found,
            begun=begun,
            **options,
        )
    report.fail_on = settings["fail_on"]
    if file is not None:
        file.finish(report)
    keep_cases(report, Path.cwd())
    click.echo(render(report, verbose=settings["verbose"]))
    return report


def _written(reports: list[Report], settings: dict[str, Any]) -> None:
    """Writes the HTML report if one is wanted, and says where results are."""
    if settings["json_file"] is not None:
        click.echo(f"results: {settings['json_file']}")
    if settings["report_folder"] is not None:
        from attnspec.report.html import write

        click.echo(f"report: {write(reports, settings['report_folder'])}")


@main.command()
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option("-o", "options", multiple=True, metavar="KEY=VALUE", callback=_pairs, help="Declare a convention of both.")
@click.option("-a", "a_options", multiple=True, metavar="KEY=VALUE", callback=_pairs, help="Declare a convention of A alone.")
@click.option("-b", "b_options", multiple=True, metavar="KEY=VALUE", callback=_pairs, help="Declare a convention of B alone.")
@click.option("--profile", type=click.Choice(PROFILES), default="quick", show_default=True, help="How long to look.")
@click.option("--seed", type=int, default=2718, show_default=True, help="Seed of the cases.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), help="Seconds for one case before it is given up.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write NDJSON results here.")
@click.option("--in-process", is_flag=True, help="No worker processes: for debuggers.")
@click.option("-v", "--verbose", is_flag=True, help="Also what was left out, and why.")
def compare(a: str, b: str, json_file: Path | None, verbose: bool, **settings: Any) -> None:
    """Compare two attention functions on the same cases: each with the derived bound, and with each other.

    A and B are targets as for audit: a port and its original, a fused kernel and the plain one, one library and another. The
    exit code is 1 if either exceeds its bound, or they differ by more than both.
    """
    from attnspec.comparison import compare as run
    from attnspec.comparison import keep_cases
    from attnspec.report.comparison import render
    from attnspec.target import declarations

    options = settings.pop("options")
    for own in ("a_options", "b_options"):
        if twice := next((key for key in settings[own] if key in options), None):
            raise UsageError(f"-{own[0]} {twice}: -o gives it for both already; give {twice} once for each, or for both")
        declarations(options | settings[own])
    with Progress(f"{a} | {b}") as progress:
        found = run(a, b, progress=lambda dtype, case: progress.say(f"{case.claim} {dtype}"), **settings, **options)
    keep_cases(found, Path.cwd())
    click.echo(render(found, verbose=verbose))
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        found.to_json(json_file)
        click.echo(f"results: {json_file}")
    raise SystemExit(found.exit_code)


@main.command()
@click.argument("case")
@click.option("--target", help="Replay on this target; by default the one that the case was found on.")
@click.option(
    "-o", "options", multiple=True, metavar="KEY=VALUE", callback=_pairs, help="Declare a convention of the target."
)
@click.option("--in-process", is_flag=True, help="No worker process: for debuggers.")
def replay(case: str, target: str | None, options: dict[str, Any], in_process: bool) -> None:
    """Replay a case: a file, or a prefix (4 or more characters) of an id in .attnspec/cases/."""
    from attnspec.kept_cases import CASES
    from attnspec.replay import find, replay_case
    from attnspec.report.terminal import render

    path = find(case, CASES)
    report = replay_case(path, target, options, in_process=in_process)
    click.echo(render(report))
    raise SystemExit(report.exit_code)


@main.command()
@click.option("--select", multiple=True, metavar="CLAIM", help="Only these claims or families.")
def claims(select: tuple[str, ...]) -> None:
    """List the claims."""
    from attnspec.properties.claim import select as chosen

    for claim in chosen(select):
        click.echo(f"{claim.id:<30} {claim.level:<7} {claim.statement}")


@main.command()
@click.argument("claim")
def explain(claim: str) -> None:
    """Explain a claim, or each claim of a family."""
    from attnspec.properties.claim import select
    from attnspec.report.terminal import describe_claim

    click.echo("\n\n".join("\n".join(describe_claim(c)) for c in select((claim,))))


@main.command()
@_auditing
def demo(**settings: Any) -> None:
    """Audit a broken example and real implementations; succeeds exactly when it finds what it must find."""
    from attnspec.demo import run

    with _run_file(settings) as file:
        code = run(settings, partial(_one, file=file), _written)
    raise SystemExit(code)
