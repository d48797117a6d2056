"""Run a command once what it needs is there, and end with its exit code.

    python -m devtools.services run -- COMMAND …
    python -m devtools.services with PROGRAM PACKAGE -- COMMAND …

The first brings every service of the tests, the second one program of a Debian package.
"""

import sys

from devtools.services.run import run_with_program, run_with_services


def main(arguments: list[str]) -> int:
    match arguments:
        case ["run", "--", *command] if command:
            return run_with_services(command)
        case ["with", program, package, "--", *command] if command:
            return run_with_program(program, package, command)
    sys.stderr.write(str(__doc__))
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
