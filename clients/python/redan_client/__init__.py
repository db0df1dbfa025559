"""The client of Redan: `Client` waits, `AsyncClient` is awaited; both find the leader and repeat what is safe."""

from redan_client.aio import AsyncClient, AsyncPipeline
from redan_client.errors import (
    AuthenticationError,
    NotAppliedError,
    OutcomeUnknownError,
    RedanError,
    RequestError,
)
from redan_client.policy import Settings
from redan_client.requests import NEVER, Entry
from redan_client.sync import Client, Pipeline

__all__ = [
    "NEVER",
    "AsyncClient",
    "AsyncPipeline",
    "AuthenticationError",
    "Client",
    "Entry",
    "NotAppliedError",
    "OutcomeUnknownError",
    "Pipeline",
    "RedanError",
    "RequestError",
    "Settings",
]
