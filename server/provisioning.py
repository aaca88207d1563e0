"""The wiring of provisioning: the recipe, and what its commands may see."""

import os

from sqlalchemy.ext.asyncio import AsyncEngine

from providers.provisioning.driver import RecipeDriver
from providers.provisioning.recipe import load_recipe
from server.database import plain_url
from server.settings import Settings
from services.entitlements import EntitlementDesk
from services.notifications import NotificationService
from services.provisioning import ProvisioningService
from services.unit_of_work import UnitOfWorkFactory


def build_provisioning(
    settings: Settings,
    engine: AsyncEngine,
    units: UnitOfWorkFactory,
    *,
    notifications: NotificationService,
    entitlements: EntitlementDesk,
) -> ProvisioningService:
    """Build the service of provisioning."""
    return ProvisioningService(
        units=units,
        driver=_driver(settings, engine),
        notifications=notifications,
        entitlements=entitlements,
        site_url_template=settings.site_template,
        max_waiting=settings.waiting_jobs_per_tenant,
    )


def _driver(settings: Settings, engine: AsyncEngine) -> RecipeDriver:
    database_url = settings.provisioning_database_url.get_secret_value() or plain_url(
        engine.url.render_as_string(hide_password=False)
    )
    return RecipeDriver(
        load_recipe(settings.provisioning_recipe),
        data_dir=settings.data_dir,
        # The recipe itself says which of these its commands may see.
        environment={**os.environ, "PROVISIONING_DATABASE_URL": database_url},
    )
