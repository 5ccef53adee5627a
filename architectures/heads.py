"""Heads. In evaluation each returns what the released inference graph returns, in training what a loss needs.

Upstream: PaddleOCR `ppocr/modeling/heads/{det_db_head,rec_ctc_head,cls_head}.py`.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from .folding import Foldable, Replaced, absorb_norm
from .registry import Ignored, Parameter, Part, Present, Size


class DBBranch(Foldable):
    """One of the DB head's two branches: (N, C, H/4, W/4) → (N, 1, H, W) between 0 and 1.

    Args:
        kernel_size: of the first convolution.
        folded: whether it has the folded layout: biases in place of the norms.
    """

    def __init__(self, in_channels: int, kernel_size: int = 3, folded: bool = False) -> None:
        super().__init__()
        quarter = in_channels // 4
        self.conv1 = nn.Conv2d(in_channels, quarter, kernel_size, padding=kernel_size // 2, bias=folded)
        self.conv_bn1: nn.Module = nn.Identity() if folded else nn.BatchNorm2d(quarter)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.ConvTranspose2d(quarter, quarter, 2, stride=2)
        self.conv_bn2: nn.Module = nn.Identity() if folded else nn.BatchNorm2d(quarter)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.ConvTranspose2d(quarter, 1, 2, stride=2)
        self.sigmoid = nn.Sigmoid()

    def features(self, x: Tensor) -> Tensor:
        """All but the last convolution: (N, C, H/4, W/4) → (N, C/4, H/2, W/2)."""
        x = self.relu1(self.conv_bn1(self.conv1(x)))
        return self.relu2(self.conv_bn2(self.conv2(x)))

    def from_features(self, features: Tensor) -> Tensor:
        """The last convolution and the sigmoid: (N, C/4, H/2, W/2) → (N, 1, H, W)."""
        return self.sigmoid(self.conv3(features))

    def forward(self, x: Tensor) -> Tensor:
        return self.from_features(self.features(x))

    def fold(self) -> Replaced:
        return absorb_norm(self, "conv1", "conv_bn1") | absorb_norm(self, "conv2", "conv_bn2")


class DBHead(nn.Module):
    """Differentiable binarisation (Liao et al., https://arxiv.org/abs/1911.08947).

    Args:
        kernel_size: of the first convolution; 7 in the PP-OCRv3 teacher.
        folded_head: whether the branches have the folded layout, as later revisions of upstream export it.
        k: steepness of the differentiable step.

    Shape: (N, C, H/4, W/4) → evaluation: shrink map (N, 1, H, W); training: shrink, threshold and binary map
    (N, 3, H, W).
    """

    def __init__(self, in_channels: int, kernel_size: int = 3, folded_head: bool = False, k: float = 50.0) -> None:
        super().__init__()
        self.k = k
        self.binarize = DBBranch(in_channels, kernel_size, folded_head)
        self.thresh = DBBranch(in_channels, kernel_size, folded_head)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        return self.maps(self.binarize, self.thresh, x) if self.training else self.binarize(x)

    def maps(self, binarize: DBBranch, thresh: DBBranch, x: Tensor) -> Tensor:
        """Shrink, threshold and binary map that two branches make of a map: (N, C, H/4, W/4) → (N, 3, H, W)."""
        shrink, threshold = binarize(x), thresh(x)
        return torch.cat([shrink, threshold, self.step(shrink, threshold)], 1)

    def step(self, shrink: Tensor, threshold: Tensor) -> Tensor:
        """The binary map: nearly 1 where the shrink map is above the threshold, nearly 0 elsewhere, differentiable."""
        return torch.sigmoid(self.k * (shrink - threshold))


class CTCHead(nn.Module):
    """Scores per time step for connectionist temporal classification; class 0 is the blank.

    Args:
        classes: characters and blank (and space, where the dictionary has one).
        mid_channels: width of a layer between, `fc1` → `fc2`, without activation (PP-OCRv2); None for one layer, `fc`.

    Shape: (N, T, `in_channels`) → (N, T, `classes`); probabilities in evaluation, logits in training.
    """

    def __init__(self, in_channels: int, classes: int, mid_channels: int | None = None) -> None:
        super().__init__()
        if mid_channels is None:
            self.fc: nn.Module = nn.Linear(in_channels, classes)
        else:
            self.fc1 = nn.Linear(in_channels, mid_channels)
            self.fc2 = nn.Linear(mid_channels, classes)
        self.two_layers = mid_channels is not None

    def forward(self, x: Tensor) -> Tensor:
        logits = self.fc2(self.fc1(x)) if self.two_layers else self.fc(x)
        return logits if self.training else torch.softmax(logits, dim=2)


class ClassificationHead(nn.Module):
    """Global average pool and a linear layer.

    Shape: (N, `in_channels`, H, W) → (N, `classes`); probabilities in evaluation, logits in training.
    """

    def __init__(self, in_channels: int, classes: int = 2) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(in_channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.fc(self.pool(x).flatten(1))
        return logits if self.training else torch.softmax(logits, dim=1)


THRESHOLD_BRANCH = ("head.thresh.",)
FOLDED_HEAD = {"folded_head": Parameter(False, told_by=Present("head.binarize.conv1.bias"))}
DB_ALGORITHM = {"algorithm": (None, "DB")}
DB_FIXED = {**DB_ALGORITHM, "Head.kernel_list": (None, [3, 2, 2])}
# The steepness is that of the binary map, which training alone makes; so is what happens to its NaN.
DB_TRAINING = ("Head.k", "Head.fix_nan")
DB = Part(
    DBHead,
    parameters=FOLDED_HEAD,
    config={"Head.name": "DBHead"},
    fixed=DB_FIXED,
    harmless=DB_TRAINING,
    optional=THRESHOLD_BRANCH,
)
DB_LARGE_KERNEL = replace(DB, arguments={"kernel_size": 7}, fixed={**DB_ALGORITHM, "Head.kernel_list": ([7, 2, 2],)})


def ctc_classes(key: str = "head.fc.weight", classes: int = 6625) -> Parameter:
    """The number of classes, told by the last layer's weight."""
    return Parameter(classes, told_by=Size(key, 0), config="Head.out_channels")


# `return_feats` makes upstream's network return more than probabilities; `use_guide` gives it more layers.
CTC_FIXED = {"Head.return_feats": (None, False), "Head.use_guide": (None, False), "Head.use_pool": (None, False)}
# What regularises, and what the head beside it that guides training is made of.
CTC_TRAINING = ("Head.fc_decay", "Head.use_pos")
ONE_LAYER = {**CTC_FIXED, "Head.mid_channels": (None,)}

CTC = Part(
    CTCHead,
    parameters={"classes": ctc_classes()},
    config={"Head.name": "CTCHead"},
    fixed=ONE_LAYER,
    harmless=CTC_TRAINING,
)
CTC_TWO_LAYERS = Part(
    CTCHead,
    parameters={
        "mid_channels": Parameter(96, told_by=Size("head.fc1.weight", 0), config="Head.mid_channels"),
        "classes": ctc_classes("head.fc2.weight"),
    },
    config={"Head.name": "CTCHead"},
    fixed=CTC_FIXED,
    harmless=CTC_TRAINING,
)
# Of upstream's MultiHead, which also has a SAR head; the names in circulation are those of the CTC head alone.
CTC_OF_MULTI_HEAD = Part(
    CTCHead,
    parameters={"classes": ctc_classes()},
    config={"Head.name": "CTCHead"},
    fixed=ONE_LAYER,
    harmless=CTC_TRAINING,
    renames=(("head.ctc_head.<rest>", "head.<rest>"),),
    ignored=(Ignored("head.sar_head.", "the SAR head guides training and is never run in evaluation"),),
)
CLASSIFICATION = Part(
    ClassificationHead,
    parameters={"classes": Parameter(2, told_by=Size("head.fc.weight", 0), config="Head.class_dim")},
    config={"Head.name": "ClsHead"},
    fixed={"algorithm": (None, "CLS")},
)
