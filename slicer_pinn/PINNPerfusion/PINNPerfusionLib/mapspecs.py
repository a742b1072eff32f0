"""The maps of a perfusion fit: file, name, codes, colours, window. docs/outputs.md says what each file holds."""

from __future__ import annotations

from dataclasses import replace

from PINNCommonLib.specs import CIVIDIS, INFERNO, MAGMA, NO_UNIT, OWN, SECONDS, VIRIDIS, MapSpec, ucum

FLOW = ucum("ml/(100.g.min)", "milliliter per 100 gram and minute")
ARBITRARY = ucum("[arb'U]", "arbitrary unit")
TINY = 1e-6  # below is background, shown transparent

CBF = MapSpec(
    "cbf", "Cerebral blood flow", ("113055", "DCM", "Regional Cerebral Blood Flow"), FLOW, "mL/100 g/min", INFERNO, (0.0, 100.0), TINY, 0
)
RELATIVE = replace(
    CBF, title="Relative perfusion (no M0)", quantity=("RELCBF", OWN, "Relative perfusion"), ucum=ARBITRARY, unit="arbitrary", window=None
)
ATT = MapSpec("att", "Arterial transit time", ("ATT", OWN, "Arterial transit time"), SECONDS, "s", VIRIDIS, (0.0, 2.5), TINY, 2)
T1B = MapSpec("t1b", "T1 of arterial blood", ("T1B", OWN, "T1 of arterial blood"), SECONDS, "s", CIVIDIS, (1.2, 2.4), TINY, 2)
ABV = MapSpec("abv", "Arterial blood volume", ("ABV", OWN, "Arterial blood volume"), NO_UNIT, "fraction", MAGMA, (0.0, 0.02), TINY, 3)
ABAT = MapSpec("abat", "Arrival time in arteries", ("ABAT", OWN, "Arrival time in arteries"), SECONDS, "s", VIRIDIS, (0.0, 2.0), TINY, 2)
MISFIT = MapSpec("misfit", "Misfit", ("MISFIT", OWN, "Normalised misfit of the fit"), NO_UNIT, "1", MAGMA, (0.0, 3.0), TINY, 1)

SCALAR = {  # suffix of the file: how it is shown; the first that exists is shown in front
    "cbf": CBF,
    "desc-relative_cbf": RELATIVE,
    "att": ATT,
    "t1b": T1B,
    "abv": ABV,
    "abat": ABAT,
    "desc-misfit_cbf": MISFIT,
}
CURVES = {"data": "desc-data_asl", "fit": "desc-fit_asl", "fitstd": "desc-fitstd_asl"}
STATUS, MASK = "desc-status_dseg", "desc-brain_mask"
STATUS_COLORS = (  # one a status value: outside, converged, then what needs a look
    (0.0, 0.0, 0.0),
    (0.30, 0.65, 0.40),
    (0.95, 0.85, 0.30),
    (0.95, 0.65, 0.20),
    (0.90, 0.40, 0.15),
    (0.60, 0.35, 0.70),
    (0.75, 0.10, 0.15),
    (0.55, 0.55, 0.55),
    (0.35, 0.55, 0.85),
)
