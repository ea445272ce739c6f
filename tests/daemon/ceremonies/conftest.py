from __future__ import annotations

import pytest
import trio

from tests.daemon.ceremonies.committee import Template, make_template


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    """Nodes that pinned one another and hold a 2-of-3 key; made once."""
    return trio.run(make_template, tmp_path_factory.mktemp("template"))
