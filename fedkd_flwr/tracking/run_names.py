"""Names of runs that were given none."""

from datetime import datetime
from uuid import uuid4


def fresh_run_name() -> str:
    """When the run began, and what tells it from others of the same second."""
    return f"{datetime.now():%Y-%m-%d-%H%M%S}-{uuid4().hex[:6]}"
