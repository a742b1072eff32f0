"""The prior of flow and arrival time over a region: smooth fields with a little roughness, and foci where the data ask for them.

Covariance of each field: c^2 (its mean) + s^2 Matern-3/2 of range l (the smooth part) + r^2 exponential of two voxels (roughness) + foci.
s, l and r are learnt by evidence. Foci are a sum of single effects (Wang 2020, doi:10.1111/rssb.12388): each of a few slots holds one
ball of altered flow and arrival or none, and which one is weighed by the evidence of every centre and radius with the other slots in
place. The balls enter the prior as slabs with their probability as weight: the prior says where a focus may be, the data how strong it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from ...core.latent import Conditioned, Sites

MEAN_SD = (1.0, 0.5)  # of the fields' means: flow in typical flows of the region, arrival time in s
TYPICAL = ((0.3, 4.0, 0.1), (0.3, 4.0, 0.1))  # medians of s, l, r: field units, voxels, field units
SPREAD = (0.5, 0.5, 1.0)  # sd of their logarithms
FARTHEST = 6.0  # of these sd that a scale is tried from its median: a line search may leap to where nothing can be computed
ROUGH_RANGE = 2.0  # voxels
JITTER = 1e-8
RADII = (1.3, 2.0, 2.9, 4.0)  # voxels, of the balls
SLAB = (0.4, 0.3)  # sd of what a focus changes: flow units, s
SLOTS, EXPECTED, SWEEPS = 4, 1.0, 30  # most foci in a tile, foci expected there, passes over the slots at most
LEARNING = 10  # steps of L-BFGS


@dataclass(frozen=True)
class Prior:
    """`scales` (2, 3): logs of s, l, r of flow and arrival time. `spatial` False: voxels are independent draws around the region's mean."""

    scales: Tensor
    spatial: bool = True
    mean_sd: tuple[float, float] = MEAN_SD

    @staticmethod
    def typical(spatial: bool = True, mean_sd: tuple[float, float] = MEAN_SD) -> Prior:
        return Prior(torch.tensor(TYPICAL, dtype=torch.float64).log(), spatial, mean_sd)

    def kernel(self, distance: Tensor) -> Tensor:
        """(2, V, V) covariance of both fields at voxels `distance` (V, V) apart, without foci."""
        own = torch.eye(len(distance), dtype=torch.float64, device=distance.device)
        rows = []
        for k, sd in enumerate(self.mean_sd):
            s, reach, r = self.scales[k].exp()  # numbers of the CPU: every device takes them
            part = s**2 * own
            if self.spatial:
                scaled = math.sqrt(3) * distance / reach
                part = s**2 * (1 + scaled) * torch.exp(-scaled) + r**2 * torch.exp(-distance / ROUGH_RANGE)
            rows.append(sd**2 + part + JITTER * own)
        return torch.stack(rows)

    def log_density(self) -> Tensor:
        """Log prior of the scales, up to a constant."""
        middle, spread = torch.tensor(TYPICAL, dtype=torch.float64).log(), torch.tensor(SPREAD, dtype=torch.float64)
        return -0.5 * ((self.scales - middle) / spread).square().sum()

    def varies(self) -> Tensor:
        """(2,) sd of each field over the region, its mean and foci apart."""
        s, _, r = self.scales.exp().T
        return torch.sqrt(s**2 + (r**2 if self.spatial else 0.0))


def centre(nodes: int, flow: float, arrival: float, device: torch.device) -> Tensor:
    """(2, V) prior means: `flow` typical flows, and `arrival` s."""
    return torch.tensor([flow, arrival], dtype=torch.float64, device=device).unsqueeze(1).expand(2, nodes)


def learn(prior: Prior, places: list[tuple[Tensor, Tensor, Tensor, Sites]]) -> Prior:
    """The scales that make the sites of all `places` (distance, foci (2, V, V), mean (2, V), sites) most probable."""

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        scales = torch.as_tensor(flat.reshape(prior.scales.shape)).requires_grad_(True)
        one = replace(prior, scales=scales)
        total = -one.log_density()
        for distance, foci, mean, sites in places:
            total = total - Conditioned(one.kernel(distance) + foci, mean, sites).log_normaliser.cpu()
        (slope,) = torch.autograd.grad(total, scales)
        return float(total.detach()), slope.flatten().numpy()

    middle, spread = torch.tensor(TYPICAL).log().flatten(), torch.tensor(SPREAD).repeat(len(TYPICAL))
    bounds = torch.stack([middle - FARTHEST * spread, middle + FARTHEST * spread], dim=1).tolist()
    found = minimize(
        loss, prior.scales.numpy().flatten(), jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": LEARNING, "gtol": 1e-2}
    )
    return replace(prior, scales=torch.as_tensor(found.x.reshape(prior.scales.shape)))


@dataclass(frozen=True)
class Foci:
    """Balls (V, J) around every voxel and the probability (J,) that each is a focus."""

    balls: Tensor
    probability: Tensor

    @staticmethod
    def none(distance: Tensor) -> Foci:
        balls = torch.cat([(distance <= r).double() for r in RADII], dim=1)
        return Foci(balls, balls.new_zeros(balls.shape[1]))

    def kernel(self) -> Tensor:
        """(2, V, V) what they add to the covariance."""
        return torch.stack([sd**2 * (self.balls * self.probability) @ self.balls.T for sd in SLAB])

    def at_voxels(self) -> Tensor:
        """(V,) probability that a voxel lies in a focus."""
        return (self.balls @ self.probability).clamp(0, 1)


def find_foci(given: Conditioned, foci: Foci, expected: float = EXPECTED) -> Foci:
    """The single effects of every slot at the sites and the prior (without foci) of `given`."""
    balls, count = foci.balls, foci.balls.shape[1]
    score, information = _pulled(given, balls)
    slab = score.new_tensor(SLAB) ** 2
    own = information.diagonal(dim1=0, dim2=2).permute(2, 0, 1)  # (J, 2, 2)
    covariance = torch.linalg.inv(own + torch.diag(1 / slab))
    occam = -0.5 * torch.logdet(torch.diag(torch.ones_like(slab)) + own * slab)
    empty = score.new_tensor([math.log(1 - expected / SLOTS)])
    change = score.new_zeros(SLOTS, count, 2)
    probability = score.new_zeros(SLOTS, count)
    for _ in range(SWEEPS):
        before = probability.clone()
        for slot in range(SLOTS):
            others = change.sum(dim=0) - change[slot]
            left = score - torch.einsum("jkil,il->jk", information, others)
            mean = (covariance @ left.unsqueeze(2)).squeeze(2)
            evidence = 0.5 * (left * mean).sum(dim=1) + occam
            each = torch.cat([evidence + math.log(expected / SLOTS / count), empty]).softmax(dim=0)
            probability[slot], change[slot] = each[:-1], each[:-1, None] * mean
        if float((probability - before).abs().max()) < 1e-3:
            break
    return Foci(balls, probability.sum(dim=0))


def _pulled(given: Conditioned, balls: Tensor) -> tuple[Tensor, Tensor]:
    """Of balls (V, J) laid on either field: score (J, 2) of the data, and information (J, 2, J, 2), the smooth fields marginalised."""
    sites, (fields, nodes) = given.sites, given.shape
    root = given.root
    force = sites.shift - (sites.precision @ given.mean().unsqueeze(2)).squeeze(2)  # (V, F)
    laid = torch.einsum("vkf,vj->vfjk", root, balls).reshape(nodes * fields, -1)
    whitened = torch.linalg.solve_triangular(given.factor, laid, upper=False)
    information = (whitened.T @ whitened).reshape(balls.shape[1], fields, balls.shape[1], fields)
    return balls.T @ force, information
