"""The package as others import it."""

import subprocess
import sys

import pytest

from providers.payments import split_secrets


def test_the_contract_loads_no_vendor() -> None:
    script = (
        "import sys, providers.payments, providers.payments.sandbox;"
        "print({'stripe', 'aiohttp', 'cryptography'} & sys.modules.keys())"
    )

    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert answer.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("setting", "secrets"),
    [(None, ()), ("", ()), (" , ", ()), ("whsec_a", ("whsec_a",)), ("whsec_b , whsec_a,", ("whsec_b", "whsec_a"))],
)
def test_several_secrets_in_one_setting(setting: str | None, secrets: tuple[str, ...]) -> None:
    assert split_secrets(setting) == secrets
