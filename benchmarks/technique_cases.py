"""One case a technique: small problems with known answers, solved without and with it on the same budget.

Each case is a function of a seed that returns errors by variant (name of the variant -> error); `benchmarks/techniques.py` runs them over
seeds and tests/core/test_techniques.py holds what theory says of them. Double precision throughout.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from pinn_engine.core import (
    LBFGS,
    MLP,
    Adam,
    Fixed,
    Free,
    Gaussian,
    LevenbergMarquardt,
    Pinn,
    SkipMLP,
    Solution,
    Term,
    Unknowns,
    balanced_by_gradient,
    balanced_by_kernel,
    by_residual,
    causal,
    harmonics,
    random_fourier,
    retain_resample_release,
    spread,
)

PI = math.pi
Errors = dict[str, float]


def box(*high: float, low: tuple[float, ...] | None = None) -> tuple[Tensor, Tensor]:
    return torch.tensor(low or [0.0] * len(high), dtype=torch.float64), torch.tensor(high, dtype=torch.float64)


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def worst(problem: Pinn, theta: Tensor, truth: Callable[..., Tensor], count: int = 1500) -> float:
    """Largest error over the box."""
    points = spread(problem.low, problem.high, count, seed=99)
    return float((problem.field(theta, points).value - truth(*points.unbind(1))).abs().max())


def rms(problem: Pinn, theta: Tensor, truth: Callable[..., Tensor], count: int = 1500) -> float:
    points = spread(problem.low, problem.high, count, seed=99)
    return float((problem.field(theta, points).value - truth(*points.unbind(1))).square().mean().sqrt())


# Diffusion, u_t = D u_xx on 0..1 with u = 0 at both ends.

D = 0.1
HEAT = box(1.0, 1.0)


def heat(t: Tensor, x: Tensor, D: float = D) -> Tensor:
    return torch.exp(-D * PI**2 * t) * torch.sin(PI * x)


def heat_equation(u, p, t, x):
    return u.t - p.get("D", D) * u.xx


def start_and_ends(count: int = 40) -> dict[str, Term]:
    """Initial and boundary conditions as rows (soft)."""
    s = torch.linspace(0, 1, count, dtype=torch.float64)
    zero = torch.zeros_like(s)
    ends = torch.cat([torch.stack([s, zero], 1), torch.stack([s, zero + 1], 1)])
    return {
        "start": Term(torch.stack([zero, s], 1), lambda u, p, t, x: u.value - torch.sin(PI * x)),
        "ends": Term(ends, lambda u, p, t, x: u.value),
    }


def hard_heat(u, p, t, x):
    return torch.sin(PI * x) + t * x * (1 - x) * u


NETWORK = MLP((2, 12, 12, 1))


def heat_problem(hard: bool, points: int = 200, network: MLP | SkipMLP = NETWORK, **more) -> Pinn:
    terms = {"equation": Term(spread(*HEAT, points), heat_equation)} | ({} if hard else start_and_ends())
    return Pinn(network, terms, *HEAT, ansatz=hard_heat if hard else None, **more)


def samples(seed: int, count: int = 50, sd: float = 0.02) -> Term:
    """Noisy values of the diffusing quantity, seen at scattered points."""
    at = spread(*HEAT, count, seed=1000 + seed)
    return Term(at, lambda u, p, t, x: u.value, heat(*at.unbind(1)) + sd * torch.randn(count, generator=rng(seed), dtype=torch.float64), sd)


def inverse_problem(seed: int, unknowns: Unknowns, equation=heat_equation, strength: float = 1e5, points: int = 200) -> Pinn:
    """Data and equation alone: neither start nor ends are told. `strength`: 1 / tolerated mean square of the equation."""
    terms = {"data": samples(seed), "equation": Term(spread(*HEAT, points), equation)}
    return Pinn(MLP((2, 10, 10, 1)), terms, *HEAT, unknowns, weights={"equation": strength})


FREE_D = Unknowns({"D": Free(0.0, 1.0)})
LM = LevenbergMarquardt(steps=40)


def forward_mode(seed: int) -> Errors:
    """Several starts are several problems of one batch."""
    problem = heat_problem(hard=True)
    found = LM.solve(problem, problem.start(batch=3, seed=seed))
    points = spread(*HEAT, 1500, seed=99)
    fields = [problem.field(found.theta, points, b).value - heat(*points.unbind(1)) for b in range(3)]
    return {"worst of three starts": float(torch.stack(fields).abs().max()), "a constant (0)": float(heat(*points.unbind(1)).max())}


def inverse_mode(seed: int) -> Errors:
    problem = inverse_problem(seed, FREE_D)
    found = LM.solve(problem, problem.start(seed=seed, D=0.5))
    return {"D at the start, rel. error": 0.5 / D - 1, "fitted": float(found.values["D"]) / D - 1, "fitted sd": float(found.std("D")) / D}


def fixed_weights(seed: int) -> Errors:
    """The equation's weight from nothing to all."""
    errors = {}
    for strength in (0.0, 1.0, 1e2, 1e5):
        problem = inverse_problem(seed, FREE_D, strength=strength)
        found = LM.solve(problem, problem.start(seed=seed, D=0.5))
        errors[f"equation x {strength:g}"] = float(found.values["D"]) / D - 1
    return errors


def adaptive_weights(seed: int, steps: int = 300) -> Errors:
    """Adam on a stiff problem: diffusion scaled up a hundredfold, so that the equation's gradient drowns the conditions."""
    terms = {"equation": Term(spread(*HEAT, 150), lambda u, p, t, x: 30 * (u.t - D * u.xx))} | start_and_ends(20)
    problem = Pinn(MLP((2, 16, 16, 1)), terms, *HEAT)
    errors = {}
    for name, rule in {
        "equal weights": None,
        "gradient norm": lambda q, theta: balanced_by_gradient(q, theta, "equation"),
        "tangent kernel": balanced_by_kernel,
    }.items():
        theta, weights = problem.start(seed=seed), {}
        for _ in range(6):
            if rule:
                new = rule(problem, theta)
                weights = {k: 0.5 * weights.get(k, v) + 0.5 * v for k, v in new.items()}
            size = sum(weights.values()) / len(weights) if weights else 1.0
            theta = Adam(steps // 6, 5e-3, 0.5).solve(problem.but(weights={k: v / size for k, v in weights.items()}), theta).theta
        errors[name] = rms(problem, theta, heat)
    return errors


def conditions(seed: int) -> Errors:
    """Start and ends as rows, or built in: the same network, points and steps."""
    ends = torch.cat([torch.stack([torch.linspace(0, 1, 50).double(), torch.full((50,), e).double()], 1) for e in (0.0, 1.0)])
    errors = {}
    for name, hard in {"soft": False, "hard": True}.items():
        problem = heat_problem(hard)
        theta = LevenbergMarquardt(steps=25).solve(problem, problem.start(seed=seed)).theta
        errors[name] = worst(problem, theta, heat)
        errors[f"{name}, at the ends"] = float(problem.field(theta, ends).value.abs().max())
    return errors


# A front of the heart's kind, u_t = D u_xx + k u (1 - u) (u - a), a wave without change of shape, thin in a wide box.

K, A, DF = 8.0, 0.01, 0.02
FRONT = box(6.0, 5.0)


def front(t: Tensor, x: Tensor) -> Tensor:
    width, speed = (2 * DF / K) ** 0.5, (0.5 * K * DF) ** 0.5 * (1 - 2 * A)
    return torch.sigmoid(-(x - 1.0 - speed * t) / width)


def front_equation(u, p, t, x):
    v = u.value
    return u.t - DF * u.xx - K * v * (1 - v) * (v - A)


def refinement(seed: int, points: int = 150, bursts: int = 5, steps: int = 10) -> Errors:
    """Where the equation is asked: evenly, by residual (RAD), or keeping the worst (R3). Points are drawn anew between bursts in all."""
    errors = {}
    for name in ("even", "RAD", "R3"):
        at = spread(*FRONT, points, seed=seed)

        def ansatz(u, p, t, x):
            width = (2 * DF / K) ** 0.5
            return torch.sigmoid(-(x - 1.0) / width + t * u)

        problem = Pinn(MLP((2, 10, 10, 1)), {"equation": Term(at, front_equation)}, *FRONT, ansatz=ansatz)
        theta, generator = problem.start(seed=seed), rng(seed)
        for k in range(bursts):
            theta = LevenbergMarquardt(steps=steps).solve(problem, theta).theta
            fresh = spread(*FRONT, 4 * points, seed=100 + 10 * seed + k)
            if name == "even":
                at = fresh[:points]
            elif name == "RAD":
                at = by_residual(fresh, problem.rows("equation", theta, points=fresh), points, generator)
            else:
                at = retain_resample_release(at, problem.rows("equation", theta), fresh)
            problem = problem.but({"equation": replace(problem.parts["equation"], points=at)})
        errors[name] = rms(problem, theta, front)
    return errors


# Spectral bias: a slow and a fast wave in one signal.

WAVE = box(1.0)


def wave(t: Tensor) -> Tensor:
    return torch.sin(2 * PI * t) + 0.5 * torch.sin(16 * PI * t)


def wave_equation(u, p, t):
    return (u.t - 2 * PI * torch.cos(2 * PI * t) - 8 * PI * torch.cos(16 * PI * t)) / (8 * PI)


def fourier(seed: int, steps: int = 25) -> Errors:
    terms = {"equation": Term(spread(*WAVE, 128), wave_equation), "start": Term(torch.zeros(1, 1).double(), lambda u, p, t: u.value)}
    inputs = {
        "time alone": (1, None),
        "harmonics 1-10 of half the range": (21, harmonics(10, *WAVE)),
        "random features, sd 1": (32, random_fourier(16, 1.0, *WAVE, seed=seed)),
        "random features, sd 20": (32, random_fourier(16, 20.0, *WAVE, seed=seed)),
    }
    errors = {}
    for name, (size, features) in inputs.items():
        problem = Pinn(MLP((size, 16, 16, 1)), terms, *WAVE, inputs=features)
        errors[name] = rms(problem, LevenbergMarquardt(steps=steps).solve(problem, problem.start(seed=seed)).theta, wave)
    return errors


def skips(seed: int, depth: int = 24, steps: int = 120) -> Errors:
    """A deep network by Adam: without skips, with plain ones, with adaptive ones; and the shallow one."""
    layers = (2, *[10] * depth, 1)
    networks = {
        f"{depth} layers": MLP(layers),
        "plain skips": SkipMLP(layers),
        "adaptive skips": SkipMLP(layers, adaptive=True),
        "two layers": MLP((2, 10, 10, 1)),
    }
    errors = {}
    for name, network in networks.items():
        problem = heat_problem(hard=True, points=120, network=network)
        errors[name] = rms(problem, Adam(steps, 1e-2, 0.1).solve(problem, problem.start(seed=seed)).theta, heat)
    return errors


def normalisation(seed: int) -> Errors:
    """The same diffusion in milliseconds, micrometres and a unit of 300: the network shown raw numbers, or all of order one."""
    t_unit, x_unit, u_unit = 1000.0, 1000.0, 300.0
    low, high = box(t_unit, x_unit)
    diffusivity = D * x_unit**2 / t_unit

    def truth(t: Tensor, x: Tensor) -> Tensor:
        return u_unit * heat(t / t_unit, x / x_unit)

    s = torch.linspace(0, 1, 40, dtype=torch.float64)
    edge = torch.cat([torch.stack([0 * s, s], 1), torch.stack([s, 0 * s], 1), torch.stack([s, 0 * s + 1], 1)]) * high
    terms = {
        "equation": Term(spread(low, high, 200), lambda u, p, t, x: (u.t - diffusivity * u.xx) * t_unit / u_unit),
        "edge": Term(edge, lambda u, p, t, x: u.value / u_unit, truth(*edge.unbind(1)) / u_unit),
    }
    variants = {
        "neither": ({"inputs": lambda t, x: (t, x)}),
        "inputs alone": {},
        "inputs and output": {"ansatz": lambda u, p, t, x: u_unit * u},
    }
    errors = {}
    for name, how in variants.items():
        problem = Pinn(MLP((2, 12, 12, 1)), terms, low, high, **how)
        errors[name] = rms(problem, LevenbergMarquardt(steps=30).solve(problem, problem.start(seed=seed)).theta, truth) / u_unit
    return errors


def activations(seed: int) -> Errors:
    errors = {}
    for name in ("tanh", "swish"):
        problem = heat_problem(hard=True, network=MLP((2, 12, 12, 1), name))
        errors[name] = worst(problem, LevenbergMarquardt(steps=25).solve(problem, problem.start(seed=seed)).theta, heat)
    return errors


def shares(problem: Pinn, generator: torch.Generator, count: int, step: int) -> Pinn:
    return problem.minibatch(count, generator)


def schedule(seed: int, steps: int = 150) -> Errors:
    """Adam on mini-batches, from near the minimum: at a constant rate their noise keeps it shaking, a falling rate comes to rest."""
    problem = heat_problem(hard=True)
    near = LevenbergMarquardt(steps=15).solve(problem, problem.start(seed=seed)).theta
    errors = {}
    for name, final in {"constant rate": 1.0, "falling to a hundredth": 0.01}.items():
        part = partial(shares, problem, rng(seed), 10)
        errors[name] = rms(problem, Adam(steps, 1e-2, final).solve(problem, near, part=part).theta, heat)
    return errors


def batches(seed: int, steps: int = 250) -> Errors:
    """All points in every step, or a tenth of them."""
    errors = {}
    for name, share in {"full batch of 1000": None, "batches of 100": 100}.items():
        problem, generator = heat_problem(hard=True, points=1000), rng(seed)
        part = None if share is None else partial(shares, problem, generator, share)
        errors[name] = rms(problem, Adam(steps, 1e-2).solve(problem, problem.start(seed=seed), part=part).theta, heat)
    return errors


def optimisers(seed: int) -> Errors:
    """Soft conditions; steps chosen so that all take about the same CPU time."""
    problem = heat_problem(hard=False)
    start = problem.start(seed=seed)
    warm = Adam(300, 1e-2).solve(problem, start)
    return {
        "Adam 600": rms(problem, Adam(600, 1e-2).solve(problem, start).theta, heat),
        "Adam 300, then L-BFGS 300": rms(problem, LBFGS(300).solve(problem, warm.theta).theta, heat),
        "Levenberg-Marquardt 40": rms(problem, LevenbergMarquardt(steps=40).solve(problem, start).theta, heat),
    }


def glorot(seed: int) -> Errors:
    """Five hidden layers from weights of several sizes, Adam."""
    network = MLP((2, *[12] * 5, 1))
    problem = heat_problem(hard=True, points=120, network=network)
    starts = {
        "weights a tenth of Glorot's": 0.1 * problem.start(seed=seed),
        "Glorot normal": problem.start(seed=seed),
        "Glorot uniform": problem.start(seed=seed, uniform=True),
        "five times Glorot's": 5.0 * problem.start(seed=seed),
    }
    return {name: rms(problem, Adam(200, 5e-3, 0.1).solve(problem, theta).theta, heat) for name, theta in starts.items()}


# Growth to saturation, u' = k u (1 - u): u = 0 and u = 1 solve it too, and a network that errs early ends on the wrong one.

RATE, SEED_SIZE, LONG = 4.0, 0.02, 4.0


def growth(t: Tensor) -> Tensor:
    return SEED_SIZE / (SEED_SIZE + (1 - SEED_SIZE) * torch.exp(-RATE * t))


def growth_problem(low: float, high: float, start: float, points: int) -> Pinn:
    at = box(high, low=(low,))
    term = Term(spread(*at, points), lambda u, p, t: u.t - RATE * u.value * (1 - u.value))
    return Pinn(MLP((1, 16, 16, 1)), {"equation": term}, *at, ansatz=lambda u, p, t: start + (t - low) / (high - low) * u)


def all_at_once(seed: int) -> float:
    problem = growth_problem(0.0, LONG, SEED_SIZE, 100)
    return worst(problem, LevenbergMarquardt(steps=100).solve(problem, problem.start(seed=seed)).theta, growth)


def causality(seed: int) -> Errors:
    problem = growth_problem(0.0, LONG, SEED_SIZE, 100)
    term, theta = problem.parts["equation"], problem.start(seed=seed)
    for _ in range(40):
        weight = causal(term.points[:, 0], problem.rows("equation", theta), tolerance=1000.0, chunks=10)
        if weight.min() > 0.95:  # early and late are solved alike
            break
        theta = LevenbergMarquardt(steps=5).solve(problem.but({"equation": replace(term, weight=weight)}), theta).theta
    return {"all times at once": all_at_once(seed), "causal weights": worst(problem, theta, growth)}


def in_windows(seed: int, count: int) -> float:
    """Each window starts exactly where the one before ended."""
    state, error = SEED_SIZE, 0.0
    for k in range(count):
        low, high = LONG * k / count, LONG * (k + 1) / count
        problem = growth_problem(low, high, state, 100 // count)
        theta = LevenbergMarquardt(steps=60).solve(problem, problem.start(seed=seed)).theta
        error = max(error, worst(problem, theta, growth, 200))
        state = float(problem.field(theta, torch.tensor([[high]], dtype=torch.float64)).value)
    return error


def windows(seed: int) -> Errors:
    return {"one network for all": all_at_once(seed), "2 windows": in_windows(seed, 2), "5 windows": in_windows(seed, 5)}


def unknown_parameters(seed: int) -> Errors:
    """D in the equation, and the amplitude of the initial condition inside the ansatz."""

    def ansatz(u, p, t, x):
        return p["amplitude"] * torch.sin(PI * x) + t * x * (1 - x) * u

    unknowns = Unknowns({"D": Free(0.0, 1.0), "amplitude": Free(0.0, None)})
    terms = {"data": samples(seed), "equation": Term(spread(*HEAT, 200), heat_equation)}
    problem = Pinn(MLP((2, 10, 10, 1)), terms, *HEAT, unknowns, ansatz=ansatz, weights={"equation": 1e5})
    found = LevenbergMarquardt(steps=80).solve(problem, problem.start(seed=seed, D=0.2, amplitude=1.5))
    return {
        "D": float(found.values["D"]) / D - 1,
        "sd of D": float(found.std("D")) / D,
        "amplitude": float(found.values["amplitude"]) - 1,
        "sd of the amplitude": float(found.std("amplitude")),
    }


def product_equation(u, p, t, x):
    return u.t - p["a"] * p["b"] * u.xx


def identified(seed: int, known: bool) -> Solution:
    """D = a b from one field: only the product is determined, unless a is known beforehand."""
    a = Free(0.0, None, Gaussian(0.5, 0.01) if known else None)
    problem = inverse_problem(seed, Unknowns({"a": a, "b": Free(0.0, None)}), product_equation)
    return LM.solve(problem, problem.start(seed=seed, a=0.5, b=0.5))


def identifiability(seed: int) -> Errors:
    return {
        "condition, a and b free": float(identified(seed, False).condition),
        "condition, a known to 2 %": float(identified(seed, True).condition),
    }


def profile(seed: int, ratios: Tensor) -> Tensor:
    """(len(ratios),) misfit with D held at each value, all at once: the batch axis is the profile likelihood."""
    problem = inverse_problem(seed, Unknowns({"D": Fixed(D * ratios)}))
    return LM.solve(problem, problem.start(batch=len(ratios), seed=seed)).cost
