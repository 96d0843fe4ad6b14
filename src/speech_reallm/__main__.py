"""`python -m speech_reallm` is `reallm`."""

import sys

from .cli.main import main

sys.exit(main())
