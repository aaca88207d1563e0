"""What the middlewares decide on their own: which faults mean that a store is away."""

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from services.outage import is_away
