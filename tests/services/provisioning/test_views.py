"""The many forms in which clients name job types and statuses (contract.md 5.4)."""

import pytest
from pydantic import TypeAdapter, ValidationError

from models.provisioning import JobState, JobType
from services.provisioning.sites import SiteAddresses
from services.provisioning.views import JobStatusName, JobTypeName, instance_form, wire_status

TYPES = TypeAdapter(JobTypeName)
STATUSES = TypeAdapter(JobStatusName)


@pytest.mark.parametrize(
    "text",
    [
        "create_site",
        "CREATE_SITE",
        "createSite",
        "CreateSite",
        "create-site",
        "Create Site",
        "CREATE_INSTANCE",
        "create_instance",
        "createInstance",
        "create-instance",
        " create_site ",
    ],
)
def test_every_form_of_a_type_is_understood(text: str) -> None:
    assert TYPES.validate_python(text) is JobType.CREATE_SITE


@pytest.mark.parametrize("kind", JobType)
def test_every_type_is_understood_in_both_families(kind: JobType) -> None:
    assert TYPES.validate_python(kind.value) is kind
    assert TYPES.validate_python(instance_form(kind)) is kind
    assert instance_form(kind).endswith("_INSTANCE")


@pytest.mark.parametrize("value", ["", "create", "site_create", "create_sites", 7, None, ["create_site"]])
def test_anything_else_is_refused(value: object) -> None:
    with pytest.raises(ValidationError):
        TYPES.validate_python(value)


@pytest.mark.parametrize(
    ("text", "states"),
    [
        ("pending", {JobState.QUEUED}),
        ("PENDING", {JobState.QUEUED}),
        ("queued", {JobState.QUEUED}),
        ("running", {JobState.RUNNING, JobState.RETRYING}),
        ("IN_PROGRESS", {JobState.RUNNING, JobState.RETRYING}),
        ("inProgress", {JobState.RUNNING, JobState.RETRYING}),
        ("in-progress", {JobState.RUNNING, JobState.RETRYING}),
        ("retrying", {JobState.RETRYING}),
        ("completed", {JobState.SUCCEEDED}),
        ("succeeded", {JobState.SUCCEEDED}),
        ("failed", {JobState.FAILED, JobState.CANCELLED}),
        ("cancelled", {JobState.CANCELLED}),
        ("Canceled", {JobState.CANCELLED}),
    ],
)
def test_a_status_stands_for_its_states(text: str, states: set[JobState]) -> None:
    assert set(STATUSES.validate_python(text).states()) == states


@pytest.mark.parametrize("value", ["", "done", 1])
def test_another_status_is_refused(value: object) -> None:
    with pytest.raises(ValidationError):
        STATUSES.validate_python(value)


def test_released_clients_see_only_four_statuses() -> None:
    assert {state: wire_status(state) for state in JobState} == {
        JobState.QUEUED: "pending",
        JobState.RUNNING: "running",
        JobState.RETRYING: "running",
        JobState.SUCCEEDED: "completed",
        JobState.FAILED: "failed",
        JobState.CANCELLED: "failed",
    }


def test_sites_are_named_by_their_host_when_each_has_one() -> None:
    by_host = SiteAddresses("https://{slug}.erp.example.com")
    assert (by_host.url("acme"), by_host.name("acme")) == ("https://acme.erp.example.com", "acme.erp.example.com")
    by_path = SiteAddresses("http://localhost:8000/sites/{slug}")
    assert (by_path.url("acme"), by_path.name("acme")) == ("http://localhost:8000/sites/acme", "acme")
    with pytest.raises(ValueError, match="slug"):
        SiteAddresses("https://erp.example.com")
