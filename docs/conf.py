"""The documentation site. Build it from the repository's root: `python -m sphinx -W docs site`, then open `site/index.html`.

Sphinx with MyST (Markdown) and the furo theme; `pip install ".[docs]"`. Pages of figures are the tables of benchmarks/results, pages of
notebooks are docs/notebooks: both are copied in as Markdown at every build, so that nothing is kept twice.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pinn_engine

HERE = Path(__file__).parent
RESULTS = HERE.parent / "benchmarks" / "results"

project, author, version = "pinn_engine", "The pinn_engine team", pinn_engine.__version__
copyright = "The pinn_engine team, Apache-2.0"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "furo"
html_title = f"pinn_engine {version}"
exclude_patterns = ["_build"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "separated"
add_module_names = False
html_show_sourcelink = False


def put(page: Path, text: str) -> None:
    """Write a copied page, but leave it alone where nothing changed: Sphinx then need not read it again."""
    page.parent.mkdir(exist_ok=True)
    if not page.exists() or page.read_text(encoding="utf-8") != text:
        page.write_text(text, encoding="utf-8")


def notebook_as_markdown(path: Path) -> str:
    """Text, code and what the code printed; a notebook without outputs shows its code alone."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
        elif cell["cell_type"] == "code" and source.strip():
            parts.append(f"```python\n{source}\n```")
            for output in cell.get("outputs", []):
                data = output.get("data", {})
                if "image/png" in data:
                    parts.append(f"![](data:image/png;base64,{''.join(data['image/png']).strip()})")
                elif text := "".join(output.get("text", data.get("text/plain", []))).strip():
                    parts.append(f"```text\n{text}\n```")
    return "\n\n".join(parts) + "\n"


for _table in sorted(RESULTS.glob("*.md")):
    _title, _text = _table.read_text(encoding="utf-8").removeprefix("# ").split("\n", 1)
    put(HERE / "results" / _table.name, f"# {_table.stem}\n\n**{_title}**\n" + re.sub(r"^# ", "## ", _text, flags=re.M))
for _notebook in sorted((HERE / "notebooks").glob("*.ipynb")):
    put(HERE / "tutorials" / f"{_notebook.stem}.md", notebook_as_markdown(_notebook))


def as_rst(text: str) -> str:
    """A docstring of this package (plain text, `code` in single backticks) as reStructuredText that means the same."""
    pieces = re.split(r"(`[^`]+`|\*\w+\*)", text)
    escaped = (re.sub(r"([\\*|_])", r"\\\1", piece) for piece in pieces[::2])
    kept = [f"`{piece}`" if piece.startswith("`") else piece for piece in pieces[1::2]]
    return "".join(a + b for a, b in zip(escaped, [*kept, ""], strict=True))


def plain_docstring(app, what, name, obj, options, lines: list[str]) -> None:
    """autodoc-process-docstring. Indented blocks (formulas, lists of options) and examples (>>>) stay as they were laid out."""
    out, block, example = [], False, False
    for line in lines:
        example = line.startswith(">>> ") or (example and bool(line.strip()))
        literal = example or line.startswith("    ")
        if literal and not block:
            out += ["", "::", ""]
        if block and not literal and line.strip():
            out.append("")
        block = literal or (block and not line.strip())
        out.append(("    " + line) if literal and not line.startswith("    ") else line if literal else as_rst(line))
    lines[:] = out


def adapted(app, name: str, source: list[str]) -> None:
    """source-read. In the repository a page points to benchmarks/results, in the site to the copied page; `page*` may match nothing."""
    if name == "index":
        source[0] = re.sub(r"^(.+\*)\n", lambda line: line[0] if any(HERE.glob(line[1] + ".md")) else "", source[0], flags=re.M)
    source[0] = source[0].replace("](../benchmarks/results/", "](results/").replace("](../../benchmarks/results/", "](../results/")


def setup(app) -> None:
    app.connect("autodoc-process-docstring", plain_docstring)
    app.connect("source-read", adapted)
