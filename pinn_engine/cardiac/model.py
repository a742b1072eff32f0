"""The Aliev-Panfilov equations as the paper has them (Aliev & Panfilov 1996, doi:10.1016/0960-0779(95)00089-5)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..errors import InputError

GUARD = -0.15  # V in the recovery rate is held above this: W/(V + mu2) has a pole at V = -0.3, far outside what V does


@dataclass(frozen=True)
class AlievPanfilov:
    """V_t = div(D grad V) - k V (V - a)(V - 1) - V W ;  W_t = (eps + mu1 W / (V + mu2)) (-W - k V (V - b - 1)); t in TU, no flux of V.

    a: threshold; b: shift of the recovery, sets the duration of the action potential. `rest` is no parameter of the equations: W that the
    last beat has left in the tissue that a wave runs into, 0 after a long rest. Every value a number or a tensor that broadcasts against V
    (one per node, or one per problem).
    """

    a: Any = 0.01
    b: Any = 0.15
    k: Any = 8.0
    mu1: Any = 0.2
    mu2: Any = 0.3
    eps: Any = 0.002
    rest: Any = 0.0

    needs = ("V", "V_t", "W", "W_t", "div_D_grad_V")

    def residual(self, d: dict[str, Any]) -> dict[str, Any]:
        """What is left of the two equations, {"V": , "W": }, given everything in `needs`."""
        reaction, recovery = self.rates(d["V"], d["W"])
        return {"V": d["V_t"] - d["div_D_grad_V"] - reaction, "W": d["W_t"] - recovery}

    def rates(self, V: Any, W: Any) -> tuple[Any, Any]:
        """(V_t without diffusion, W_t), 1/TU."""
        kV = self.k * V
        return -kV * (V - self.a) * (V - 1.0) - V * W, self.recovery_rate(V, W) * (-W - kV * (V - self.b - 1.0))

    def midpoint(self, V: Any, W: Any, step: float) -> tuple[Any, Any]:
        """(V, W) after a step of the reaction alone, by the midpoint rule."""
        V_t, W_t = self.rates(V, W)
        V_t, W_t = self.rates(V + 0.5 * step * V_t, W + 0.5 * step * W_t)
        return V + step * V_t, W + step * W_t

    def recovery_rate(self, V: Any, W: Any) -> Any:
        """g = eps + mu1 W / (V + mu2), 1/TU."""
        return self.eps + self.mu1 * W / (V.clip(min=GUARD) + self.mu2)

    def speed(self, D: Any) -> Any:
        """Speed of a planar front, mm/TU: c = sqrt(k D / 2) (1 - 2 a) into tissue long at rest. Exact with W the same all along."""
        return (0.5 * self.k * D) ** 0.5 * self._drive

    def diffusivity(self, speed: Any) -> Any:
        """D, mm^2/TU, that makes a planar front this fast (mm/TU): the inverse of `speed`."""
        return 2.0 * speed**2 / (self.k * self._drive**2)

    @property
    def _drive(self) -> Any:
        """r2 - 2 r1 of the reaction -k V (V - r1)(V - r2) with W = rest."""
        return 1.5 * ((1.0 - self.a) ** 2 - 4.0 * self.rest / self.k) ** 0.5 - 0.5 * (1.0 + self.a)

    @property
    def log_speed_by_a(self) -> Any:
        """d log c / da."""
        return (-1.5 * (1.0 - self.a) / ((1.0 - self.a) ** 2 - 4.0 * self.rest / self.k) ** 0.5 - 0.5) / self._drive

    @property
    def travels(self) -> bool:
        """Whether a front moves into tissue with W = rest (numbers only)."""
        return (1.0 - self.a) ** 2 > 4.0 * self.rest / self.k and self._drive > 0

    def front_scale(self, D: Any) -> Any:
        """s = sqrt(2 D / k), mm: V = 1/(1 + exp((x - c t)/s)) is the exact front; its 10-90 % width is 4.394 s."""
        return (2.0 * D / self.k) ** 0.5

    @classmethod
    def from_opencarp(
        cls, a: float = 0.15, b: float = 0.15, K: float = 8.0, mu1: float = 0.2, mu2: float = 0.3, eps: float = 0.002
    ) -> AlievPanfilov:
        """From openCARP's AlievPanfilovDynamic.model, where `b` is the threshold (our a) and `a` the recovery's shift (our b)."""
        return cls(a=b, b=a, k=K, mu1=mu1, mu2=mu2, eps=eps)

    def to_opencarp(self) -> dict[str, Any]:
        """The same tissue in openCARP's names."""
        return {"a": self.b, "b": self.a, "K": self.k, "mu1": self.mu1, "mu2": self.mu2, "epsilon": self.eps}

    @classmethod
    def from_torchcor(cls, a: float = 0.15, K: float = 8.0, mu1: float = 0.2, mu2: float = 0.3, eps: float = 0.002) -> AlievPanfilov:
        """From TorchCor 1.0.6, whose one `a` is both the threshold and the recovery's shift."""
        return cls(a=a, b=a, k=K, mu1=mu1, mu2=mu2, eps=eps)


def parse_parameters(pairs: Iterable[str], base: AlievPanfilov | None = None) -> AlievPanfilov:
    """`a=.02 b=.1` or `a=.02,b=.1` -> a model; each fault named."""
    base = base or AlievPanfilov()
    known = tuple(base.__dataclass_fields__)
    values = {name: getattr(base, name) for name in known}
    for pair in (piece for text in pairs for piece in text.split(",") if piece.strip()):
        name, _, number = (part.strip() for part in pair.partition("="))
        if name not in known:
            raise InputError("--parameters", "no such parameter", found=name, fix=f"give {', '.join(known)}")
        try:
            values[name] = float(number)
        except ValueError:
            values[name] = math.nan
        if not math.isfinite(values[name]):
            raise InputError("--parameters", f"{name} is not a number", found=number or "nothing", fix=f"write {name}=0.1")
    if not 0.0 < values["a"] < 0.5:
        raise InputError(
            "--parameters", "the threshold a must lie between 0 and 0.5 for a wave to travel", found=values["a"], fix="openCARP calls it b"
        )
    if not (values["k"] > 0 and values["mu2"] > -GUARD):
        raise InputError(
            "--parameters",
            f"k must be positive and mu2 above {-GUARD}",
            found=f"k={values['k']}, mu2={values['mu2']}",
            fix="the defaults are 8 and 0.3",
        )
    model = AlievPanfilov(**values)
    if not (values["rest"] >= 0 and model.travels):
        found, fix = f"rest={values['rest']:g} with k={values['k']:g}", "rest is the W that the last beat left: some hundredths"
        raise InputError("--parameters", "no wave travels into such tissue", found=found, fix=fix)
    return model
