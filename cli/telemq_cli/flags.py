"""Turns the settings table into command-line flags, so that no flag is written twice."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Iterator
from typing import Annotated, Any, TypeVar

import typer

from telemq.setting import SettingInfo, rows
from telemq.settings import Common
from telemq_cli.outcome import outcome
from telemq_cli.unknown import tell_unknown_variables

__all__ = ["command", "environment"]

S = TypeVar("S", bound=Common)


def command(
    app: typer.Typer,
    name: str,
    kind: type[S],
    *,
    without: Collection[str] = (),
    logs: bool = False,
) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Make a command of a function that takes settings and gives an exit code.

    The function is called with an instance of `kind` as ``settings``, made from flags and
    variables, and with whatever else its own signature asks for.

    Args:
        app: gets the command.
        name: of the command.
        kind: whose rows become flags.
        without: names of rows that mean nothing here.
        logs: the function sets up the log and tells there which variables are not known; of the
            others, whose standard output is an answer, standard error has it.
    """

    def decorate(function: Callable[..., int]) -> Callable[..., int]:
        # The flags of the table come last: what is special to a command is read first.
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        flags = list(_parameters(kind, without))
        names = {flag.name for flag in flags}

        @functools.wraps(function)
        def called(**given: Any) -> None:
            values = {key: given.pop(key) for key in names}
            level = values.get("log_level", "info")
            if not logs and level != "error":
                tell_unknown_variables()
            code = outcome(
                lambda: function(settings=kind(**values), **given), debug=level == "debug"
            )
            raise typer.Exit(code)

        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + flags
        called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # PEP 362
        called.__annotations__ = {p.name: p.annotation for p in parameters}
        app.command(name)(called)
        return function

    return decorate


def environment(settings: Common) -> dict[str, str]:
    """Give the variables that make the same settings again in another process."""
    values = {info.variable: getattr(settings, info.name) for info in rows(type(settings))}
    return {
        name: str(int(value)) if isinstance(value, bool) else str(value)
        for name, value in values.items()
    }


def _parameters(kind: type[Common], without: Collection[str]) -> Iterator[inspect.Parameter]:
    # What is special to a component first, then what all share.
    for info in sorted(rows(kind), key=lambda info: info.component == ""):
        if info.name in without:
            continue
        option = typer.Option(
            info.flag,
            envvar=info.variable,
            help=_help(info),
            autocompletion=_choices(info.choices) if info.choices else None,
            show_default=not info.secret and info.default != "" and info.type is not bool,
        )
        yield inspect.Parameter(
            info.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=info.default,
            annotation=Annotated[info.type, option],
        )


def _choices(choices: tuple[str, ...]) -> Callable[[], list[str]]:
    return lambda: list(choices)


def _help(info: SettingInfo) -> str:
    text = info.help
    if info.choices or info.low is not None:
        text += f" ({info.accepted})"
    if info.secret:
        text += " Better given by the variable: others can read a command line."
    return text
