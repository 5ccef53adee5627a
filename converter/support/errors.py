"""Every error a user can meet: one hierarchy, one exit code per class.

A message is one line for a person: what was wrong with which file or tensor, what was expected, and what to do.
Further lines (lists of tensors, say) may follow it, indented. The command line prints the message and exits with the
class's code; the README lists the codes.
"""

from __future__ import annotations

from paddle2torch.converter.support.terminal import clean_lines


class ConverterError(Exception):
    """Base of all errors that this package raises on purpose.

    Its text may have names in it that come from anywhere; nothing in it acts on a terminal.
    """

    exit_code = 1

    def __str__(self) -> str:
        return clean_lines(super().__str__())


class SourceError(ConverterError):
    """A SOURCE is neither a zoo name nor a usable path, or what lies there is ambiguous."""

    exit_code = 3


class ZooError(ConverterError):
    """`model_zoo.yaml` has mistakes; the message lists all of them."""

    exit_code = 4


class DownloadError(ConverterError):
    """A file could not be fetched, or what came is not what was announced."""

    exit_code = 5


class UnknownHostError(DownloadError):
    """No address is known for a host, and none will be a moment later.

    Args:
        text: the message.
        host: its name.
    """

    def __init__(self, text: str, host: str | None = None) -> None:
        super().__init__(text)
        self.host = host


class ArchiveError(ConverterError):
    """An archive is broken, refused as unsafe, or does not hold a model."""

    exit_code = 6


class FormatError(ConverterError):
    """A model file breaks its format.

    Args:
        file: the file's name as the user knows it.
        problem: what is wrong, what was expected, and what to do.
        offset: byte offset at which the reader gave up, where there is one.
    """

    exit_code = 7

    def __init__(self, file: str, problem: str, offset: int | None = None) -> None:
        self.file, self.problem, self.offset = file, problem, offset
        where = "" if offset is None else f" at byte {offset}"
        super().__init__(f"{file}{where}: {problem}")


class MappingError(ConverterError):
    """The tensors do not fit the architecture, or no single architecture fits them."""

    exit_code = 8


class ParityError(ConverterError):
    """The PyTorch module does not compute what the Paddle program computes."""

    exit_code = 9


class PaddleError(ConverterError):
    """Paddle is missing, too old, crashed, or did not answer in time."""

    exit_code = 10


class OutputError(ConverterError):
    """A result could not be written; nothing half-written was left behind."""

    exit_code = 11


class SchedulerError(ConverterError):
    """The processes or machines that were to do the work could not be reached, or were lost."""

    exit_code = 12


class MissingPackageError(ConverterError):
    """A package that only this command needs is not installed."""

    exit_code = 13
