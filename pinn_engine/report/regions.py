"""The report's tables of tissue and regions, its plausibility checks, and the methods paragraph to paste."""

from __future__ import annotations

from ..asl.maps import MapKind
from ..asl.methods import paragraph
from ..asl.quality import plausibility, quality
from ..asl.regions import region_table
from ..asl.result import PerfusionFit
from . import html
from .html import Markup
from .svg import figure, percent

MANY = 60  # regions shown; a whole atlas is in the table on disk


def tissue_section(fit: PerfusionFit) -> Markup:
    """Grey and white matter, the quality index and the checks; what tissue is based on is said first."""
    row = quality(fit)
    origin = row["tissue_origin"]
    if origin is None:
        intro = "Grey and white matter are not known for this scan, so that their means and the quality evaluation index are left out. " + (
            "The joint fit found no two tissues (it needs M0); labels named GM and WM (--labels) or a T1 map (--t1-map) would tell."
            if fit.settings.get("spatial")
            else "Labels named GM and WM (--labels), a T1 map (--t1-map) or tissue maps (--tissue) would tell them apart."
        )
    else:
        intro = f"Grey and white matter as told by: {origin}. Means are over all voxels of a class, mixed ones included."
    body: list[list[str]] = []
    for name, one in fit.maps.items():
        cells = [_number(row.get(f"{tissue}_{name}_mean")) for tissue in ("gm", "wm")]
        if cells != ["n/a", "n/a"]:
            body.append([f"Mean {one.kind.symbol}{_unit(one.kind)}", *cells])
    tissue = [html.table(("", "Grey matter", "White matter"), body, "lrr")] if body else []
    figures = [
        ("Grey over white matter CBF", _number(row["gm_wm_ratio"])),
        ("Spatial coefficient of variation, grey matter", _number(row["gm_spatial_cov"])),
        ("Spatial coefficient of variation, mask", _number(row["cbf_spatial_cov"])),
        ("Negative CBF, grey matter", _share(row["gm_share_negative"])),
        ("Negative CBF, mask", _share(row["cbf_share_negative"])),
        ("Quality evaluation index, 0 to 1", _number(row["qei"])),
        ("Of it: likeness to tissue, 0 to 1", _number(row["qei_structure"])),
        ("Of it: dispersion index", _number(row["qei_dispersion"])),
        ("Of it: negative share of grey matter", _share(row["qei_negative"])),
    ]
    shown = [[name, value] for name, value in figures if value != "n/a"]
    columns = html.division("pair", html.division("", *tissue, html.table((), shown, "lr")), _checks(fit))
    return html.section("Tissue and quality", html.paragraph(intro, "small"), columns)


def _checks(fit: PerfusionFit) -> Markup:
    rows = plausibility(fit)
    if not rows:
        return html.paragraph("No check of plausibility could be made.", "small")
    body = [[str(row["title"]), str(row["shown"]), str(row["range"]), "yes" if row["plausible"] else Markup("<b>no</b>")] for row in rows]
    return html.division("", html.table(("Check", "Found", "In a living brain", "Plausible"), body, "lrrr"))  # as high as its rows


def region_section(fit: PerfusionFit) -> Markup:
    """Mean ± standard error, median and sd of every map in every region."""
    _, rows = region_table(fit)
    if not rows or fit.scan.regions is None:
        return Markup()
    head = ["Region", "Voxels", "Fitted"]
    for one in fit.maps.values():
        head += [f"Mean {one.kind.symbol}{_unit(one.kind)}", "± se", "Median", "sd"]
    body, faint = [], []
    for row in rows[:MANY]:
        cells = [str(row["name"]), f"{row['voxels']:,}", percent(float(str(row["share_fitted"])))]
        for name in fit.maps:
            cells += [_number(row[f"{name}_{what}"]) for what in ("mean", "se", "median", "sd")]
        body.append(cells)
        faint.append(row["voxels"] == 0)
    more = f" The first {MANY} of {len(rows)} regions are shown; all are in the table." if len(rows) > MANY else ""
    together = " Voxels of a joint fit err together, so that it is too small: see se_together." if fit.settings.get("spatial") else ""
    intro = (
        f"Regions of {fit.scan.regions.source}. “Fitted” is the share of the region that has values. The standard error of the mean (se) "
        f"follows from the standard deviation maps as if voxels erred independently.{together} "
        f"In {fit.scan.prefix}_desc-roi_cbf.tsv.{more}"
    )
    return html.section("Regions", html.paragraph(intro, "small"), html.table(head, body, "lrr" + "rrrr" * len(fit.maps), faint))


def methods(fit: PerfusionFit) -> tuple[Markup, ...]:
    """The paragraph as it would stand in a paper, with links."""
    words = []
    for word in paragraph(fit).split(" "):
        bare = word.lstrip("(").rstrip(").;,")
        if bare.startswith("doi:10."):
            before, _, after = word.partition(bare)
            link = f'<a href="https://doi.org/{html.safe(bare[4:])}">{html.safe(bare)}</a>'
            words.append(html.safe(before) + link + html.safe(after))
        else:
            words.append(html.safe(word))
    return (Markup("<h3>To paste into a paper</h3>"), html.paragraph(Markup(" ".join(words)), "paste"))


def _unit(kind: MapKind) -> str:
    return f", {kind.shown_unit}" if kind.shown_unit else ""


def _number(value: object) -> str:
    return figure(value) if isinstance(value, int | float) else "n/a"


def _share(value: object) -> str:
    return percent(value) if isinstance(value, int | float) else "n/a"
