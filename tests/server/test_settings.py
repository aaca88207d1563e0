"""Settings: complete or refused with every fault named, composed from the older names, frozen, and with one secret."""

import multiprocessing
import re
import stat
from collections.abc import Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from aio_pika.connection import make_url as amqp_url
from pydantic import ValidationError
from redis.asyncio import ConnectionPool

from server.keys import secret_key
from server.settings import ConfigurationError, Settings, load_settings

PRODUCTION = {
    "SECRET_KEY": "s" * 32,
    "ENCRYPTION_KEY": "a" * 43 + "=",
    "DATABASE_URL": "postgresql://app:pw@db/app",
    "PUBLIC_URL": "https://erp.example.org",
    "SITE_URL_TEMPLATE": "https://{slug}.erp.example.org",
    "STRIPE_SECRET_KEY": "sk_live_x",
    "STRIPE_WEBHOOK_SECRET": "whsec_x",
    "SMTP_HOST": "smtp.example.org",
}


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Nothing of the machine's own environment is seen: neither its variables nor a `.env` where tests are started."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return iter([None])


def say(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)


class TestDefaults:
    def test_need_nothing_and_reach_out_to_nobody(self) -> None:
        settings = load_settings()
        assert (settings.environment, settings.host, settings.port) == ("development", "127.0.0.1", 8000)
        assert settings.development
        assert settings.embedded
        assert settings.public_base == "http://localhost:8000"
        assert settings.site_template == "http://localhost:8000/sites/{slug}"
        assert settings.data_dir == Path("var")
        assert settings.provisioning_recipe.is_file()
        for store in (settings.database_url, settings.redis_url, settings.rabbitmq_url):
            assert store.get_secret_value() == ""

    def test_are_those_of_the_contract(self) -> None:
        settings = load_settings()
        # contract.md 1.6, 2.1, 5.3 and 9.8.
        assert (settings.access_token_expire_minutes, settings.refresh_token_expire_days) == (15, 7)
        assert settings.provisioning_queue_name == "erpmax.provisioning"
        assert settings.allowed_origins == (
            "http://localhost:3000",
            "http://localhost:8000",
            "http://127.0.0.1:3000",
            "http://localhost:8080",
        )
        assert (settings.rate_auth_per_ip, settings.rate_auth_per_account) == ("10/minute", "10/minute;100/hour")
        assert settings.rate_sso_per_user == "10/minute"
        assert (settings.rate_webhooks_per_ip, settings.rate_user_total) == ("120/minute", "600/minute")
        assert settings.rate_phone_codes_per_ip == "5/minute"
        assert "3/10 minutes" in settings.rate_phone_codes_per_phone.split(";")

    def test_an_empty_variable_is_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        say(monkeypatch, PORT="", DATABASE_URL="", ALLOWED_ORIGINS="", LOG_LEVEL="")
        settings = load_settings()
        assert (settings.port, settings.embedded, settings.log_level) == (8000, True, "INFO")

    def test_a_file_beside_the_process_is_read_and_the_environment_wins(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / ".env").write_text("PORT=9001\nMAIL_FROM=Post <post@example.org>\nSOMETHING_ELSE=1\n")
        say(monkeypatch, PORT="9002")
        settings = load_settings()
        assert (settings.port, settings.mail_from) == (9002, "Post <post@example.org>")

    def test_the_command_line_wins_over_both(self, monkeypatch: pytest.MonkeyPatch) -> None:
        say(monkeypatch, PORT="9002")
        assert load_settings(port=9003).port == 9003


class TestForms:
    def test_lists_are_split_at_commas(self, monkeypatch: pytest.MonkeyPatch) -> None:
        say(
            monkeypatch,
            ALLOWED_ORIGINS=" https://a.example.org , https://b.example.org,, ",
            TRUSTED_PROXIES="10.0.0.0/8,::1",
        )
        settings = load_settings()
        assert settings.allowed_origins == ("https://a.example.org", "https://b.example.org")
        assert settings.trusted_proxies == ("10.0.0.0/8", "::1")

    def test_addresses_lose_their_last_slash(self, monkeypatch: pytest.MonkeyPatch) -> None:
        say(monkeypatch, PUBLIC_URL="https://erp.example.org/", STRIPE_API_BASE="http://127.0.0.1:1/")
        settings = load_settings()
        assert (settings.public_base, settings.stripe_api_base) == ("https://erp.example.org", "http://127.0.0.1:1")

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("PORT", "eighty"),
            ("PORT", "70000"),
            ("PASSWORD_HASH_MEMORY_KIB", "1"),
            ("PASSWORD_HASH_ROUNDS", "0"),
            ("ENVIRONMENT", "staging"),
            ("ACCESS_TOKEN_EXPIRE_MINUTES", "0"),
            ("ACCESS_TOKEN_EXPIRE_MINUTES", "721"),
            ("MAX_BODY_BYTES", "5"),
            ("SMTP_STARTTLS", "perhaps"),
            ("LOG_LEVEL", "LOUD"),
            ("LOG_FORMAT", "xml"),
            ("RATE_AUTH_PER_IP", "ten a minute"),
            ("RATE_AUTH_PER_IP", "10/minute;many"),
            ("RATE_PHONE_CODES_PER_PHONE", "3/10 minutes;many"),
            ("RATE_PHONE_CODES_PER_PHONE", "3/10 minutes;20/month"),
            ("TRUSTED_PROXIES", "the-balancer"),
        ],
    )
    def test_a_wrong_value_is_named(self, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
        """Whatever cannot work is refused when it is read, not by a traceback at the first request."""
        say(monkeypatch, **{name: value})
        with pytest.raises(ConfigurationError, match=name) as caught:
            load_settings()
        assert "docs/configuration.md" in str(caught.value)

    @pytest.mark.parametrize("bot", ["TELEGRAM_BOT", "MAX_BOT"])
    def test_a_bot_is_whole_or_not_there(self, monkeypatch: pytest.MonkeyPatch, bot: str) -> None:
        say(monkeypatch, **{f"{bot}_TOKEN": "1:token", f"{bot}_WEBHOOK_SECRET": "too short"})
        with pytest.raises(ConfigurationError, match=f"{bot}_USERNAME must.*{bot}_WEBHOOK_SECRET must be 16"):
            load_settings()
        say(monkeypatch, **{f"{bot}_USERNAME": "a_bot", f"{bot}_WEBHOOK_SECRET": "long-enough-to-be-one"})
        load_settings()

    @pytest.mark.parametrize("level", ["debug", "Info", "WARNING"])
    def test_log_levels_may_be_written_in_any_case(self, monkeypatch: pytest.MonkeyPatch, level: str) -> None:
        say(monkeypatch, LOG_LEVEL=level)
        assert load_settings().log_level == level.upper()

    def test_all_wrong_values_are_named_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        say(monkeypatch, PORT="eighty", ENVIRONMENT="staging")
        with pytest.raises(ConfigurationError) as caught:
            load_settings()
        assert "PORT" in str(caught.value)
        assert "ENVIRONMENT" in str(caught.value)

    def test_a_refusal_repeats_no_secret(self, monkeypatch: pytest.MonkeyPatch) -> None:
        say(monkeypatch, **{**PRODUCTION, "ENVIRONMENT": "production", "SECRET_KEY": "short-secret", "PORT": "x"})
        with pytest.raises(ConfigurationError) as caught:
            load_settings()
        for secret in ("short-secret", "sk_live_x", "whsec_x", "app:pw"):
            assert secret not in str(caught.value)


class TestProduction:
    def test_with_everything_named_it_starts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        say(monkeypatch, ENVIRONMENT="production", **PRODUCTION)
        settings = load_settings()
        assert not settings.development
        assert not settings.embedded
        assert secret_key(settings) == "s" * 32

    def test_with_nothing_named_it_names_everything(self, monkeypatch: pytest.MonkeyPatch) -> None:
        say(monkeypatch, ENVIRONMENT="production")
        with pytest.raises(ConfigurationError) as caught:
            load_settings()
        for name in PRODUCTION:
            assert f"{name} is missing" in str(caught.value)

    @pytest.mark.parametrize("missing", PRODUCTION)
    def test_each_missing_name_is_named_alone(self, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
        say(monkeypatch, ENVIRONMENT="production", **{**PRODUCTION, missing: ""})
        with pytest.raises(ConfigurationError) as caught:
            load_settings()
        assert re.findall(r"(\w+) is missing", str(caught.value)) == [missing]

    def test_a_short_secret_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        say(monkeypatch, ENVIRONMENT="production", **{**PRODUCTION, "SECRET_KEY": "s" * 31})
        with pytest.raises(ConfigurationError, match="SECRET_KEY must have at least 32 characters"):
            load_settings()

    def test_production_wants_passwords_that_are_dear_to_guess(self, monkeypatch: pytest.MonkeyPatch) -> None:
        say(monkeypatch, **{**PRODUCTION, "ENVIRONMENT": "production", "PASSWORD_HASH_MEMORY_KIB": "19455"})
        with pytest.raises(ConfigurationError, match="PASSWORD_HASH_MEMORY_KIB must be at least 19456"):
            load_settings()

    def test_open_origins_are_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        say(monkeypatch, ENVIRONMENT="production", ALLOWED_ORIGINS="*", **PRODUCTION)
        with pytest.raises(ConfigurationError, match="ALLOWED_ORIGINS"):
            load_settings()


class TestPaymentProviders:
    def test_another_provider_than_stripe_will_do(self, monkeypatch: pytest.MonkeyPatch) -> None:
        others = {name: value for name, value in PRODUCTION.items() if not name.startswith("STRIPE")}
        say(monkeypatch, ENVIRONMENT="production", LIQPAY_PUBLIC_KEY="i1", LIQPAY_PRIVATE_KEY="k", **others)
        assert load_settings().payment_providers == ("liqpay",)

    @pytest.mark.parametrize(
        ("given", "missing"),
        [
            ({"LIQPAY_PUBLIC_KEY": "i1"}, "LIQPAY_PRIVATE_KEY"),
            ({"PAYPAL_CLIENT_SECRET": "x"}, "PAYPAL_CLIENT_ID"),
            ({"BTCPAY_HOST": "https://b.example", "BTCPAY_API_KEY": "x"}, "BTCPAY_STORE_ID"),
            ({"COINBASE_BUSINESS_KEY_ID": "x"}, "COINBASE_BUSINESS_KEY_SECRET"),
        ],
    )
    def test_half_of_the_keys_is_refused(
        self, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], missing: str
    ) -> None:
        say(monkeypatch, **given)
        with pytest.raises(ConfigurationError, match=f"{missing} is missing, which {next(iter(given))} needs"):
            load_settings()

    def test_the_provider_that_is_meant_must_have_keys(self, monkeypatch: pytest.MonkeyPatch) -> None:
        say(monkeypatch, PAYMENT_PROVIDER="Coinbase")
        with pytest.raises(ConfigurationError, match="PAYMENT_PROVIDER is coinbase, whose keys are not given"):
            load_settings()
        say(monkeypatch, COINBASE_API_KEY="x")
        assert load_settings().payment_provider == "coinbase"

    def test_play_money_is_refused_in_production(self, monkeypatch: pytest.MonkeyPatch) -> None:
        say(monkeypatch, ENVIRONMENT="production", LIQPAY_SANDBOX="true", **PRODUCTION)
        with pytest.raises(ConfigurationError, match="LIQPAY_SANDBOX"):
            load_settings()


class TestMerchants:
    def test_the_contract_s_defaults(self) -> None:
        settings = load_settings()
        assert settings.platform_commission == 5
        assert not settings.merchant_private_hosts
        assert settings.previous_encryption_keys == ()

    @pytest.mark.parametrize("percent", ["0", "2.5", "100", "3.3333"])
    def test_the_commission_is_a_percentage(self, monkeypatch: pytest.MonkeyPatch, percent: str) -> None:
        say(monkeypatch, PLATFORM_COMMISSION=percent)
        assert str(load_settings().platform_commission) == percent

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("PLATFORM_COMMISSION", "-1"),
            ("PLATFORM_COMMISSION", "100.01"),
            ("PLATFORM_COMMISSION", "5%"),
            ("PLATFORM_COMMISSION", "nan"),
            ("PLATFORM_COMMISSION", "0.00001"),
            ("ENCRYPTION_KEY", "a secret of no use"),
            ("ENCRYPTION_KEY", "YQ=="),
            ("ENCRYPTION_KEY", "a" * 43 + "=," + "a" * 43 + "="),
            ("ENCRYPTION_KEY_PREVIOUS", "a" * 43 + "=,a secret of no use"),
            ("RATE_PAYMENTS_PER_TENANT", "many"),
        ],
    )
    def test_what_cannot_be_is_named_and_not_repeated(
        self, monkeypatch: pytest.MonkeyPatch, name: str, value: str
    ) -> None:
        say(monkeypatch, **{name: value})
        with pytest.raises(ConfigurationError, match=name) as caught:
            load_settings()
        assert "a secret of no use" not in str(caught.value)

    def test_several_keys_may_be_read_with(self, monkeypatch: pytest.MonkeyPatch) -> None:
        former = "b" * 43 + "="
        say(monkeypatch, ENCRYPTION_KEY="a" * 43 + "=", ENCRYPTION_KEY_PREVIOUS=f"{former},")
        assert load_settings().previous_encryption_keys == (former,)

    def test_production_lets_no_merchant_into_its_network(self, monkeypatch: pytest.MonkeyPatch) -> None:
        say(monkeypatch, ENVIRONMENT="production", MERCHANT_PRIVATE_HOSTS="true", **PRODUCTION)
        with pytest.raises(ConfigurationError, match="MERCHANT_PRIVATE_HOSTS"):
            load_settings()


class TestComposedUrls:
    """The first ancestor named Redis and RabbitMQ by host and password."""

    def test_redis_with_a_password_of_any_kind(self, monkeypatch: pytest.MonkeyPatch) -> None:
        say(monkeypatch, REDIS_HOST="cache", REDIS_PORT="6380", REDIS_PASSWORD="p@ss:w/rd%?#")
        options = ConnectionPool.from_url(load_settings().redis_url.get_secret_value()).connection_kwargs
        assert (options["host"], options["port"], options["password"]) == ("cache", 6380, "p@ss:w/rd%?#")

    def test_redis_without_a_password(self, monkeypatch: pytest.MonkeyPatch) -> None:
        say(monkeypatch, REDIS_HOST="cache")
        assert load_settings().redis_url.get_secret_value() == "redis://cache:6379/0"

    def test_rabbitmq_with_a_password_of_any_kind(self, monkeypatch: pytest.MonkeyPatch) -> None:
        say(monkeypatch, RABBITMQ_HOST="mq", RABBITMQ_USER="erp max", RABBITMQ_PASSWORD="p@ss:w/rd%?#")
        url = amqp_url(load_settings().rabbitmq_url.get_secret_value())
        assert (url.host, url.port, url.user, url.password) == ("mq", 5672, "erp max", "p@ss:w/rd%?#")

    def test_rabbitmq_without_a_password(self, monkeypatch: pytest.MonkeyPatch) -> None:
        say(monkeypatch, RABBITMQ_HOST="mq", RABBITMQ_PORT="5673")
        assert load_settings().rabbitmq_url.get_secret_value() == "amqp://guest:guest@mq:5673/"

    def test_a_url_wins(self, monkeypatch: pytest.MonkeyPatch) -> None:
        say(monkeypatch, REDIS_HOST="cache", REDIS_URL="redis://other/1")
        say(monkeypatch, RABBITMQ_HOST="mq", RABBITMQ_URL="amqp://other/")
        settings = load_settings()
        assert settings.redis_url.get_secret_value() == "redis://other/1"
        assert settings.rabbitmq_url.get_secret_value() == "amqp://other/"

    def test_a_password_alone_names_no_server(self, monkeypatch: pytest.MonkeyPatch) -> None:
        say(monkeypatch, REDIS_PASSWORD="x", RABBITMQ_PASSWORD="y", RABBITMQ_USER="z")
        settings = load_settings()
        assert not settings.redis_url.get_secret_value()
        assert not settings.rabbitmq_url.get_secret_value()


def test_settings_are_frozen() -> None:
    settings = load_settings()
    for name in ("port", "secret_key", "database_url"):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(settings, name, "x")


def test_settings_show_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    say(monkeypatch, REDIS_HOST="cache", REDIS_PASSWORD="redis-pw", SMTP_PASSWORD="smtp-pw", **PRODUCTION)
    shown = f"{load_settings()!r} {load_settings().model_dump()}"
    for secret in ("redis-pw", "smtp-pw", "sk_live_x", "whsec_x", "app:pw", "s" * 32, "a" * 43):
        assert secret not in shown


def test_a_wrong_value_is_not_called_a_missing_one(monkeypatch: pytest.MonkeyPatch) -> None:
    say(monkeypatch, PORT="99999")
    with pytest.raises(ConfigurationError, match=r"(?s)^The configuration is wrong or not complete:.*  PORT: .*65535"):
        load_settings()


class TestDevelopmentSecret:
    @pytest.mark.parametrize(("folder", "why"), [("file", "it is not a folder"), ("file/below", "not a directory")])
    def test_a_data_folder_that_cannot_be_is_named(self, tmp_path: Path, folder: str, why: str) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(ConfigurationError, match=f"DATA_DIR={tmp_path}/{folder} cannot be used: {why}"):
            secret_key(load_settings(data_dir=tmp_path / folder))

    def test_is_made_once_and_readable_by_its_owner_only(self, tmp_path: Path) -> None:
        settings = load_settings(data_dir=tmp_path / "new" / "var")
        secret = secret_key(settings)
        assert len(secret) >= 32
        assert secret_key(settings) == secret
        (path,) = (tmp_path / "new" / "var").iterdir()
        assert path.read_text() == secret
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_differs_from_folder_to_folder(self, tmp_path: Path) -> None:
        secrets = {secret_key(load_settings(data_dir=tmp_path / name)) for name in ("a", "b")}
        assert len(secrets) == 2

    def test_a_given_secret_writes_nothing(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        say(monkeypatch, SECRET_KEY="given")
        assert secret_key(load_settings(data_dir=tmp_path / "var")) == "given"
        assert not (tmp_path / "var").exists()

    def test_processes_that_start_at_once_agree(self, tmp_path: Path) -> None:
        spawn = multiprocessing.get_context("spawn")
        rounds, count = 20, 2
        barrier, told = spawn.Barrier(count), spawn.SimpleQueue()
        folders = [tmp_path / str(number) for number in range(rounds)]
        processes = [spawn.Process(target=_tell_secrets, args=(barrier, told, folders)) for _ in range(count)]
        for process in processes:
            process.start()
        answers = [told.get() for _ in processes]
        for process in processes:
            process.join(30)
            assert process.exitcode == 0
        assert answers[0] == answers[1]
        assert all(len(secret) >= 32 for secret in answers[0])
        for folder in folders:
            (path,) = folder.iterdir()
            assert stat.S_IMODE(path.stat().st_mode) == 0o600


def _tell_secrets(barrier: Barrier, told: "multiprocessing.queues.SimpleQueue[list[str]]", folders: list[Path]) -> None:
    secrets = []
    for folder in folders:
        settings = Settings(_env_file=None, data_dir=folder)
        barrier.wait(30)
        secrets.append(secret_key(settings))
    told.put(secrets)
