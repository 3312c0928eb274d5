"""`s4eca doctor`: what this machine has, and what would fail on it."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer


def doctor(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON, for a bug report")] = False,
) -> None:
    """Look at the environment, and at what a run would need: s4eca doctor [experiment=NAME …] [--json].

    KEY=VALUE are those of s4eca train. Exits with status 1 where something would fail.
    """
    content = examine(context.args)
    if as_json:
        typer.echo(json.dumps(content, indent=2, ensure_ascii=False))
    else:
        _show(content)
    if content["fails"]:
        raise typer.Exit(1)


def examine(overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Returns environment and findings as plain values, without names of accounts and without secrets."""
    import getpass

    from s4eca.doctor.facts import Run
    from s4eca.doctor.findings import LEVELS, Finding, would_fail
    from s4eca.doctor.gathering import gather
    from s4eca.doctor.machine import check_machine
    from s4eca.doctor.packages import check_packages, ranges
    from s4eca.doctor.planning import plan_run
    from s4eca.doctor.private import redacted
    from s4eca.doctor.run import check_run
    from s4eca.errors import S4ecaError

    run: Run | None = None
    refused: list[Finding] = []
    if overrides:
        try:
            run = plan_run(overrides)
        except S4ecaError as error:
            refused.append(Finding("fail", "config", str(error)))
        except ImportError as error:
            refused.append(Finding("fail", "imports", f"{error}; see the packages above."))
    roots = {key.partition("=")[2] for key in run.there if key.startswith("data.")} if run else {"data"}
    facts = gather([run.checkpoints if run else "outputs", *sorted(roots)])
    findings = [*check_packages(facts), *check_machine(facts), *refused]
    if run is not None:
        findings += check_run(facts, run)
    needed = {name: version for name, _, version, extra, _ in ranges(facts) if version and extra != "dev"}
    content = {
        "python": facts.python,
        "platform": facts.platform,
        "packages": {"s4eca": facts.packages.get("s4eca"), **needed},
        "cpus": facts.cpus,
        "cpu_bf16": facts.cpu_bf16,
        "memory": {"total": facts.memory[0], "free": facts.memory[1]},
        "shm": asdict(facts.shm) if facts.shm else None,
        "driver": list(facts.driver),
        "torch": asdict(facts.torch),
        "open_files": facts.open_files,
        "disks": {folder: asdict(disk) for folder, disk in facts.disks.items()},
        "hub": asdict(facts.hub),
        "wandb": asdict(facts.wandb),
        "compilers": list(facts.compilers),
        "environment": dict(facts.environment),
        "findings": [asdict(finding) for finding in sorted(findings, key=lambda one: LEVELS.index(one.level))],
        "fails": would_fail(findings),
    }
    return redacted(content, str(Path.home()), getpass.getuser())


def _show(content: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from s4eca.cache import readable

    console = Console(soft_wrap=True)
    table = Table(show_header=False, box=None, pad_edge=False)
    memory, torch, hub, wandb = (content[key] for key in ("memory", "torch", "hub", "wandb"))
    rows = {
        "python": f"{content['python']}, {content['platform']}",
        "packages": ", ".join(f"{name} {version}" for name, version in content["packages"].items()),
        "cores": f"{content['cpus']}, {torch['threads']} threads in PyTorch, {content['open_files']} open files",
        "memory": f"{readable(memory['free'])} free of {readable(memory['total'])}",
        "/dev/shm": f"{readable(content['shm']['free'])} free" if content["shm"] else "none",
        "gpu": "; ".join(content["driver"]) or "none",
        "cuda": f"torch is built for {torch['cuda'] or 'CPUs'}",
        "disk": ", ".join(f"{readable(disk['free'])} free for {name}" for name, disk in content["disks"].items()),
        "hub cache": ", ".join(hub["cached"]) or "empty",
        "wandb": f"{'logged in' if wandb['logged_in'] else 'not logged in'}, mode {wandb['mode']}",
        "set": ", ".join(f"{name}={value}" for name, value in content["environment"].items()) or "nothing",
    }
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table, highlight=False)
    console.print()
    styles = {"ok": "green", "warning": "yellow", "fail": "red"}
    for finding in content["findings"]:
        level = finding["level"]
        console.print(f"[{styles[level]}]{level:<8}[/] ", end="")
        console.print(f"{finding['about']}: {finding['says']}", markup=False, highlight=False)
