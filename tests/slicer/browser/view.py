"""The maps of both modules in a browser, over real MRML, slice and 3D rendering: for people without Slicer, and for a test.

Its own environment: pip install "trame-slicer[standalone]" nibabel playwright. Then, with maps that `pinn-engine` wrote:

    python tests/slicer/browser/view.py --m0 sub-01_m0scan.nii.gz --maps OUT --heart OUT/heart_cardiac.vtp --server --port 8080

The nodes are dressed by the modules' own code; nothing here is about Slicer's Qt panels.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

EXTENSION = Path(__file__).resolve().parents[3] / "slicer_pinn"
for _folder in ("PINNCommon", "PINNPerfusion", "PINNElectrophysiology"):
    sys.path.append(str(EXTENSION / _folder))

import numpy as np  # noqa: E402
import slicer  # noqa: E402
import slicer.util  # noqa: E402
from trame.app import TrameApp  # noqa: E402
from trame.ui.vuetify3 import SinglePageWithDrawerLayout  # noqa: E402
from trame.widgets import html, vuetify3  # noqa: E402
from trame_slicer.core import LayoutManager, SlicerApp  # noqa: E402
from trame_slicer.rca_view import register_rca_factories  # noqa: E402

PERFUSION, HEART = ("cbf", "att"), ("CV", "D", "LAT")


class Viewer(TrameApp):
    """A drawer with a button a map, a slider, a sentence on what is shown; slices and 3D beside it."""

    def __init__(self, call: argparse.Namespace):
        super().__init__(None)
        self.app = SlicerApp()
        slicer.mrmlScene = self.app.scene
        legend = getattr(slicer, "vtkMRMLColorLegendDisplayNode", None)
        if legend is not None:
            slicer.mrmlScene.RegisterNodeClass(legend())
        register_rca_factories(self.app.view_manager, self.server)
        self.layouts = LayoutManager(self.app.scene, self.app.view_manager, self.server)
        self.layouts.register_layout_dict(LayoutManager.default_grid_configuration())
        self.m0, self.maps, self.heart = None, {}, None
        self.load(call)
        self.build()
        self.layouts.set_layout("Quad View")
        self.state.change("opacity")(self.fade)

    def load(self, call: argparse.Namespace) -> None:
        from PINNCommonLib import nodes
        from PINNElectrophysiologyLib import results
        from PINNPerfusionLib import mapspecs

        self.specs = {"cbf": mapspecs.CBF, "att": mapspecs.ATT}
        if call.m0:
            self.m0 = nodes.read_volume(call.m0, "M0")
        for key in PERFUSION:
            found = sorted(Path(call.maps).glob(f"*[!s][!t][!d]_{key}.nii.gz")) if call.maps else []
            if found:
                self.maps[key] = nodes.read_volume(found[0], self.specs[key].title)
                nodes.dress_volume(self.maps[key], self.specs[key], legend=False)
        if call.heart:
            self.heart = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode", "Heart")
            self.heart.SetAndObserveMesh(results.read_mesh(Path(call.heart)))  # as it stands: RAS where the engine says so
            self.heart.CreateDefaultDisplayNodes()
            self.heart.SetAttribute("PINN.TimeUnit", "ms")

    def build(self) -> None:
        self.state.setdefault("said", "Choose a map.")
        self.state.setdefault("opacity", 0.8)
        with SinglePageWithDrawerLayout(self.server) as page:
            page.title.set_text("PINN maps")
            with page.drawer, vuetify3.VContainer():
                for key in self.maps:
                    vuetify3.VBtn(self.specs[key].title, click=(self.show, f"['{key}']"), id=f"show-{key}", block=True, classes="mb-2")
                for key in HEART if self.heart is not None else ():
                    vuetify3.VBtn(f"Heart: {key}", click=(self.color, f"['{key}']"), id=f"color-{key}", block=True, classes="mb-2")
                vuetify3.VSlider(v_model=("opacity", 0.8), min=0, max=1, step=0.05, label="over M0")
                html.Div("{{ said }}", id="said")
            with page.content:
                self.layouts.initialize_layout_grid(page)

    def show(self, key: str) -> None:
        """A map over M0 in all slices."""
        self.app.display_manager.show_volume_in_slice_background(self.m0 or self.maps[key])
        self.app.display_manager.show_volume_in_slice_foreground(self.maps[key])
        self.fade()
        self.reset()
        values = slicer.util.arrayFromVolume(self.maps[key])
        spec = self.specs[key]
        self.state.said = f"{spec.title}: median {np.median(values[values > 0]):.{spec.decimals}f} {spec.unit}"

    def color(self, key: str) -> None:
        """One of the heart's maps in the 3D view."""
        from PINNElectrophysiologyLib import results
        from PINNElectrophysiologyLib.mapspecs import specs

        results.show(self.heart, key)
        self.reset()
        low, high = self.heart.GetDisplayNode().GetScalarRange()
        self.state.said = f"{specs('ms')[key].title}: colours from {low:.2f} to {high:.2f} {specs('ms')[key].unit}"

    def fade(self, **ignored: object) -> None:
        for node in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
            node.SetForegroundOpacity(float(self.state.opacity))

    def reset(self) -> None:
        self.app.display_manager.reset_views()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--m0", type=Path)
    parser.add_argument("--maps", type=Path, help="folder of a perfusion fit")
    parser.add_argument("--heart", type=Path, help="PREFIX_cardiac.vtp or .vtu of a heart fit")
    call, _ = parser.parse_known_args()
    Viewer(call).server.start()


if __name__ == "__main__":
    main()
