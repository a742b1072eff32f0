"""The engine: fields, unknowns, problems, couplings, solvers, solutions. It imports torch and nothing medical."""

from . import jets
from .adaptive import balanced_by_gradient, balanced_by_kernel, by_residual, causal, retain_resample_release, spread
from .calculus import Jet, coordinates
from .couplings import Coupling, Graph, Independent, Shared
from .elimination import ReducedNetwork, Separable, eliminate_output_layer
from .fields import MLP, LinearField
from .lbfgs import LBFGS
from .linear import inverse_spd, solve_spd
from .pinn import Pinn, Term, harmonics, normalised, random_fourier
from .problem import Problem, linearise_reference, stack
from .skip import SkipMLP
from .solution import Solution, Status
from .solvers import Adam, LevenbergMarquardt, Solver, solve_in_chunks
from .unknowns import Fixed, Free, Gaussian, LogNormal, Unknowns

__all__ = [
    "LBFGS",
    "MLP",
    "Adam",
    "Coupling",
    "Fixed",
    "Free",
    "Gaussian",
    "Graph",
    "Independent",
    "Jet",
    "LevenbergMarquardt",
    "LinearField",
    "LogNormal",
    "Pinn",
    "Problem",
    "ReducedNetwork",
    "Separable",
    "Shared",
    "SkipMLP",
    "Solution",
    "Solver",
    "Status",
    "Term",
    "Unknowns",
    "balanced_by_gradient",
    "balanced_by_kernel",
    "by_residual",
    "causal",
    "coordinates",
    "eliminate_output_layer",
    "harmonics",
    "inverse_spd",
    "jets",
    "linearise_reference",
    "normalised",
    "random_fourier",
    "retain_resample_release",
    "solve_in_chunks",
    "solve_spd",
    "spread",
    "stack",
]
