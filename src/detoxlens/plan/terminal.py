"""The forecast as a table, what it rests on, and what does not fit."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from detoxlens.jobs.progress import duration
from detoxlens.plan.command import Plan
from detoxlens.plan.forecast import Cost


def show(found: Plan, console: Console, *, device: str) -> None:
    """Prints it all; variants that cost the same, as far as the table shows it, share a row."""
    kind = "CPU" if device == "cpu" else "GPU"
    title = "Expected on this machine, within a factor of two; memory and disk in GiB"
    table = Table(title=title, title_justify="left", padding=(0, 0))
    for head in ("model", "stage"):
        table.add_column(head, no_wrap=True)
    table.add_column("variants")
    for head in ("each", f"{kind}-hours", "memory", "disk", "calls"):
        table.add_column(head, justify="right", no_wrap=True)
    for model, costs in found.costs.items():
        rows: dict[tuple[str, ...], list[Cost]] = {}
        for cost in costs:
            rows.setdefault((cost.stage, duration(cost.seconds), _gib(cost.memory_gib)), []).append(cost)
        for (stage, each, memory), same in rows.items():
            variants = ", ".join(cost.variant for cost in same)
            table.add_row(model, stage, variants, each, _hours(same), memory, *_disk_and_calls(same))
    every = [cost for costs in found.costs.values() for cost in costs]
    if every:
        seconds, memory = sum(cost.seconds for cost in every), max(cost.memory_gib for cost in every)
        table.add_section()
        table.add_row("together", "", "", duration(seconds), _hours(every), _gib(memory), *_disk_and_calls(every))
        console.print(table)
    for text in found.notes:
        console.print(text)
    for text in found.unknown:
        console.print(f"[yellow]Unknown:[/] {text}")
    for text in found.warnings:
        console.print(f"[red]Warning:[/] {text}")


def _hours(costs: Sequence[Cost]) -> str:
    hours = sum(cost.seconds for cost in costs) / 3600
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.2f}" if hours >= 0.01 else "< 0.01"


def _disk_and_calls(costs: Sequence[Cost]) -> tuple[str, str]:
    num_calls = sum(cost.num_api_calls for cost in costs)
    return _gib(sum(cost.disk_gib for cost in costs)), f"{num_calls:,}" if num_calls else ""


def _gib(value: float) -> str:
    return "" if value == 0 else "< 0.1" if value < 0.05 else f"{value:.1f}"
