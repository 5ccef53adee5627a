"""What is read with unless something else is asked for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from paddle2torch.converter.support.errors import DownloadError

if TYPE_CHECKING:
    from paddle2torch.reading.network import Model, Network

# The best first; each is taken where none before it can be had, from the server, the mirror or the cache. The last
# recogniser knows Latin letters without accents, and digits.
DETECTORS = ("PP-OCRv6_small_det", "PP-OCRv5_mobile_det", "ch_PP-OCRv3_det")
CLASSIFIERS = ("PP-LCNet_x1_0_textline_ori", "ch_ppocr_mobile_v2.0_cls")
RECOGNISERS = ("PP-OCRv6_small_rec", "PP-OCRv5_mobile_rec", "en_number_mobile_v2.0_rec")

AUTO = "auto"  # the first of these that can be had; a classifier only where there is a detector
BATCH_SIZE = 6
DROP_SCORE = 0.5

logger = logging.getLogger(__name__)


class Stages(NamedTuple):
    """The networks of a reader; None for what it does without."""

    det: Network | None
    cls: Network | None
    doc: Network | None
    rec: Network


def open_stages(
    det: Model | None, cls: Model | None, doc: Model | None, rec: Model, opened: Callable[[Model, str], Network]
) -> Stages:
    """The networks that are asked for.

    Args:
        det, cls, doc, rec: see `paddle2torch.reading.Reader`; "auto" for the first default that can be had.
        opened: opens a model for a task.

    Raises:
        DownloadError: none of the defaults can be fetched.
    """

    def stage(model: Model, task: str, defaults: Sequence[str] = ()) -> Network:
        automatic = isinstance(model, str) and model == AUTO and defaults
        return _first(defaults, task, opened) if automatic else opened(model, task)

    if isinstance(cls, str) and cls == AUTO and det is None:
        cls = None  # an image that is one line is taken to be upright
    return Stages(
        None if det is None else stage(det, "det", DETECTORS),
        None if cls is None else stage(cls, "cls", CLASSIFIERS),
        None if doc is None else stage(doc, "cls"),
        stage(rec, "rec", RECOGNISERS),
    )


def _first(names: Sequence[str], task: str, opened: Callable[[Model, str], Network]) -> Network:
    """The first that can be fetched; it is told where that is not the first of all."""
    failures: list[DownloadError] = []
    for name in names:
        try:
            network = opened(name, task)
        except DownloadError as error:
            failures.append(error)
            continue
        if failures:
            reason = str(failures[0]).partition("\n")[0].partition(";")[0]
            logger.warning("%s cannot be had, so that %s is used: %s", names[0], name, reason)
        return network
    raise failures[0]
