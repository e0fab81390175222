"""What the command lines of both applications share: one group, the options that many commands take, the exit codes.

Exit codes: 0 done, 2 the user's input, 3 stopped but resumable, 1 a bug, which shows its traceback. Nothing heavy is
imported here, so that help, completion and wrong arguments are answered at once.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from mamba_configs.errors import UserError, addressed

__all__ = [
    "FILE",
    "Command",
    "Commands",
    "json_option",
    "overwrite_option",
    "print_result",
    "settings_options",
    "stop_on_sigterm",
]

CommandT = TypeVar("CommandT", bound=Callable[..., Any])

FILE = click.Path(path_type=Path)
"""The type of options that name a file or a folder."""

_JOINABLE = {"fasta", "positive", "negative", "bed", "valid", "test"}
"""Options whose files can be joined into one where somebody has several."""
_REFUSED_VALUE = re.compile(r"(?P<value>.+?) is not (?:in the range|a valid|one of|a valid)\b.*", re.DOTALL)


class Refused(click.ClickException):
    """An error that is addressed to people, as click shows it: one message on stderr, and an exit code."""

    def __init__(self, program: str, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.program = program
        self.__dict__["exit_code"] = exit_code  # click's own is one for the class

    def show(self, file: Any = None) -> None:
        """Print the message with the program's name before it."""
        click.echo(f"{self.program}: {self.message}", file=file, err=file is None)


class Command(click.Command):
    """A command that refuses an option given twice where only the last would count."""

    def make_parser(self, ctx: click.Context) -> Any:
        """The parser of the arguments, which looks for repeated options when it is done."""
        parser = super().make_parser(ctx)
        parse = parser.parse_args

        def parse_once_each(args: list[str]) -> Any:
            given = list(args)
            options, rest, order = parse(args)
            for param in dict.fromkeys(order):
                if isinstance(param, click.Option) and order.count(param) > 1 and _takes_one(param):
                    raise _repeated(param, given)
            return options, rest, order

        parser.parse_args = parse_once_each  # pyright: ignore[reportAttributeAccessIssue]
        return parser


class Commands(click.Group):
    """Turns errors that are addressed to people into one message and an exit code, and leaves bugs their traceback."""

    command_class = Command
    group_class = type

    def make_context(self, *args: Any, **options: Any) -> click.Context:
        """Read the arguments of the group itself."""
        try:
            return super().make_context(*args, **options)
        except click.UsageError as error:
            raise self._refused(error) from None

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, whatever becomes of it."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            # Whoever read our output has had enough; stdout must not be flushed again when Python leaves.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(0)
        except click.UsageError as error:
            raise self._refused(error) from None
        except (click.exceptions.Exit, click.ClickException):
            raise
        except (Exception, KeyboardInterrupt) as error:
            told = addressed(error)
            if told is None:
                raise
            message, code = told
            raise Refused(_program(ctx), message, code) from None
        return result

    def _refused(self, error: click.UsageError) -> click.ClickException:
        """The error of a wrong use in the words of all our errors; a group that is given nothing shows its help."""
        if isinstance(error, click.exceptions.NoArgsIsHelpError):
            return error
        told = addressed(in_our_words(error))
        assert told is not None, "a UserError is addressed to people"
        return Refused(self.name or "" if error.ctx is None else _program(error.ctx), *told)


def _program(ctx: click.Context) -> str:
    return str(ctx.find_root().info_name)


def in_our_words(error: click.UsageError) -> UserError:
    """What click says of wrong arguments, as the `UserError` that it is."""
    see = "--help shows what there is" if error.ctx is None else f"{error.ctx.command_path} --help shows what there is"
    message = error.format_message().rstrip(".")
    if isinstance(error, click.NoSuchOption):
        near = error.possibilities or ()
        fix = f"did you mean {' or '.join(sorted(near))}?" if near else see
        return UserError("there is no such option", found=error.option_name, fix=fix)
    if isinstance(error, click.MissingParameter) and error.param is not None:
        return UserError(f"{_name(error.param)} is missing", fix=see)
    if isinstance(error, click.BadParameter) and error.param is not None:
        refused = _REFUSED_VALUE.fullmatch(error.message)
        if refused is None:
            return UserError(f"{_name(error.param)}: {error.message.rstrip('.')}", accepted=_accepted(error.param))
        found = refused["value"].strip("'")
        return UserError(f"{_name(error.param)} cannot be this", found=found, accepted=_accepted(error.param))
    if (command := re.fullmatch(r"No such command '(.*?)'.*", message)) is not None:
        group = None if error.ctx is None else error.ctx.command
        names = list(group.commands) if isinstance(group, click.Group) else []
        near = difflib.get_close_matches(command[1], names, n=1)
        fix = f"did you mean {near[0]}?" if near else None
        return UserError("there is no such command", found=command[1], accepted=", ".join(names), fix=fix)
    return UserError(message[:1].lower() + message[1:], fix=see)


def _name(param: click.Parameter) -> str:
    if isinstance(param, click.Option):
        return param.opts[0]
    return param.metavar or str(param.name).upper()


def _accepted(param: click.Parameter) -> str | None:
    kind = param.type
    if isinstance(kind, click.Choice):
        return ", ".join(map(str, kind.choices))
    if isinstance(kind, click.IntRange | click.FloatRange):
        return f"a {'whole ' if isinstance(kind, click.IntRange) else ''}number{_bounds(kind)}"
    return {"integer": "a whole number", "float": "a number"}.get(kind.name)


def _bounds(kind: click.IntRange | click.FloatRange) -> str:
    """Where a number may lie, in words: ` above 0 and below 100`."""
    low = None if kind.min is None else f"{'above' if kind.min_open else 'from'} {kind.min:g}"
    high = None if kind.max is None else f"{'below' if kind.max_open else 'up to'} {kind.max:g}"
    words = " and ".join(filter(None, (low, high)))
    return f" {words}" if words else ""


def _takes_one(option: click.Option) -> bool:
    """Whether only the last of an option's values counts; a mere flag says the same however often it is said."""
    return not (option.multiple or option.count) and (not option.is_flag or bool(option.secondary_opts))


def _repeated(option: click.Option, given: Sequence[str]) -> UserError:
    names, values = (*option.opts, *option.secondary_opts), []
    for place, word in enumerate(given):
        name, equals, value = word.partition("=")
        if word in names and option.is_flag:
            values.append(word)
        elif word in names:
            values += given[place + 1 : place + 2]
        elif equals and name in names:
            values.append(value)
    fix = f"give {option.opts[0]} once"
    if option.name in _JOINABLE:
        fix += ", and join the files before: cat A B > BOTH (gzip files too)"
    return UserError(
        f"{option.opts[0]} is given {len(values)} times, and one is taken", found=", ".join(values), fix=fix
    )


def settings_options(command: CommandT) -> CommandT:
    """The options by which a command takes its configuration, as `config` and `overrides`."""
    for option in (
        click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change one setting; repeatable."),
        click.option("--config", metavar="NAME|FILE", help="A preset's name or a YAML file."),
    ):
        command = option(command)
    return command


json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on standard output.")
"""The option by which a program that reads the result says so, as `as_json`; see `print_result`."""


def overwrite_option(command: CommandT) -> CommandT:
    """The option by which existing outputs are replaced, as `overwrite`; `--force`, its former name, still works."""

    def also(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        if value:
            ctx.params["overwrite"] = True

    for option in (
        click.option("--force", is_flag=True, hidden=True, expose_value=False, callback=also),
        click.option("--overwrite", is_flag=True, is_eager=True, help="Replace outputs that exist already."),
    ):
        command = option(command)
    return command


def print_result(result: dict[str, Any], as_json: bool) -> None:
    """Print a command's result: its `text` for people, everything else for programs."""
    if as_json:
        click.echo(json.dumps({key: value for key, value in result.items() if key != "text"}, indent=2, default=str))
    elif result.get("text"):
        click.echo(result["text"])


def stop_on_sigterm() -> None:
    """Let SIGTERM unwind like Ctrl-C, so that temporary files are removed."""
    signal.signal(signal.SIGTERM, _terminated)


def _terminated(number: int, frame: Any) -> None:
    raise KeyboardInterrupt("SIGTERM")
