"""Downloaded files: download, cache list, cache clean."""

from __future__ import annotations

from pathlib import Path

import click

from paddle2torch.converter.cli.common import KINDS, as_json, fetching, listing, note, open_zoo, print_json
from paddle2torch.converter.conversion.choice import Access
from paddle2torch.converter.support.errors import SourceError


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--kind", "kinds", type=click.Choice(KINDS), multiple=True, help="Which tarballs.  [default: inference]")
@click.option("--jobs", type=click.IntRange(1, 32), default=4, show_default=True, help="Downloads at a time.")
@click.option("--accept-changed", is_flag=True, help="Take a file that differs from the one seen before.")
@fetching
def download(
    names: tuple[str, ...],
    kinds: tuple[str, ...],
    jobs: int,
    accept_changed: bool,
    access: Access,
) -> None:
    """Fetch tarballs into the cache, and print where they lie."""
    zoo = open_zoo()
    artifacts = []
    for name in names:
        model = zoo.get(name)
        for kind in kinds or ("inference",):
            if kind not in model.artifacts:
                raise SourceError(
                    f"{name}: the zoo lists no {kind} tarball for it; it lists: {', '.join(model.artifacts)}"
                )
            artifacts.append(model.artifacts[kind])
    for fetched in access.fetcher(accept_changed=accept_changed).fetch_all(artifacts, jobs=jobs):
        click.echo(fetched.path)


@click.group()
def cache() -> None:
    """Look after downloaded files."""


located = click.option("--cache", "folder", type=click.Path(path_type=Path, file_okay=False), help="Another folder.")


@cache.command("list")
@located
@as_json
def cache_list(folder: Path | None, as_json: bool) -> None:
    """List the downloaded files, unfinished ones too."""
    from paddle2torch.converter.zoo.cache import Cache

    entries = Cache(folder).entries()
    if as_json:
        print_json([{"url": e.url, "path": str(e.path), "size": e.size, "complete": bool(e.record)} for e in entries])
        return
    listing(f"{entry.size:>12,}  {entry.url}" + ("" if entry.record else "  (unfinished)") for entry in entries)
    note(f"{len(entries)} files, {sum(entry.size for entry in entries):,} bytes in {Cache(folder).folder}")


@cache.command("clean")
@click.argument("words", nargs=-1, metavar="[WORD]...")
@click.option("--forget", is_flag=True, help="Forget the first seen hashes too.")
@located
def cache_clean(words: tuple[str, ...], forget: bool, folder: Path | None) -> None:
    """Remove downloaded files, all or those whose URL has one of the WORDs.

    The hash that a URL was first seen with stays known, so that a changed file is still noticed.
    """
    from paddle2torch.converter.zoo.cache import Cache

    removed = Cache(folder).clean(lambda entry: not words or any(word in entry.url for word in words), forget=forget)
    note(f"removed {len(removed)} files, {sum(entry.size for entry in removed):,} bytes")
