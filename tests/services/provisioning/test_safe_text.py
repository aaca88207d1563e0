"""What commands print is shown to tenants without addresses, credentials and paths of the host."""

import pytest

from services.provisioning.safe_text import safe_text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("all is well", "all is well"),
        ("see https://acme.example.test/desk?x=/a/b", "see https://acme.example.test/desk?x=/a/b"),
        ("http://localhost:8000/sites/acme", "http://localhost:8000/sites/acme"),
        ("https://user:pw@git.internal/x.git", "[address]"),
        ("http://[broken", "[address]"),
        ("postgresql://root:pw@10.0.0.5:5432/main failed", "[address] failed"),
        ("(redis://cache/0)", "([address]"),
        ("host=db password=hunter2 dbname=x", "host=db password=[hidden] dbname=x"),
        ("DB_PASSWORD: 'two words' rest", "DB_PASSWORD=[hidden] rest"),
        ('api_token="abc"', "api_token=[hidden]"),
        ("/srv/data/sites/acme/site_config.json", "acme/site_config.json"),
        ("/srv/data/sites/acme", "acme"),
        ('File "/usr/lib/python3.11/asyncio/tasks.py", line 3', 'File "[path]", line 3'),
        ("error:/opt/erp/bench/run", "error:[path]"),
        ("cwd=/home/frappe/bench", "cwd=[path]"),
        ("ratio 3/4, either/or, 20/11/2026 and ./local/file", "ratio 3/4, either/or, 20/11/2026 and ./local/file"),
        ("go to /desk", "go to /desk"),
    ],
    ids=str,
)
def test_what_is_shown(text: str, shown: str) -> None:
    assert safe_text(text, site_name="acme") == shown
