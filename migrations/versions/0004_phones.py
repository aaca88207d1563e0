"""Phones: people known by a number, codes that prove it, and the messengers that bring them.

Revision: 0004, after 0003.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "messenger_contacts",
        sa.Column("messenger", sa.String(length=32), nullable=False),
        sa.Column("address", sa.String(length=255), nullable=False),
        sa.Column("phone", sa.String(length=16), nullable=False),
        sa.Column("verified_at", _TIME, nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_messenger_contacts")),
        sa.UniqueConstraint("messenger", "address", name=op.f("uq_messenger_contacts_messenger_address")),
        sa.UniqueConstraint("messenger", "phone", name=op.f("uq_messenger_contacts_messenger_phone")),
    )
    op.create_table(
        "messenger_links",
        sa.Column("messenger", sa.String(length=32), nullable=False),
        sa.Column("token_hash", sa.String(length=64), nullable=False),
        sa.Column("phone", sa.String(length=16), nullable=False),
        sa.Column("locale", sa.String(length=8), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.Column("used_at", _TIME, nullable=True),
        sa.Column("address", sa.String(length=255), nullable=True),
        sa.Column("finished_at", _TIME, nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_messenger_links")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_messenger_links_token_hash")),
    )
    op.create_index("ix_messenger_links_address", "messenger_links", ["messenger", "address"])
    op.create_index(op.f("ix_messenger_links_expires_at"), "messenger_links", ["expires_at"])
    op.create_table(
        "messenger_messages",
        sa.Column(
            "kind",
            sa.Enum("code", "question", "text", name="kind", native_enum=False, create_constraint=True, length=32),
            nullable=False,
        ),
        sa.Column("sender", sa.String(length=32), nullable=False),
        sa.Column("phone", sa.String(length=16), nullable=True),
        sa.Column("address", sa.String(length=255), nullable=True),
        sa.Column("text", sa.String(length=64), nullable=False),
        sa.Column("locale", sa.String(length=8), nullable=False),
        sa.Column("sealed_code", sa.Text(), nullable=False),
        sa.Column(
            "state",
            sa.Enum("waiting", "sent", "dead", name="state", native_enum=False, create_constraint=True, length=32),
            nullable=False,
        ),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", _TIME, nullable=False),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("sent_at", _TIME, nullable=True),
        sa.Column("reference", sa.String(length=255), nullable=True),
        sa.Column("last_error", sa.String(length=64), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_messenger_messages")),
    )
    op.create_index(op.f("ix_messenger_messages_created_at"), "messenger_messages", ["created_at"])
    op.create_index("ix_messenger_messages_phone", "messenger_messages", ["phone", "created_at"])
    op.create_index(
        "ix_messenger_messages_waiting",
        "messenger_messages",
        ["next_attempt_at"],
        postgresql_where=sa.text("state = 'waiting'"),
    )
    op.create_table(
        "messenger_updates",
        sa.Column("messenger", sa.String(length=32), nullable=False),
        sa.Column("update_id", sa.String(length=255), nullable=False),
        sa.Column("received_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("messenger", "update_id", name=op.f("pk_messenger_updates")),
    )
    op.create_index(op.f("ix_messenger_updates_received_at"), "messenger_updates", ["received_at"])
    op.create_table(
        "phone_codes",
        sa.Column(
            "purpose",
            sa.Enum("sign_in", name="purpose", native_enum=False, create_constraint=True, length=32),
            nullable=False,
        ),
        sa.Column("identifier", sa.String(length=16), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("attempts_left", sa.Integer(), nullable=False),
        sa.Column("channel", sa.String(length=32), nullable=False),
        sa.Column("ip", sa.String(length=64), nullable=True),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.Column("consumed_at", _TIME, nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_phone_codes")),
    )
    op.create_index(op.f("ix_phone_codes_expires_at"), "phone_codes", ["expires_at"])
    op.create_index(
        "uq_phone_codes_open",
        "phone_codes",
        ["purpose", "identifier"],
        unique=True,
        postgresql_where=sa.text("consumed_at IS NULL"),
    )
    op.add_column("users", sa.Column("phone", sa.String(length=16), nullable=True))
    op.add_column("users", sa.Column("first_name", sa.String(length=100), nullable=True))
    op.add_column("users", sa.Column("last_name", sa.String(length=100), nullable=True))
    op.add_column("users", sa.Column("employment_type", sa.String(length=32), nullable=True))
    op.alter_column("users", "email", existing_type=sa.String(length=255), nullable=True)
    op.alter_column("users", "hashed_password", existing_type=sa.String(length=255), nullable=True)
    op.create_unique_constraint(op.f("uq_users_phone"), "users", ["phone"])
    op.create_check_constraint(
        op.f("ck_users_employment_type"),
        "users",
        "employment_type IN ('individual', 'self_employed', 'ip', 'ooo')",
    )
    op.create_check_constraint(op.f("ck_users_reachable"), "users", "email IS NOT NULL OR phone IS NOT NULL")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_constraint(op.f("ck_users_reachable"), "users", type_="check")
    # Whoever has only a phone stays, under an address in a domain that can never exist, with a password that nothing
    # matches.
    op.execute("UPDATE users SET email = ltrim(phone, '+') || '@phone.invalid' WHERE email IS NULL")
    op.execute("UPDATE users SET hashed_password = '!' WHERE hashed_password IS NULL")
    op.alter_column("users", "hashed_password", existing_type=sa.String(length=255), nullable=False)
    op.alter_column("users", "email", existing_type=sa.String(length=255), nullable=False)
    op.drop_column("users", "employment_type")
    op.drop_column("users", "last_name")
    op.drop_column("users", "first_name")
    op.drop_column("users", "phone")
    op.drop_table("phone_codes")
    op.drop_table("messenger_updates")
    op.drop_table("messenger_messages")
    op.drop_table("messenger_links")
    op.drop_table("messenger_contacts")
