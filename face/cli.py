"""The command line: `paddle2torch`, or `python -m paddle2torch`.

Results go to stdout, progress and notes to stderr. What a command needs is imported when it runs, so that `--help`
and `list` need neither torch nor paddle.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from paddle2torch.converter import __version__
from paddle2torch.converter.cli import downloads, export, models, publish, verify, zoo
from paddle2torch.converter.support.errors import ConverterError
from paddle2torch.converter.support.interrupts import remembered
from paddle2torch.converter.support.processes import safe_variables
from paddle2torch.converter.support.terminal import clean_output, message
from paddle2torch.reading.command import read

INTERRUPTED = 130
COMMANDS = (
    zoo.list_command,
    zoo.info,
    downloads.download,
    models.inspect,
    models.convert,
    verify.verify,
    publish.publish,
    export.export,
    read,
    models.compare,
    downloads.cache,
    zoo.zoo_group,
)


class Group(click.Group):
    """Turns our errors into one message and an exit code, unless --debug asks for the traceback; cleans all output."""

    def main(self, *args: Any, **extra: Any) -> Any:
        with clean_output():
            return super().main(*args, **extra)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        with _one_message():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with remembered(), _one_message():
                return super().invoke(ctx)
        except ConverterError as error:
            if ctx.params.get("debug"):
                raise
            click.echo(message(f"error: {error}"), err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(INTERRUPTED)
        finally:
            # Registered last, it runs first: before PyTorch tidies up, which it cannot be interrupted in quietly.
            atexit.unregister(_ignore_interrupts)
            atexit.register(_ignore_interrupts)


@contextmanager
def _one_message() -> Iterator[None]:
    """Let no line of what the user gave pass for a message of its own."""
    try:
        yield
    except click.ClickException as error:
        vars(error)["message"] = message(error.message)
        raise


def _ignore_interrupts() -> None:
    """All is done, and what is left takes no time."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class NoteFormatter(logging.Formatter):
    """Library notes as a person reads them: `warning: …`, or plain text for information."""

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        return message(f"{record.levelname.lower()}: {text}" if record.levelno >= logging.WARNING else text)


# With colour, so that click lets escape sequences through to the stream that spells them out.
@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "color": True})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(__version__, prog_name="paddle2torch")
def main(debug: bool) -> None:
    """Take PaddleOCR weights to PyTorch, with proof.

    \b
    Examples:
      paddle2torch list --task rec
      paddle2torch convert ch_PP-OCRv3_rec
      paddle2torch convert my_model/best_accuracy.pdparams --dict my_dict.txt
    """
    # Processes that are started from here do not look for modules in the working folder either.
    os.environ.update(safe_variables())
    handler = logging.StreamHandler()
    handler.setFormatter(NoteFormatter())
    logger = logging.getLogger("paddle2torch")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)


for command in COMMANDS:
    main.add_command(command)
