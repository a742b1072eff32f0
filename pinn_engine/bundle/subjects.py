"""The scans or hearts of a study, found by their names when they are first asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files.bids import prefix
from ..files.dataset import find_series
from .settings import Settings

TRUTH = {"cbf": "cbf", "att": "att", "tissue": "dseg", "lesion": "desc-lesion_dseg"}  # as `pinn-engine phantom asl` names them
MOVIES = ("*_movie.nii", "*_movie.nii.gz")


class Subjects(Sequence):
    """One dict a subject: "id", "image" (path), "where" (folder of its results), "truth" (files of a phantom's true maps).

    `dataset_dir` is a BIDS dataset or one ASL series; for hearts a folder that is searched for `pattern`, or one movie or mesh.
    Nothing is read before the first subject is asked for, so that a bundle can be looked at without data.
    """

    def __init__(self, settings: Settings):
        self.settings = settings

    def __len__(self) -> int:
        return len(self._found)

    def __getitem__(self, index: Any) -> Any:
        return self._found[index]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._found)

    @cached_property
    def _found(self) -> list[dict[str, Any]]:
        root = self.settings.path("dataset_dir")
        if root is None:
            raise InputError("--dataset_dir", "is missing", fix="give the folder of the data, or one file")
        found = self._series(root) if self.settings.organ == "asl" else self._hearts(root)
        _refuse_doubles(root, found)
        return found

    def _series(self, root: str) -> list[dict[str, Any]]:
        if Path(root).is_file():
            return [self._with_truth(prefix(root), Path(root), "")]
        labels = self.settings.labels
        return [
            self._with_truth(one.id, one.path, one.where) for one in find_series(root, labels("participant_label"), labels("session_label"))
        ]

    def _with_truth(self, id: str, image: Path, where: str) -> dict[str, Any]:
        home = self.settings.path("truth_dir")
        files = {} if home is None else {key: Path(home) / where / f"{id}_{suffix}.nii.gz" for key, suffix in TRUTH.items()}
        truth = {key: str(file) for key, file in files.items() if file.is_file()}
        if files and not {"cbf", "tissue"} <= set(truth):
            raise InputError(files["cbf"], "no true map to compare with", fix="give --truth_dir, or leave configs/evaluate.json out")
        return {"id": id, "image": str(image), "where": where, "truth": truth}

    def _hearts(self, root: str) -> list[dict[str, Any]]:
        folder = Path(root)
        if folder.is_file():
            found, folder = [folder], folder.parent
        elif not folder.is_dir():
            raise InputError(root, "does not exist", fix="give a folder of movies or meshes, or one file")
        else:
            patterns = self.settings.labels("pattern") or list(MOVIES)
            found = sorted({path for pattern in patterns for path in folder.rglob(pattern) if path.is_file() and not self._is_ours(path)})
            if not found:
                raise InputError(root, "holds no heart", found="nothing called " + " or ".join(patterns), fix="give --pattern, or one file")
        return [self._heart(path, path.parent.relative_to(folder)) for path in found]

    def _heart(self, path: Path, where: Path) -> dict[str, Any]:
        name = path.name.removesuffix(".gz")
        stem = name.removesuffix(Path(name).suffix).removesuffix("_movie")
        home = self.settings.path("truth_dir")
        truth = {} if home is None else {"D": str(_only_map_of_D(path.parent / home))}
        return {"id": (where / stem).as_posix(), "image": str(path), "where": where.as_posix(), "truth": truth}

    def _is_ours(self, path: Path) -> bool:
        """A result of an earlier run, or a phantom's truth, inside the folder that is searched."""
        out, truth = self.settings.path("output_dir"), self.settings.path("truth_dir") or "truth"
        inside = out is not None and Path(out).resolve() in path.resolve().parents
        return inside or truth in path.parent.parts or "_desc-" in path.name or path.name.endswith(("_cardiac.vtp", "_cardiac.vtu"))


def _only_map_of_D(folder: Path) -> Path:
    found = sorted(folder.glob("*_D.nii.gz"))
    if len(found) != 1:
        fix = "give --truth_dir (a folder beside each movie), or leave configs/evaluate.json out"
        raise InputError(folder, "must hold one true map, …_D.nii.gz", found=f"{len(found)}", fix=fix)
    return found[0]


def _refuse_doubles(root: str, found: list[dict[str, Any]]) -> None:
    """Two inputs of one name in one folder would write over each other's results."""
    seen: dict[str, str] = {}
    for one in found:
        other = seen.setdefault(f"{one['where']}/{one['id']}".casefold(), one["image"])
        if other != one["image"]:
            raise InputError(root, "two inputs have one name", found=f"{Path(other).name} and {Path(one['image']).name}", fix="rename one")
