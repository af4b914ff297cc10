"""One profile for all property tests: the same examples at every run, and no time limit on a shared machine.

To look for new examples, run ``HYPOTHESIS_PROFILE=explore python -m pytest``.
"""

import os

from hypothesis import settings

settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))
