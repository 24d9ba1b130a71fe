"""What schemathesis is told of the service: a key that a call is repeated with stands for one body."""

import re
import uuid

import schemathesis


@schemathesis.hook
def before_call(context, case, kwargs):  # type: ignore[no-untyped-def]
    """Give each call a key of its own where it carries a well-formed one."""
    key = case.headers.get("Idempotency-Key")
    if isinstance(key, str) and re.fullmatch("[!-~]{1,200}", key):
        case.headers["Idempotency-Key"] = uuid.uuid4().hex
