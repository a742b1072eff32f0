"""The engine: fields, unknowns, problems, couplings, solvers, solutions. It imports torch and nothing medical."""

from . import jets
from .couplings import Coupling, Graph, Independent, Shared
from .elimination import ReducedNetwork, Separable, eliminate_output_layer
from .fields import MLP, LinearField
from .linear import inverse_spd, solve_spd
from .problem import Problem, linearise_reference, stack
from .solution import Solution, Status
from .solvers import Adam, LevenbergMarquardt, Solver, solve_in_chunks
from .unknowns import Fixed, Free, Gaussian, LogNormal, Unknowns

__all__ = [
    "MLP",
    "Adam",
    "Coupling",
    "Fixed",
    "Free",
    "Gaussian",
    "Graph",
    "Independent",
    "LevenbergMarquardt",
    "LinearField",
    "LogNormal",
    "Problem",
    "ReducedNetwork",
    "Separable",
    "Shared",
    "Solution",
    "Solver",
    "Status",
    "Unknowns",
    "eliminate_output_layer",
    "inverse_spd",
    "jets",
    "linearise_reference",
    "solve_in_chunks",
    "solve_spd",
    "stack",
]
