"""Runs in a subprocess: `python convert_mesh.py ENGINE INPUT FOLDER SPACE` writes FOLDER/mesh.vtp or .vtu, points in RAS.

What the reader remarked goes to stderr, a line each; a file that cannot be read ends with the engine's one line and code 2.
"""

import sys
from dataclasses import replace
from pathlib import Path


def main() -> int:
    folder, source, target, space = sys.argv[1:]
    sys.path[0] = folder  # in place of this file's folder
    from pinn_engine.errors import InputError
    from pinn_engine.files import mesh as meshes
    from pinn_engine.files import vtkmesh

    try:
        mesh = meshes.read(source)
        said = mesh.space or space
        positions = {"measured_position"} & set(mesh.field_data)
        turn = (-1.0, -1.0, 1.0) if said == "LPS" else (1.0, 1.0, 1.0)
        fields = {name: values * turn if name in positions else values for name, values in mesh.field_data.items()}
        fibres = None if mesh.fibres is None else mesh.fibres * turn
        ras = replace(
            mesh, points=mesh.points * turn, space="RAS", field_data=fields, fibres=fibres, cell_data=_without_fibres(mesh.cell_data)
        )
        vtkmesh.write(ras, Path(target) / ("mesh.vtp" if mesh.is_surface else "mesh.vtu"))
    except InputError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stderr.write("".join(f"{note}\n" for note in mesh.notes))
    return 0


def _without_fibres(cell_data: dict) -> dict:
    """They are written from `fibres`, turned with the points."""
    from pinn_engine.files.mesh import FIBRE_NAMES

    return {name: values for name, values in cell_data.items() if name.lower() not in FIBRE_NAMES}


if __name__ == "__main__":
    sys.exit(main())
