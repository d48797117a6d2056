"""Run a command with every service that the tests need, and end with its exit code.

python -m devtools.services run -- COMMAND …
"""

import sys

from devtools.services.run import run_with_services

if __name__ == "__main__":
    if sys.argv[1:3] != ["run", "--"] or not sys.argv[3:]:
        sys.exit(__doc__)
    sys.exit(run_with_services(sys.argv[3:]))
