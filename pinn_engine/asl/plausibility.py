"""When CBF is on the wrong scale: the likely cause, named by the factor that it is off by."""

from __future__ import annotations

PLAUSIBLE = (10.0, 150.0)  # mL/100 g/min, median of grey matter (or of the better perfused half of the mask)
TYPICAL = 55.0  # what a wrong scale is compared with
WITHIN = 1.6  # a factor counts as named when CBF is off by it, up or down by this
CAUSES = {  # factor on CBF: why
    96.0: "GE difference images are summed over 32 x 3 while M0 is not: try --m0-scale 96 (100 if M0 is in percent)",
    10.0: "Siemens product sequences store M0 at a tenth of the series' scale: try --m0-scale 10",
    4095.0: "one image was scaled to 12 bits (0-4095) and the other was not, as Philips exports without the rescale slope: "
    "convert again with the slope applied, or try --m0-scale 4095",
    1 / 96.0: "M0 already carries GE's factor 96 (32 x 3): leave --m0-scale out",
    1 / 10.0: "M0 already carries a factor 10: leave --m0-scale out",
    1
    / 4095.0: "the difference images lost their rescale slope (Philips) or are 1/4095 of M0's scale: convert again with the slope applied",
}


def scaling_cause(median: float) -> str | None:
    """A sentence where a median CBF (mL/100 g/min) of grey matter cannot be; None where it can.

    >>> "--m0-scale 96" in scaling_cause(5400.0), scaling_cause(48.0)
    (True, None)
    """
    low, high = PLAUSIBLE
    if low <= median <= high:
        return None
    if median < 0:
        return (
            f"The median CBF of grey matter is {median:.3g} mL/100 g/min: control and label are probably swapped "
            "(aslcontext.tsv or --volumes)."
        )
    start = f"The median CBF of grey matter is {median:.3g} mL/100 g/min, outside {low:g} to {high:g}, what a brain can have"
    if median == 0:
        return f"{start}: no label arrives, or the images are empty."
    near = min(CAUSES, key=lambda factor: max(median / factor, TYPICAL) / min(median / factor, TYPICAL))
    off = max(median / near, TYPICAL) / min(median / near, TYPICAL)
    if off <= WITHIN:
        return f"{start}. That is about {near:.3g} times the usual: {CAUSES[near]}."
    return (
        f"{start}. No known vendor's factor explains it: look at the scale of M0 (--m0, --m0-scale), the rescale slopes of both files, the "
        "label duration and the delays."
    )
