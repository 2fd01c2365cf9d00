"""How everything here ends that cannot go on."""


def fail(message):
    """One line on standard error, and exit status 1."""
    raise SystemExit(" ".join(str(message).split()))


def reason(error):
    """Why the system refused, in its words."""
    return getattr(error, "strerror", None) or error
