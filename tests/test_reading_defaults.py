"""Which models read where nothing else is said."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from paddle2torch.converter.support.errors import DownloadError, MappingError
from paddle2torch.converter.zoo.catalog import load_zoo
from paddle2torch.reading.defaults import AUTO, CLASSIFIERS, DETECTORS, RECOGNISERS, open_stages


def having(*names: str) -> Callable[[str, str], str]:
    """Opens these models, by their names in place of networks, and can fetch no other."""

    def opened(model: str, task: str) -> str:
        if model not in names:
            raise DownloadError(f"{model}: is not there; more about it\n  for some reason")
        return f"{model} for {task}"

    return opened


def test_the_newest_is_taken_that_can_be_had(caplog: pytest.LogCaptureFixture) -> None:
    opened = having(*DETECTORS, CLASSIFIERS[1], RECOGNISERS[1], RECOGNISERS[2])
    with caplog.at_level(logging.WARNING):
        stages = open_stages(AUTO, AUTO, None, AUTO, opened)
    assert stages == (f"{DETECTORS[0]} for det", f"{CLASSIFIERS[1]} for cls", None, f"{RECOGNISERS[1]} for rec")
    assert [record.message for record in caplog.records] == [
        f"{old[0]} cannot be had, so that {old[1]} is used: {old[0]}: is not there"
        for old in (CLASSIFIERS, RECOGNISERS)
    ]


def test_where_none_can_be_had_the_error_is_that_of_the_newest() -> None:
    with pytest.raises(DownloadError, match=f"^{DETECTORS[0]}: is not there"):
        open_stages(AUTO, None, None, "mine", having("mine"))


def test_other_errors_are_no_reason_for_another_model() -> None:
    def broken(model: str, task: str) -> None:
        raise MappingError(f"{model}: does not fit")

    with pytest.raises(MappingError, match=DETECTORS[0]):
        open_stages(AUTO, None, None, "mine", broken)


def test_a_line_alone_has_no_classifier_unless_it_is_named() -> None:
    opened = having(*RECOGNISERS, "mine")
    assert open_stages(None, AUTO, None, AUTO, opened).cls is None
    assert open_stages(None, "mine", "mine", AUTO, opened)[1:3] == ("mine for cls", "mine for cls")


def test_what_is_named_is_taken_or_nothing() -> None:
    with pytest.raises(DownloadError, match="^yours"):
        open_stages("yours", None, None, AUTO, having(*DETECTORS, *RECOGNISERS))


@pytest.mark.parametrize(("names", "task"), [(DETECTORS, "det"), (CLASSIFIERS, "cls"), (RECOGNISERS, "rec")])
def test_the_defaults_are_models_of_the_zoo(names: tuple[str, ...], task: str) -> None:
    assert [load_zoo().get(name).task for name in names] == [task] * len(names)
