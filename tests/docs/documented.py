"""Console commands of the README and of docs/*.md: how they are found."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "benchmarks" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "notes").glob("*.md")),
]
COMMAND = re.compile(r"(pinn-engine|python3?|pip|ruff|apt-get|[A-Z]=|\./|\$ )")
CONSOLE = {"", "console", "bash", "sh", "shell"}


def blocks(text: str) -> list[list[str]]:
    """Code blocks that hold commands: fenced ones of a console's language, and indented ones."""
    found: list[list[str]] = []
    fence, inside = None, False
    for line in text.splitlines():
        mark = re.match(r"\s*```(\S*)", line)
        if mark:
            fence, inside = (None if fence is not None else mark[1]), False
            continue
        code = line.strip() if fence in CONSOLE else line[4:] if fence is None and line.startswith("    ") else None
        if code is None or not code.strip():
            inside = inside and not line.strip()
            continue
        if not inside:
            found.append([])
        inside = True
        found[-1].append(code.rstrip())
    return [block for block in found if COMMAND.match(block[0])]


def commands(text: str) -> list[str]:
    """One line a command, prompt and comment taken away; `a && b` are two."""
    lines = [re.sub(r"\s+#\s.*$", "", line).removeprefix("$ ") for block in blocks(text) for line in block]
    return [" ".join(part.split()) for line in lines for part in line.split(" && ") if COMMAND.match(part)]


def inline(text: str) -> list[str]:
    """Whole calls in running text: `pinn-engine demo cardiac --out demo`, but not the name `pinn-engine asl`."""
    found = re.findall(r"`(pinn-engine [^`]*--[^`]*)`", text)
    return [" ".join(command.split()) for command in found if "…" not in command and not command.endswith("--help")]


def python_blocks(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.M | re.S)


def documented() -> dict[str, list[str]]:
    """Command -> the pages that show it."""
    found: dict[str, list[str]] = {}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for command in commands(text) + inline(text):
            found.setdefault(command, []).append(page.relative_to(ROOT).as_posix())
    return found
