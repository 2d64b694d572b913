"""`python -m ssd_zoo`."""

import sys

from ssd_zoo.cli.main import main

sys.exit(main())
