"""``python -m asterisk COMMAND``: the command `asterisk`."""

import sys

from asterisk.cli.main import main

sys.exit(main())
