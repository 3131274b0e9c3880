"""`python -m trunkline` is `trunkline`."""

import sys

from trunkline.cli.main import main

sys.exit(main())
