"""The command line, `orchestrator <command>`; `orchestrator --help` lists the commands."""

import argparse
import asyncio
import getpass
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack

from alembic.util import CommandError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.errors import DomainError
from core.logging import configure_logging
from handlers.forms import NewEmail
from providers.provisioning.recipe import RecipeError
from server import processes
from server.check import report
from server.database import SchemaOutdated, downgrade, migrate
from server.demo import play
from server.messengers import open_roads
from server.seed import DEMO_ACCOUNTS, seed
from server.settings import ConfigurationError, Settings, load_settings
from server.stores import StoreAway, open_database
from server.version import VERSION
from server.wiring import Part, build
from services.tenants import TenantService
from services.unit_of_work import PlatformScope, RequestTrace, UnitOfWork

try:
    import uvloop
except ImportError:
    # uvloop does not exist on every platform; the standard loop does the same, more slowly.
    new_event_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
else:
    new_event_loop = uvloop.new_event_loop

Command = Callable[[argparse.Namespace, Settings], Coroutine[object, object, int]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code: 0 when all went well, 1 for a failure, 2 for a wrong call."""
    options = _parser().parse_args(arguments)
    command: Command = options.command
    try:
        settings = _settings(options)
        configure_logging(
            level=settings.log_level, as_json=(settings.log_format or _default_log_format(settings)) == "json"
        )
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            sys.exit(runner.run(command(options, settings)))
    except (ConfigurationError, StoreAway, SchemaOutdated, RecipeError, CommandError, OSError) as error:
        print(f"orchestrator: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _default_log_format(settings: Settings) -> str:
    return "console" if settings.development else "json"


def _settings(options: argparse.Namespace) -> Settings:
    overrides = {name: getattr(options, name, None) for name in ("host", "port")}
    return load_settings(**{name: value for name, value in overrides.items() if value is not None})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="orchestrator", description="ERPMax Orchestrator")
    parser.add_argument("--version", action="version", version=VERSION)
    commands = parser.add_subparsers(required=True, metavar="command")

    def add(name: str, command: Command, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=command)
        return sub

    sub = add("serve", _serve, "serve HTTP and Socket.IO; without RABBITMQ_URL also run the worker and the scheduler")
    sub.add_argument("--host", help="address to listen on (HOST)")
    sub.add_argument("--port", type=int, help="port to listen on (PORT)")
    sub.add_argument("--migrate", action="store_true", help="migrate the database first")
    sub.add_argument("--seed", action="store_true", help="write plans and demo accounts first")
    add("worker", _worker, "run tasks from the queue (needs RABBITMQ_URL)")
    add("scheduler", _scheduler, "send the periodic tasks (needs RABBITMQ_URL)")
    sub = add("migrate", _migrate, "bring the database to a revision")
    sub.add_argument("revision", nargs="?", default="head", help="head (default), base or a revision's name")
    add("seed", _seed, "write the plans and, outside production, the demo accounts")
    sub = add("create-superuser", _create_superuser, "create a platform administrator")
    sub.add_argument("email")
    sub.add_argument("--full-name", default="Administrator")
    sub = add("reset-second-factor", _reset_second_factor, "switch off the second factor of somebody who has lost it")
    sub.add_argument("login", help="the account's e-mail address or phone")
    sub.add_argument("--reason", required=True, help="why, for the audit log and for the account's owner")
    sub = add("suspend-tenant", _suspend_tenant, "close a tenant to its people, and end their sockets")
    sub.add_argument("slug")
    sub.add_argument("--reason", required=True, help="why, for the audit log")
    sub = add("reinstate-tenant", _reinstate_tenant, "open a suspended tenant again")
    sub.add_argument("slug")
    add(
        "verify-audit",
        _verify_audit,
        "compute every seal of the audit anew; fails when an entry was changed or removed",
    )
    sub = add("reconcile", _reconcile, "compare everything that a payment provider holds with what the server holds")
    sub.add_argument("--provider", required=True, help="the provider's name, such as stripe")
    add("rotate-keys", _rotate_keys, "seal the keys of merchants anew with ENCRYPTION_KEY, while others go on")
    add("register-bots", _register_bots, "tell the messengers where the webhooks of the bots are (PUBLIC_URL)")
    add("check-config", _check, "check the settings and reach every store they name")
    sub = add("demo", _demo, "play the main job against a running server")
    sub.add_argument("--url", help="address of the server (PUBLIC_URL)")
    return parser


async def _serve(options: argparse.Namespace, settings: Settings) -> int:
    await processes.serve(settings, migrate_first=options.migrate, seed_first=options.seed, announce=_announce)
    return 0


def _announce(settings: Settings, seeded: bool) -> None:  # noqa: FBT001 - a callback's arguments are positional
    base = settings.public_base
    lines = [
        f"ERPMax Orchestrator {VERSION} is running ({settings.environment})",
        f"  API        {base}/api/v1      docs  {base}/docs   {base}/redoc",
        f"  Socket.IO  {base}/socket.io/  events  {base}/asyncapi.json",
        f"  Dashboard  {base}/dashboard",
    ]
    if settings.development and seeded:
        lines += [f"  Sign in    {email} / {password}" for email, password, *_ in DEMO_ACCOUNTS]
    print("\n".join(lines), flush=True)


def _needs_queue(settings: Settings) -> None:
    if not settings.rabbitmq_url.get_secret_value():
        raise ConfigurationError("RABBITMQ_URL is not set: without a queue, `orchestrator serve` does this work itself")


async def _worker(_: argparse.Namespace, settings: Settings) -> int:
    _needs_queue(settings)
    await processes.work(settings)
    return 0


async def _scheduler(_: argparse.Namespace, settings: Settings) -> int:
    _needs_queue(settings)
    await processes.schedule(settings)
    return 0


async def _migrate(options: argparse.Namespace, settings: Settings) -> int:
    async with open_database(settings) as engine:
        if options.revision == "base":
            await downgrade(engine, "base")
        else:
            await migrate(engine, options.revision)
    return 0


async def _seed(_: argparse.Namespace, settings: Settings) -> int:
    async with open_database(settings) as engine, build(settings, engine, Part()) as house:
        await seed(house.units, house.services, demo=settings.development, sites=settings.demo_sites)
    return 0


class _Superuser(BaseModel):
    """What is asked of a platform administrator, as of anybody who signs up."""

    model_config = ConfigDict(hide_input_in_errors=True)

    email: NewEmail
    password: str = Field(min_length=8)
    full_name: str = Field(min_length=1, max_length=255)


_CLI = RequestTrace(source="cli")
# What the fields of _Superuser are called by whoever calls the command.
_ASKED_BY = {"email": "e-mail address", "password": "password (SUPERUSER_PASSWORD)", "full_name": "--full-name"}


def _ask_password() -> str:
    """Ask for a password, or take the line that is piped in where nobody can be asked; empty if there is none."""
    return getpass.getpass("Password: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")


async def _create_superuser(options: argparse.Namespace, settings: Settings) -> int:
    password = os.environ.get("SUPERUSER_PASSWORD") or await asyncio.to_thread(_ask_password)
    if not password:
        print("orchestrator: no password: set SUPERUSER_PASSWORD, or run this in a terminal", file=sys.stderr)
        return 1
    try:
        form = _Superuser(email=options.email, password=password, full_name=options.full_name)
        async with (
            open_database(settings) as engine,
            build(settings, engine, Part()) as house,
            house.units(PlatformScope("the command line creates platform people")) as uow,
        ):
            await house.services.auth.create_superuser(uow, **form.model_dump())
    except ValidationError as error:
        for problem in error.errors():
            print(f"orchestrator: {_ASKED_BY[str(problem['loc'][0])]}: {problem['msg']}", file=sys.stderr)
        return 1
    except DomainError as error:
        print(f"orchestrator: {error}", file=sys.stderr)
        return 1
    return 0


async def _reset_second_factor(options: argparse.Namespace, settings: Settings) -> int:
    try:
        async with (
            open_database(settings) as engine,
            build(settings, engine, Part()) as house,
            house.units(PlatformScope("the command line acts for the platform"), trace=_CLI) as uow,
        ):
            await house.services.platform.second_factors.reset_by_command(
                uow, login=options.login, reason=options.reason
            )
    except DomainError as error:
        print(f"orchestrator: {error}", file=sys.stderr)
        return 1
    print(f"the second factor of {options.login} is switched off, and every session ended")
    return 0


async def _suspend_tenant(options: argparse.Namespace, settings: Settings) -> int:
    async def suspend(tenants: TenantService, uow: UnitOfWork) -> str:
        changed = await tenants.suspension.suspend(uow, slug=options.slug, reason=options.reason)
        return "is suspended" if changed else "was suspended already"

    return await _with_tenant(options, settings, suspend)


async def _reinstate_tenant(options: argparse.Namespace, settings: Settings) -> int:
    async def reinstate(tenants: TenantService, uow: UnitOfWork) -> str:
        changed = await tenants.suspension.reinstate(uow, slug=options.slug)
        return "is open again" if changed else "is not suspended"

    return await _with_tenant(options, settings, reinstate)


async def _with_tenant(
    options: argparse.Namespace, settings: Settings, deed: Callable[[TenantService, UnitOfWork], Awaitable[str]]
) -> int:
    """Do something to the tenant that the command line names, and say how it stands then."""
    try:
        async with (
            open_database(settings) as engine,
            build(settings, engine, Part()) as house,
            house.units(PlatformScope("the command line acts for the platform")) as uow,
        ):
            outcome = await deed(house.services.tenants, uow)
    except DomainError as error:
        print(f"orchestrator: {error}", file=sys.stderr)
        return 1
    print(f"{options.slug} {outcome}")
    return 0


async def _verify_audit(_: argparse.Namespace, settings: Settings) -> int:
    async with (
        open_database(settings) as engine,
        build(settings, engine, Part()) as house,
        house.units(PlatformScope("the command line verifies everybody's audit")) as uow,
    ):
        verdict = await house.services.audit.verify(uow)
    for fault in verdict.faults:
        print(f"orchestrator: {fault}", file=sys.stderr)
    print(f"{verdict.entries} entries in {verdict.chains} chains, digest {verdict.digest}")
    return 1 if verdict.faults else 0


async def _reconcile(options: argparse.Namespace, settings: Settings) -> int:
    scope = PlatformScope("the command line acts for the platform")
    try:
        async with open_database(settings) as engine, build(settings, engine, Part()) as house:
            reconciling = house.services.reconciling
            async with house.units(scope) as uow:
                begun = await reconciling.begin(uow, options.provider)
            # Carried out here, so that it can be waited for; what is found goes to the inbox, which the workers empty.
            await reconciling.run(begun.id)
            async with house.units(scope) as uow:
                view = await reconciling.view(uow, begun.id)
    except DomainError as error:
        print(f"orchestrator: {error}", file=sys.stderr)
        return 1
    if view.last_error is not None:
        # It goes on by itself: the scheduler rings for what is left.
        print(f"orchestrator: {view.provider}: {view.last_error}", file=sys.stderr)
        return 1
    print(f"{view.provider} is {view.state}: {view.checked} checked, {view.found} found that nobody had told")
    return 0


async def _rotate_keys(_: argparse.Namespace, settings: Settings) -> int:
    async with open_database(settings) as engine, build(settings, engine, Part()) as house:
        rotated = await house.services.merchants.rotation.run()
    print(f"{rotated.renewed} sealed anew")
    if rotated.unreadable:
        print(
            f"orchestrator: {rotated.unreadable} cannot be opened: ENCRYPTION_KEY_PREVIOUS lacks their key",
            file=sys.stderr,
        )
    return 1 if rotated.unreadable else 0


async def _register_bots(_: argparse.Namespace, settings: Settings) -> int:
    async with AsyncExitStack() as stack:
        bots = open_roads(settings, stack).bots
        if not bots:
            print("orchestrator: no bot is set up; see TELEGRAM_BOT_TOKEN and MAX_BOT_TOKEN", file=sys.stderr)
            return 1
        for messenger, bot in bots.items():
            url = f"{settings.public_base}/api/v1/messengers/{messenger}/webhook"
            try:
                await bot.set_webhook(url)
            except DomainError as error:
                print(f"orchestrator: {messenger}: {error}", file=sys.stderr)
                return 1
            print(f"{messenger}: {url}")
    return 0


async def _check(_: argparse.Namespace, settings: Settings) -> int:
    return await report(settings)


async def _demo(options: argparse.Namespace, settings: Settings) -> int:
    return await play(options.url or settings.public_base)
