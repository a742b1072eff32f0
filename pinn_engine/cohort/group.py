"""The study as a whole: tables of all finished subjects, a page that links their reports, the words for a paper."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from .. import __version__
from ..errors import InputError
from ..files.output import OutputFolder
from .ledger import Ledger, Result

FIGURES = {"asl": "desc-qualitycontrol_cbf.tsv", "cardiac": "desc-qualitycontrol_cardiac.tsv"}  # a subject's are in its marker already
LEGEND = "_dseg.tsv"  # of a label image: no figures


def write_group(ledger: Ledger) -> list[Path]:
    """`group_….tsv`, index.html and logs/CITATION.md from the markers; raises InputError where no subject is done."""
    from ..report.study import write_index

    results = ledger.results()
    done = [result for result in results if result.state == "done"]
    if not done:
        raise InputError(ledger.out, "no subject is done", found=f"{len(results)} marker(s)", fix="run the participant level first")
    folder = OutputFolder(ledger.out)
    written = [folder.write_tsv(f"group_{FIGURES[_organ(done)]}", [_row(result) for result in results], _columns(results))]
    for name, rows in _stacks(ledger.out, done).items():
        written.append(folder.write_tsv(f"group_{name}", rows, [*dict.fromkeys(column for row in rows for column in row)]))
    written.append(folder.write_text("logs/CITATION.md", citation(ledger.out, done)))
    files = [path.relative_to(ledger.out).as_posix() for path in written]
    shown = [replace(result, message=without_folders(result.message)) for result in results]
    written.append(folder.write_text("index.html", write_index(title(ledger.out), shown, _reports(done), files)))
    return written


def title(out: Path) -> str:
    """The name of the dataset that was fitted, where it is known; else of the study's folder."""
    try:
        about = json.loads((out / "dataset_description.json").read_text(encoding="utf-8"))
        return unquote(str(about["SourceDatasets"][0]["URL"]).rstrip("/").rsplit("/", 1)[-1]) or out.name
    except (OSError, ValueError, LookupError, TypeError):
        return out.name


def without_folders(message: str) -> str:
    """Paths by their last part: where a study's data lay is nobody's business but the markers'.

    >>> without_folders("/data/my study/sub-1_asl.nii.gz: M0 is missing; give mL/g")
    'sub-1_asl.nii.gz: M0 is missing; give mL/g'
    """
    return re.sub(r"(?<!\S)(?:[A-Za-z]:)?[\\/](?=\S)(?:[^\\/:;,()\n]*[\\/])*", "", message)


def write_dataset(folder: OutputFolder, source: Path | None, name: str) -> None:
    """dataset_description.json of the derivatives, .bidsignore for suffixes that BIDS does not know yet; neither in others' datasets."""
    about: dict[str, Any] = {
        "Name": name,
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "pinn_engine", "Version": __version__}],
        "HowToAcknowledge": "Cite pinn_engine and the works named in logs/CITATION.md",
    }
    if source is not None:
        about["SourceDatasets"] = [{"URL": source.as_uri()}]
    if folder.write_description(about):
        folder.write_text(".bidsignore", "*.html\nlogs/\ngroup_*\n*_att.*\n*_abat.*\n*_abv.*\n*_t1b.*\n*_cbf.*\n*_desc-*_asl.*\n")


def citation(out: Path, done: Sequence[Result]) -> str:
    """How the study was made, ready for a methods section; each way of fitting is told once, with its subjects counted."""
    told: dict[str, int] = {}
    for result in done:
        for file in (file for file in result.files if file.endswith("_desc-methods_cbf.txt")):
            own = Path(file).name.removesuffix("_desc-methods_cbf.txt")
            words = (out / file).read_text(encoding="utf-8").strip().replace(own, "sub-X")
            told[words] = told.get(words, 0) + 1
    ways = [f"{words}\n\n({count} of {len(done)} subjects)\n" for words, count in sorted(told.items(), key=lambda pair: -pair[1])]
    begin = f"# Methods\n\nFitted with pinn_engine {__version__}; {len(done)} subject(s).\n"
    return "\n".join([begin, *(ways or ["Each subject's report describes its fit and names the sources.\n"])])


def _row(result: Result) -> dict[str, Any]:
    figures = {name: value for name, value in result.summary.items() if isinstance(value, int | float | str)}
    return {
        "id": result.id,
        "state": result.state,
        **figures,
        "cautions": " | ".join(result.cautions) or None,
        "message": without_folders(result.message) if result.state == "failed" else None,
    }


def _columns(results: Sequence[Result]) -> list[str]:
    names = dict.fromkeys(name for result in results for name in _row(result))
    ends = ("id", "state", "cautions", "message")
    return ["id", "state", *(name for name in names if name not in ends), "cautions", "message"]


def _stacks(out: Path, done: Sequence[Result]) -> dict[str, list[Mapping[str, object]]]:
    """{"desc-roi_cbf.tsv": rows of all subjects, each with its id}."""
    stacks: dict[str, list[Mapping[str, object]]] = {}
    for result in done:
        for file in result.files:
            name = Path(file).name
            at = name.find("desc-")
            if at < 0 or not name.endswith(".tsv") or name.endswith((LEGEND, *FIGURES.values())):
                continue
            with open(out / file, encoding="utf-8", newline="") as stream:
                for row in csv.DictReader(stream, delimiter="\t"):
                    stacks.setdefault(name[at:], []).append({"id": result.id, **row})
    return stacks


def _organ(done: Sequence[Result]) -> str:
    """Hearts are known by their mesh."""
    hearts = any(file.endswith(("_cardiac.vtp", "_cardiac.vtu")) for result in done for file in result.files)
    return "cardiac" if hearts else "asl"


def _reports(done: Sequence[Result]) -> dict[str, str]:
    """Identifier -> its report, relative to the study's folder."""
    return {result.id: file for result in done for file in result.files if file.endswith("_report.html")}
