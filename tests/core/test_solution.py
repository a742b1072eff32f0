"""What a solution says about itself: covariance, identifiability, sentences; saved and loaded without running code."""

import pickle

import numpy as np
import pytest
import torch
from made_problems import Made, decays, linear, normal

from pinn_engine.core import LevenbergMarquardt, Solution, Status
from pinn_engine.core.solution import merge, uncertainty

LM = LevenbergMarquardt()


def solved(batch: int = 5) -> Solution:
    problem, start, _ = decays(batch)
    return LM.solve(problem, start)


def test_covariance_of_a_linear_fit_is_the_textbook_one():
    a, y = normal(0, 4, 10, 3), normal(1, 4, 10)
    found = LM.solve(Made(linear, ("u", "v", "w"), a=a, y=y), torch.zeros(4, 3, dtype=torch.float64))
    expected = np.linalg.inv(a.numpy().transpose(0, 2, 1) @ a.numpy())
    np.testing.assert_allclose(found.covariance, expected, rtol=1e-9)
    np.testing.assert_allclose(found.std("v"), expected[:, 1, 1] ** 0.5, rtol=1e-9)
    sd = np.sqrt(np.diagonal(expected, axis1=1, axis2=2))
    np.testing.assert_allclose(found.correlation, expected / sd[:, :, None] / sd[:, None, :], rtol=1e-9)


def test_nuisance_parameters_widen_the_intervals():
    """Only the first two of five are named; their covariance is the block of the whole inverse, not the inverse of the block."""
    jacobian = normal(0, 6, 12, 5)
    covariance, _, _ = uncertainty(jacobian, 2)
    whole = torch.linalg.inv(jacobian.transpose(1, 2) @ jacobian)
    torch.testing.assert_close(covariance, whole[:, :2, :2], rtol=1e-6, atol=0)
    block = torch.linalg.inv((jacobian.transpose(1, 2) @ jacobian)[:, :2, :2])
    assert bool((covariance.diagonal(dim1=1, dim2=2) > block.diagonal(dim1=1, dim2=2)).all())


def test_units_do_not_matter_for_what_is_determined():
    jacobian = normal(0, 4, 12, 3)
    units = torch.tensor([1e-6, 1.0, 1e6]).double()
    plain, scaled = uncertainty(jacobian, 3), uncertainty(jacobian * units, 3)
    torch.testing.assert_close(scaled[0] * units.unsqueeze(0) * units.unsqueeze(1), plain[0], rtol=1e-8, atol=0)
    torch.testing.assert_close(scaled[1], plain[1], rtol=1e-8, atol=0)
    torch.testing.assert_close(scaled[2].abs(), plain[2].abs(), rtol=1e-6, atol=1e-9)


def degenerate(kind: str) -> Solution:
    """Problems in which some combination of u, v, w cannot be known."""
    x = torch.linspace(0.5, 2, 8, dtype=torch.float64).unsqueeze(1)
    columns = {
        "product": lambda t: t[:, :1] * t[:, 1:2] * x.T + t[:, 2:],
        "sum": lambda t: (t[:, :1] + t[:, 1:2]) * x.T + t[:, 2:],
        "absent": lambda t: t[:, :1] * x.T + 0 * t[:, 1:2] + t[:, 2:],
        "trade-off": lambda t: t[:, :1] * x.T + t[:, 1:2] * x.T**1.1 + t[:, 2:],
        "sound": lambda t: t[:, :1] * x.T + t[:, 1:2] * x.T**3 + t[:, 2:] * torch.cos(5 * x.T),
    }[kind]
    problem = Made(lambda t, y: {"data": columns(t) - y}, ("u", "v", "w"), y=(2 * x.T + 1))
    return LevenbergMarquardt(steps=200, relative=1e-12, absolute=1e-20).solve(problem, torch.tensor([[1.5, 0.8, 0.3]]).double())


VERDICTS = {
    "product": (Status.UNDETERMINED, "The data do not determine u and v: only another combination of them is fixed."),
    "sum": (Status.UNDETERMINED, "The data do not determine u and v: only another combination of them is fixed."),
    "absent": (Status.UNDETERMINED, "The data do not determine v: only another combination of them is fixed."),
    "trade-off": (Status.CONVERGED, "u and v trade off (correlation -1.00): trust their combination more than either."),
    "sound": (Status.CONVERGED, "Every parameter is determined by the data."),
}


@pytest.mark.parametrize("kind", VERDICTS)
def test_verdict(kind):
    found = degenerate(kind)
    assert (int(found.status[0]), found.verdict()) == VERDICTS[kind]


@pytest.mark.parametrize(("kind", "direction"), [("product", [1, -1, 0]), ("sum", [1, -1, 0]), ("absent", [0, 1, 0])])
def test_the_weakest_direction_is_the_one_that_changes_nothing(kind, direction):
    found, expected = degenerate(kind), np.array(direction) / np.linalg.norm(direction)
    weakest = found.weakest[0].numpy()
    np.testing.assert_allclose(weakest * np.sign(weakest @ expected), expected, atol=1e-5)
    assert float(found.condition[0]) > 1e6
    if kind != "absent":
        assert float(found.std("u")[0]) > 100 * float(found.std("w")[0])  # never a silent zero
    assert bool(found.covariance.isfinite().all())


def test_every_status_is_a_sentence_of_its_own():
    sentences = [status.sentence for status in Status]
    assert len(set(sentences)) == len(sentences) == 6
    for sentence in sentences:
        assert sentence[0].isupper()
        assert sentence.endswith(".")


def test_take_and_merge():
    whole = solved(6)
    order = torch.tensor([5, 0, 3])
    part = whole.take(order)
    for name in ("theta", "status", "cost", "steps", "covariance", "condition", "weakest"):
        assert torch.equal(getattr(part, name), getattr(whole, name)[order]), name
    assert torch.equal(part.values["k"], whole.values["k"][order])
    pieces = [whole.take(rows) for rows in torch.arange(6).split(4)]
    again = merge(pieces)
    for name in ("theta", "status", "cost", "steps", "covariance"):
        assert torch.equal(getattr(again, name), getattr(whole, name)), name
    assert merge([whole]) is whole


def test_saved_and_loaded(tmp_path):
    found = solved()
    found.save(tmp_path / "fit.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["fit.pt"]
    again = Solution.load(tmp_path / "fit.pt")
    assert again.names == ("a", "k")
    assert again.history == found.history
    for name in ("theta", "status", "cost", "steps", "covariance", "condition", "weakest"):
        assert torch.equal(getattr(again, name), getattr(found, name)), name
        assert getattr(again, name).dtype == getattr(found, name).dtype
    assert torch.equal(again.values["a"], found.values["a"])
    assert again.verdict(2) == found.verdict(2)


class Bomb:
    """Runs code when it is unpickled by anything that allows that."""

    def __reduce__(self):
        return (exec, ("import builtins; builtins.pinn_bomb = True",))


@pytest.mark.parametrize("where", ["whole file", "history", "plain pickle"])
def test_a_file_with_code_is_refused_and_not_run(tmp_path, where):
    import builtins

    path = tmp_path / "fit.pt"
    if where == "plain pickle":
        path.write_bytes(pickle.dumps(Bomb()))
    else:
        content = {"format": 1, **{name: getattr(solved(), name) for name in Solution.__dataclass_fields__}, "names": ["a", "k"]}
        torch.save(Bomb() if where == "whole file" else {**content, "history": Bomb()}, path)
    with pytest.raises(Exception, match=r"(?i)weights|unsupported|load"):
        Solution.load(path)
    assert not hasattr(builtins, "pinn_bomb")


@pytest.mark.parametrize("content", [{"format": 2}, {"weights": torch.zeros(2)}, [1, 2], torch.zeros(3)])
def test_a_file_of_another_kind_or_version_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(ValueError, match="not a saved solution"):
        Solution.load(tmp_path / "x.pt")
