"""What was typed and not understood, said in our words: cyclopts' own speak of tokens."""

from __future__ import annotations

from cyclopts import CycloptsError
from cyclopts.exceptions import UnknownCommandError, UnusedCliTokensError

from ..base.errors import only_near


def in_our_words(refusal: CycloptsError) -> str:
    """The sentence for a refusal of the command line."""
    chain = [word for word in refusal.command_chain or () if word != "farwrite"]
    command = " ".join(["farwrite", *chain])
    if isinstance(refusal, UnusedCliTokensError):
        words = refusal.unused_tokens or []
        listed = " ".join(words)
        return f'"{listed}" {"is one word" if len(words) == 1 else "are words"} too many: see "{command} --help".'
    if isinstance(refusal, UnknownCommandError):
        word = (refusal.unused_tokens or [""])[0]
        known = commands_of(refusal)
        near = only_near(word, known) or f" (known: {', '.join(known)})"
        return f'there is no command "{" ".join([*chain, word])}"{near}.'
    return str(refusal)


def commands_of(refusal: CycloptsError) -> list[str]:
    """The commands that there are where one was asked for."""
    if refusal.app is None:
        return []
    return [name for name in refusal.app if not name.startswith("-") and refusal.app[name].show]
