"""The page of a study: figures of one unit stand together."""

from dataclasses import dataclass, field

from pinn_engine.report.study import write_index


@dataclass
class Subject:
    id: str
    summary: dict = field(default_factory=dict)
    state: str = "done"
    message: str = ""
    cautions: tuple = ()


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


def test_what_calls_for_care_stands_before_the_figures():
    careful = Subject("s2", {"cbf_median": -30.0, "cbf_unit": "mL/100 g/min"}, cautions=("The median perfusion is negative.", "Noise <1>."))
    page = write_index("study", [Subject("s1", {"cbf_median": 50.0, "cbf_unit": "mL/100 g/min"}), careful], {})
    places = [page.index(words) for words in ("Read before use", "The median perfusion is negative.", "Noise &lt;1&gt;.", "−30")]
    assert places == sorted(places)
    assert "Read before use" not in write_index("study", [Subject("s1")], {})


def test_tables_are_told_by_what_they_hold():
    page = write_index("study", [Subject("s1")], {}, ["group_desc-weights_asl.tsv", "logs/CITATION.md", "group_desc-new_asl.tsv"])
    assert "weights, one row a subject and pair of images" in page
    assert "words for a methods section" in page
    assert "all subjects' rows" in page.replace("&#x27;", "'")
