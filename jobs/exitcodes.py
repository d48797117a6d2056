"""Exit codes of the management commands, after <sysexits.h>."""

#: The command did what it was told to.
OK = 0
#: A fault of our own.
SOFTWARE = 70
#: The database does not answer. Trying again later may help.
TEMPFAIL = 75
#: It cannot work as it is configured.
CONFIG = 78
