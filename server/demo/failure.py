"""How a step fails."""


class StepFailed(Exception):
    """What a step saw is not what it was promised; the message says what, for whoever started the demo."""


def expect(promise: object, otherwise: str) -> None:
    """Raise StepFailed with the text `otherwise` unless the promise holds."""
    if not promise:
        raise StepFailed(otherwise)
