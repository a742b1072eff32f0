"""The page of a study: figures of one unit stand together."""

from dataclasses import dataclass, field

from pinn_engine.report.study import write_index


@dataclass
class Subject:
    id: str
    summary: dict = field(default_factory=dict)
    state: str = "done"
    message: str = ""


def test_perfusion_without_m0_is_not_shown_in_the_unit_of_others():
    of = {"s1": (58.8, "mL/100 g/min"), "s2": (59.7, "mL/100 g/min"), "s3": (5.85, "arbitrary")}
    subjects = [Subject(name, {"cbf_median": value, "cbf_unit": unit, "att_median": 1.0}) for name, (value, unit) in of.items()]
    page = write_index("study", subjects, {})
    heads = page[page.index("<th") :].replace("<br>", " ")
    assert "Median CBF" in heads
    assert "Median perfusion, no M0" in heads
    row = page[page.rindex("s3") :]
    assert row.index("5.85") > row.index("</td>", row.index("</td>") + 1)  # not in the first column, which is CBF's
    alone = write_index("study", subjects[:2], {})
    assert "no M0" not in alone
