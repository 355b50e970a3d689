"""Made-up pictures and labels in the layouts of the published data sets, of the sizes that their files have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Array = npt.NDArray[Any]
Random = np.random.Generator
Files = list[Path]
"""What has to be read for one picture."""


def photo(random: Random, height: int, width: int) -> Array:
    """Colours that change slowly, edges, and a camera's grain: (height, width, 3) uint8."""
    slow = _blown_up(random.integers(0, 200, (height // 24 + 2, width // 24 + 2, 3)), height, width, smooth=True)
    objects = _blown_up(random.integers(0, 56, (height // 40 + 2, width // 40 + 2, 3)), height, width, smooth=False)
    grain = random.normal(0, 4, (height, width, 3))
    colours = (slow + objects + grain).clip(0, 255)
    return np.asarray(colours.astype(np.uint8))


def regions(random: Random, height: int, width: int, classes: int) -> Array:
    """(height, width) uint8, some dozens of patches of one number each, with ragged borders."""
    rows, columns = np.mgrid[:height, :width]
    rows = (rows + random.integers(-2, 3, (height, 1)).cumsum(0) % 9) // (height // 6)
    columns = (columns + random.integers(-2, 3, (1, width)).cumsum(1) % 9) // (width // 8)
    patches = random.integers(0, classes, (9, 11), dtype=np.uint8)
    return np.asarray(patches[rows.clip(0, 8), columns.clip(0, 10)])


def surface(random: Random, height: int, width: int) -> Array:
    """(height, width) float32 from 0 to 1, smooth but for a scanner's noise."""
    slow = _blown_up(random.integers(0, 240, (height // 60 + 2, width // 60 + 2)), height, width, smooth=True)
    return np.asarray((slow + random.random((height, width))) / 256, np.float32)


def directions(random: Random, height: int, width: int) -> Array:
    """Unit vectors (height, width, 3) float32."""
    across, down = (2 * surface(random, height, width) - 1 for _ in range(2))
    vectors = np.stack([across, down, np.ones_like(across)], -1)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32)


def _blown_up(small: Array, height: int, width: int, smooth: bool) -> Array:
    how = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(small.astype(np.uint8)).resize((width, height), how)).astype(np.float32)


def write_celeba(root: Path, count: int) -> list[Files]:
    """178 × 218 JPEG, and tables."""
    pictures = [root / f"img_align_celeba/{number:06}.jpg" for number in range(1, count + 2)]
    for seed, path in enumerate(pictures):
        _save(path, photo(np.random.default_rng(seed), 218, 178), quality=90)
    names = "Male Wearing_Necktie Young"
    rows = "\n".join(f"{path.name} 1 -1 1" for path in pictures)
    (root / "list_attr_celeba.txt").write_text(f"{len(pictures)}\n{names}\n{rows}\n")
    parts = "\n".join(f"{path.name} {int(path == pictures[-1])}" for path in pictures)
    (root / "list_eval_partition.txt").write_text(parts)
    return [[path] for path in pictures[:count]]


def write_nyud(root: Path, count: int) -> list[Files]:
    """480 × 640: JPEG, a palette of 40 classes, depth and normals as arrays."""

    def write(name: str, random: Random) -> Files:
        return [
            _save(root / f"images/{name}.jpg", photo(random, 480, 640), quality=95),
            _save(root / f"segmentation/{name}.png", regions(random, 480, 640, 41)),
            _save(root / f"depth/{name}.npy", 0.5 + 9 * surface(random, 480, 640)),
            _save(root / f"normals/{name}.npy", directions(random, 480, 640)),
        ]

    return _listed(root / "gt_sets", count, write)


def write_pascal_context(root: Path, count: int) -> list[Files]:
    """375 × 500: JPEG, PNG and .mat."""
    from scipy.io import savemat

    def write(name: str, random: Random) -> Files:
        size = (375, 500)
        context = root / f"pascal-context/trainval/{name}.mat"
        parts = root / f"human_parts/{name}.mat"
        for path in (context, parts):
            path.parent.mkdir(parents=True, exist_ok=True)
        savemat(context, {"LabelMap": regions(random, *size, 250).astype(np.uint16)}, do_compression=True)
        savemat(parts, {"anno": {"objects": _people(random, size)}}, do_compression=True)
        coded = np.rint((directions(random, *size) + 1) * 127.5).astype(np.uint8)
        return [
            _save(root / f"JPEGImages/{name}.jpg", photo(random, *size), quality=90),
            _save(root / f"semseg/VOC12/{name}.png", regions(random, *size, 21)),
            _save(root / f"sal_distill/{name}.png", np.rint(255 * surface(random, *size)).astype(np.uint8)),
            _save(root / f"normals_distill/{name}.png", coded),
            context,
            parts,
        ]

    return _listed(root / "ImageSets/Context", count, write)


def _people(random: Random, size: tuple[int, int]) -> Array:
    """Two people of six parts each, as PASCAL-Part stores them."""
    people = np.zeros((1, 2), [("class_ind", object), ("mask", object), ("parts", object)])
    for person in range(2):
        where = regions(random, *size, 12)
        parts = np.zeros((1, 6), [("part_name", object), ("mask", object)])
        for number, name in enumerate(("head", "torso", "luarm", "llarm", "luleg", "llleg")):
            parts[0, number] = (name, (where == number).astype(np.uint8))
        people[0, person] = (15, (where < 6).astype(np.uint8), parts)
    return people


def write_cityscapes(root: Path, count: int) -> list[Files]:
    """1024 × 2048 PNG, disparity of 16 bits."""
    files: list[Files] = []
    for number in range(count + 1):
        name = f"{'train' if number < count else 'val'}/aachen/aachen_{number:06}_000019"
        random = np.random.default_rng(number)
        disparity = (256 * 120 * surface(random, 1024, 2048)).astype(np.uint16)
        files.append(
            [
                _save(root / f"leftImg8bit/{name}_leftImg8bit.png", photo(random, 1024, 2048)),
                _save(root / f"gtFine/{name}_gtFine_labelIds.png", regions(random, 1024, 2048, 34)),
                _save(root / f"disparity/{name}_disparity.png", disparity),
            ]
        )
    return files[:count]


def write_taskonomy(root: Path, count: int) -> list[Files]:
    """512 × 512 PNG, depth and edges of 16 bits."""
    files: list[Files] = []
    for number in range(count + 1):
        building = "onaga" if number < count else "darden"
        random = np.random.default_rng(number)
        coded = np.rint((directions(random, 512, 512) + 1) * 127.5).astype(np.uint8)
        made = {
            ("rgb", "rgb"): photo(random, 512, 512),
            ("segment_semantic", "segmentsemantic"): regions(random, 512, 512, 18),
            ("depth_euclidean", "depth_euclidean"): (512 * (1 + 9 * surface(random, 512, 512))).astype(np.uint16),
            ("edge_texture", "edge_texture"): (4000 * surface(random, 512, 512)).astype(np.uint16),
            ("normal", "normal"): coded,
        }
        place = f"{building}/point_{number}_view_0_domain"
        files.append([_save(root / folder / f"{place}_{domain}.png", each) for (folder, domain), each in made.items()])
    return files[:count]


def _listed(lists: Path, count: int, write: Callable[[str, Random], Files]) -> list[Files]:
    """Pictures to train on and one to validate, and the lists that name them."""
    names = [f"{number:04}" for number in range(count + 1)]
    files = [write(name, np.random.default_rng(seed)) for seed, name in enumerate(names)]
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("\n".join(names[:count]))
    (lists / "val.txt").write_text(names[count])
    return files[:count]


def _save(path: Path, array: Array, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        Image.fromarray(array).save(path, **options)
    return path
