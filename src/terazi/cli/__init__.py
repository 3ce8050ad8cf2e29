"""The command line: one file per command, imported only when that command is used."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import threading
from importlib import import_module

import click

from terazi.errors import TeraziError

__all__ = ["main"]

# Section -> command -> module of this package. Each module has one click command called `command`.
COMMANDS: dict[str, dict[str, str]] = {
    "Choose": {"optimize": "optimize", "compare": "compare"},
    "Look": {
        "inspect": "inspect",
        "types": "types",
        "devices": "devices",
        "use-cases": "use_cases",
        "doctor": "doctor",
    },
    "Make": {"convert": "convert", "calibrate": "calibrate", "quantize": "quantize", "create": "create"},
    "Measure": {"evaluate": "evaluate"},
    "Keep": {
        "catalog": "catalog",
        "pull": "pull",
        "list": "list",
        "show": "show",
        "tag": "tag",
        "remove": "remove",
        "push": "push",
        "verify": "verify",
    },
    "Use": {"run": "run", "serve": "serve"},
}


class Commands(click.Group):
    """The top-level group: finds commands by name and lists them by section."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return every command in the order of the sections."""
        return [name for section in COMMANDS.values() for name in section]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of one command."""
        for section in COMMANDS.values():
            if cmd_name in section:
                return import_module(f"terazi.cli.{section[cmd_name]}").command
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List commands with one line each, by section."""
        for title, section in COMMANDS.items():
            with formatter.section(title):
                rows = []
                for name in section:
                    found = self.get_command(ctx, name)
                    assert found is not None
                    rows.append((name, found.get_short_help_str(70)))
                formatter.write_dl(rows)


@click.command(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Start with: terazi optimize smollm2:135m --device this-machine --use-case chat",
)
@click.version_option(package_name="terazi")
def terazi() -> None:
    """Weigh a model's size, speed, memory and quality, and get the variant that fits your device."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 usage, 3 a limit was not met, 130 interrupted."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # cleans up as Ctrl-C does
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names may be no text
    try:
        code = terazi.main(arguments, prog_name="terazi", standalone_mode=False)
        sys.stdout.flush()
    except TeraziError as error:
        _complain(error.message, error.hint)
        code = error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        code = error.exit_code
    except click.ClickException as error:
        asked = error.ctx if isinstance(error, click.UsageError) else None
        _complain(error.format_message(), f"{asked.command_path} --help" if asked else None)
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        _complain("interrupted", "run the same command again to continue")
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the last flush complains
        code = 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        _complain(f"{where}{error.strerror or error}", "make room or choose another output" if full else None)
        code = 1
    except MemoryError:
        _complain("out of memory", "close other programs or use a smaller model")
        code = 1
    sys.exit(code if isinstance(code, int) else 0)


def _complain(message: str, hint: str | None) -> None:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    if hint:
        print(f"hint: {hint}", file=sys.stderr)
