"""The one exception that a user's input can cause."""


class UserError(Exception):
    """Something a user can put right. The message is one line and says what to do."""
