"""How well maps of yes and no are met: what stands out in a picture, and where its edges are.

Networks answer with scores; thresholds are tried on their probabilities, in steps of a 255th.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from gatedeploy.specs import IGNORED_CLASS, Task
from gatedeploy.training.accumulator import Accumulator

LEVELS = 256

BETA_SQUARED = 0.3
"""How much recall counts beside precision in what stands out (Achanta et al. 2009)."""

TOLERANCE = 0.0075
"""How far an edge may be from where it is said to be, of a picture's diagonal (the BSDS benchmark's)."""


class Saliency(Accumulator):
    """maxF: the best F, with β² = 0.3, of precision and recall that are averaged over pictures, over all thresholds."""

    def __init__(self, task: Task, device: torch.device) -> None:
        self.sums = torch.zeros(2, LEVELS, dtype=torch.float64, device=device)
        self.pictures = torch.zeros((), dtype=torch.int64, device=device)
        self.overlap = torch.zeros(2, dtype=torch.float64, device=device)

    def update(self, prediction: Tensor, labels: Tensor) -> None:
        """`prediction`: (batch, 1, height, width) scores. `labels`: (batch, height, width); all of 255 do not count."""
        for probability, label in zip(prediction[:, 0].double().sigmoid(), labels, strict=True):
            valid, yes = label != IGNORED_CLASS, label == 1
            if not valid.any():
                continue
            said, right = _at_least(probability[valid]), _at_least(probability[yes])
            # Where nothing is said, nothing is wrong; where there is nothing, nothing is missed.
            precision = torch.where(said == 0, 1, right / said)
            self.sums += torch.stack([precision, right / yes.sum() if yes.any() else torch.ones_like(right)])
            self.pictures += 1
            sure = probability > 0.5
            self.overlap += torch.stack([(sure & yes).sum(), ((sure | yes) & valid).sum()])

    def compute(self) -> dict[str, float]:
        """`max_f`, and `iou` at a probability of one half over all pixels."""
        precision, recall = self.sums / self.pictures
        return {"max_f": _best_f(precision, recall, BETA_SQUARED), "iou": float(self.overlap[0] / self.overlap[1])}


class Edges(Accumulator):
    """F at the threshold that is best for the whole data set (ODS), where pixels near an edge count as met.

    A pixel that is said to be an edge is right where one is near, and an edge is found where one near it is said to be.
    The BSDS benchmark thins edges first and matches them one to one; figures of the two cannot be compared.
    """

    def __init__(self, task: Task, device: torch.device) -> None:
        self.counts = torch.zeros(3, LEVELS, dtype=torch.float64, device=device)
        self.true = torch.zeros((), dtype=torch.int64, device=device)
        self.off = torch.zeros(2, dtype=torch.float64, device=device)

    def update(self, prediction: Tensor, labels: Tensor) -> None:
        """`prediction`: (batch, 1, height, width) scores. `labels`: (batch, height, width)."""
        probability = prediction.double().sigmoid()
        valid, yes = (labels != IGNORED_CLASS)[:, None], (labels == 1)[:, None]
        height, width = labels.shape[1:]
        near = max(1, round(TOLERANCE * (height**2 + width**2) ** 0.5))
        edge_near = _spread(yes.double(), near) > 0
        said_near = _spread(torch.where(valid, probability, 0), near)
        seen = (probability[valid], probability[valid & edge_near], said_near[yes])
        self.counts += torch.stack([_at_least(each) for each in seen])
        self.true += yes.sum()
        self.off += torch.stack([(probability - yes.double()).abs()[valid].sum(), valid.sum().double()])

    def compute(self) -> dict[str, float]:
        """`ods_f`, and `absolute_error`, how far probabilities are from 0 and 1 (Safe MTL appendix D.3)."""
        said, right, found = self.counts
        precision = torch.where(said == 0, 1, right / said)
        return {
            "ods_f": _best_f(precision, found / self.true, 1.0),
            "absolute_error": float(self.off[0] / self.off[1]),
        }


def _at_least(probabilities: Tensor) -> Tensor:
    """(LEVELS,) how many are at least 0, 1, … 255 255ths; NaN where one is no number."""
    levels = (probabilities.nan_to_num() * (LEVELS - 1)).floor().long()
    counts = torch.bincount(levels, minlength=LEVELS).flip(0).cumsum(0).flip(0).double()
    return torch.where(probabilities.isnan().any(), torch.nan, counts)


def _best_f(precision: Tensor, recall: Tensor, beta_squared: float) -> float:
    """The largest F of any threshold but 0, at which everything is said to be; NaN where one is no number."""
    f = (1 + beta_squared) * precision * recall / (beta_squared * precision + recall).clamp_min(1e-12)
    return float(f[1:].max()) if bool(f.isfinite().all()) else float("nan")


def _spread(maps: Tensor, pixels: int) -> Tensor:
    """The largest value so many pixels around, in rows and in columns."""
    return F.max_pool2d(maps, 2 * pixels + 1, 1, pixels)
