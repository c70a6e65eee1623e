"""The errors that are part of the interface."""

from __future__ import annotations


class UserError(Exception):
    """Something a user can mend: the message names the thing and the way out.

    Commands print the message without a traceback; every room derives its own from it.
    """
