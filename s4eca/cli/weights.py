"""`s4eca weights fetch|verify`: a folder of weights and tokenizers for machines that do not reach the hub."""

from pathlib import Path
from typing import Annotated

import typer

HYDRA = {"allow_extra_args": True, "ignore_unknown_options": True}

weights = typer.Typer(help="Weights and tokenizers in one folder, for nodes without a network.", no_args_is_help=True)


@weights.command(context_settings=HYDRA)
def fetch(context: typer.Context) -> None:
    """Fetch what runs with these words take: s4eca weights fetch out=FOLDER vision=swin_base,swin_large text=bert_base.

    The words are those of train.py, and with model=dgl_rsis, clip=, grounding= or proposer= those of eval.py; none for
    the defaults, `all` for every shipped config. What is there and intact is not fetched again.
    """
    from s4eca.cache import readable
    from s4eca.cli.weights_words import wanted
    from s4eca.errors import S4ecaError
    from s4eca.overrides import plain_text, shell_word
    from s4eca.weights_folder import fetch_weights

    folders = [plain_text(word.partition("=")[2]) for word in context.args if word.startswith("out=")]
    words = [word for word in context.args if not word.startswith(("out=", "weights_folder="))]
    if len(folders) != 1 or not folders[0]:
        raise S4ecaError("there is no folder to fetch into; give one with out=FOLDER.")
    needs = wanted(words)
    if not needs:
        raise S4ecaError(f"{' '.join(words)} takes nothing from the hub: its weights are random or local.")
    kept = fetch_weights(needs, folders[0], typer.echo)
    size = sum(said["size"] for record in kept.records.values() for said in record.files.values())
    onward = shell_word("weights_folder", folders[0])
    typer.echo(f"{len(kept.records)} repositories, {readable(size)}; run from it with: {onward}")


@weights.command()
def verify(folder: Annotated[Path, typer.Argument(help="that `s4eca weights fetch` wrote")]) -> None:
    """Hash every file of a weights folder anew, and name what is damaged, missing or unknown (exit status 2)."""
    from s4eca.errors import S4ecaError
    from s4eca.overrides import shell_word
    from s4eca.weights_folder import read_folder, verify_folder
    from s4eca.weights_folder.manifest import UNFINISHED

    kept = read_folder(folder, "")
    counted: dict[str, int] = {}

    def tell(path: Path, state: str) -> None:
        counted[state] = counted.get(state, 0) + 1
        typer.echo(f"{state}  {path.relative_to(folder)}")

    wrong = verify_folder(kept, tell)
    if (folder / UNFINISHED).exists():
        typer.echo("a fetch into this folder was broken off; the same `s4eca weights fetch` goes on with it")
    for line in wrong:
        typer.echo(line)
    if wrong:
        raise S4ecaError(
            f"{len(wrong)} files of {folder} are not as they were fetched; fetch damaged and missing ones again with "
            f"`s4eca weights fetch {shell_word('out', folder)} …`, and take unknown ones out."
        )
    typer.echo(f"{counted.get('intact', 0)} files of {len(kept.records)} repositories are intact")
