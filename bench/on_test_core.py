"""tssd whose custodian is built around the test build of the core that TSSD_TEST_CORE names; arguments as for tssd.

    TSSD_TEST_CORE=portable python bench/on_test_core.py ARGUMENTS-OF-TSSD...

Started with `--custodian` in front, it is that custodian, with its arguments.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


class TestCustodian(subprocess.Popen[bytes]):
    """What tssd starts as its custodian."""

    def __init__(self, command: list[str], **options: Any) -> None:  # noqa: ANN401  Popen's
        super().__init__([command[0], __file__, "--custodian", *command[4:]], **options)


if sys.argv[1] == "--custodian":
    from tests.tss_cffi import seeded

    seeded.take_its_place()  # before anything else brings the core up
    from daemon.custody import custodian

    custodian.main(sys.argv[2:])
else:
    from daemon import __main__ as tssd

    setattr(subprocess, "Popen", TestCustodian)  # noqa: B010  for this program, which starts nothing else
    sys.exit(tssd.main(sys.argv[1:]))
