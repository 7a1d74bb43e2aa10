"""`tidings`: every command in one group, and what their mistakes look like.

Exit codes: 0 it is done, 1 it could not be done, 2 the command or a setting is wrong, 3 please restart me. A
mistake is told in a line or two, never as a traceback.
"""

from __future__ import annotations

import errno
import os
import sys

import click

from tidings.cli.alert import alert
from tidings.cli.as_of import as_of
from tidings.cli.demo import demo
from tidings.cli.doctor import doctor
from tidings.cli.emit import emit
from tidings.cli.notify import notify
from tidings.cli.rebuild import rebuild
from tidings.cli.replay import replay
from tidings.cli.roles import gateway, sender, worker, wrapper
from tidings.cli.token import token
from tidings.cli.topics import topics
from tidings.cli.up import up
from tidings.cli.verify import verify
from tidings.cli.why import why


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="tidings")
def cli() -> None:
    """Tells people what happened to the things they care about.

    `tidings up` runs everything on this machine. Settings come from TIDINGS_* variables or from tidings.toml in the
    working directory (the same names, small and without TIDINGS_); commands find a running `tidings up` by its
    --data directory.
    """


for command in (
    up,
    worker,
    gateway,
    sender,
    wrapper,
    topics,
    emit,
    notify,
    token,
    alert,
    replay,
    rebuild,
    verify,
    why,
    as_of,
    demo,
    doctor,
):
    cli.add_command(command)


def main() -> None:
    """The program; ends the process."""
    try:
        code = cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as mistake:
        mistake.show()
        sys.exit(mistake.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        if error.errno != errno.EPIPE:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # `| head` has seen enough
        sys.exit(0)
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
