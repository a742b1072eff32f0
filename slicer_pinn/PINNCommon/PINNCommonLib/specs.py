"""How a map is shown: one line a map drives name, codes, colours, window and threshold of its node."""

from __future__ import annotations

from dataclasses import dataclass, replace

# Tables that only the application has, then one that every MRML scene has. "Rainbow" is not used: it shows 0, the background, red.
VIRIDIS = ("vtkMRMLColorTableNodeFileViridis.txt", "vtkMRMLColorTableNodeFullRainbow")
INFERNO = ("vtkMRMLColorTableNodeFileInferno.txt", "vtkMRMLColorTableNodeIron")
MAGMA = ("vtkMRMLColorTableNodeFileMagma.txt", "vtkMRMLColorTableNodeIron")
CIVIDIS = ("vtkMRMLColorTableNodeFileCividis.txt", "vtkMRMLColorTableNodeFullRainbow")
GREY = ("vtkMRMLColorTableNodeGrey",)
RANDOM = ("vtkMRMLColorTableNodeFileGenericColors.txt", "vtkMRMLColorTableNodeRandom")

OWN = "99PINN"  # coding scheme of quantities that DICOM has no code for: 99 marks a private one


@dataclass(frozen=True)
class MapSpec:
    """`quantity` and `ucum` are (code, scheme, meaning); `window` None: from the data; voxels below `threshold` are transparent."""

    key: str
    title: str
    quantity: tuple[str, str, str]
    ucum: tuple[str, str, str]
    unit: str  # as people write it
    colors: tuple[str, ...]
    window: tuple[float, float] | None
    threshold: float
    decimals: int = 2

    def std(self) -> MapSpec:
        """The standard deviation of the map: same unit, a window from 0 to 40 % of the map's span."""
        window = None if self.window is None else (0.0, 0.4 * (self.window[1] - self.window[0]))
        code, scheme, meaning = self.quantity
        quantity = (f"{code}-SD" if scheme == OWN else f"SD-{code}", OWN, f"Standard deviation of {meaning[0].lower()}{meaning[1:]}")
        return replace(
            self, key=self.key + "_std", title=f"{self.title}, standard deviation", quantity=quantity, window=window, colors=MAGMA
        )


def ucum(code: str, meaning: str) -> tuple[str, str, str]:
    return code, "UCUM", meaning


SECONDS, NO_UNIT, MILLISECONDS = ucum("s", "second"), ucum("1", "no units"), ucum("ms", "millisecond")
