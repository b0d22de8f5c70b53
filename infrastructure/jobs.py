"""The jobs: what the two that use the inbox get, what they may do there, and what invokes them.

`shelve_state` carries states from the inbox to the shelf. `refresh` publishes states to the inbox. Any other job runs
in the VPC with the file system. The stack doesn't invoke it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import aws_cdk as cdk
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as events_targets
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from infrastructure.build_context import REFRESH_JOB, SHELVING_JOB
from infrastructure.config import Config
from infrastructure.functions import Needs, Place
from infrastructure.inbox import Inbox
from infrastructure.network import Network
from infrastructure.shelf import Shelf
from similarity.api.routes import HandlerFile
from similarity.inbox.bucket import DEPLOYED_PREFIX, HOLD_KEY, SERVED_KEY, STATE_KEY, STORE_KEY

_STATES, _DEPLOYED, _VECTORS = (f"{key.partition('/')[0]}/*" for key in (STATE_KEY, DEPLOYED_PREFIX, STORE_KEY))


def needs_of_jobs(*, config: Config, network: Network, shelf: Shelf, inbox: Inbox) -> Callable[[HandlerFile], Needs]:
    file_system = shelf.mounted_by_jobs()
    bucket = {"STATE_BUCKET": inbox.bucket.bucket_name}
    page = {"SNAPSHOTS_URL": config.snapshots_url}
    particular = {
        SHELVING_JOB: Needs(
            Place(network, network.shelving_security_group, file_system), environment=bucket, takes_events=True
        ),
        # A snapshot of 100 MB and the store of vectors are kept in /tmp.
        REFRESH_JOB: Needs(place=None, environment=bucket | page, storage_mib=2048, takes_events=True),
    }
    other = Needs(Place(network, network.functions_security_group, file_system))
    return lambda job: particular.get(job.module, other)


def allow_inbox(inbox: Inbox, jobs: Mapping[str, lambda_.Function]) -> None:
    """Lets jobs, by name, use the inbox: each no more of it than it needs."""
    inbox.allow(jobs[SHELVING_JOB], read=[_STATES, _DEPLOYED], write=[_DEPLOYED, SERVED_KEY])
    if REFRESH_JOB in jobs:
        read = [SERVED_KEY, HOLD_KEY, _STATES, _DEPLOYED, _VECTORS]
        inbox.allow(jobs[REFRESH_JOB], read=read, write=[_STATES, _VECTORS])


class InvokingJobs(Construct):
    """Invokes jobs, by name: the shelving job for each new state and once a day, the refresh job on its schedule."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        jobs: Mapping[str, lambda_.Function],
        inbox: Inbox,
        refresh_hours: int,
    ) -> None:
        super().__init__(scope, construct_id)
        shelving = events_targets.LambdaFunction(jobs[SHELVING_JOB])
        events.Rule(
            self,
            "NewState",
            description="Puts a new state from the inbox on the shelf",
            event_pattern=events.EventPattern(
                source=["aws.s3"],
                detail_type=["Object Created"],
                detail={"bucket": {"name": [inbox.bucket.bucket_name]}, "object": {"key": [STATE_KEY]}},
            ),
            targets=[shelving],
        )
        # An event may be lost, and a file system may be replaced.
        self._schedule("Daily", "Puts the newest states on the shelf, if they aren't there", hours=24, target=shelving)
        if refresh_hours and REFRESH_JOB in jobs:
            refresh = events_targets.LambdaFunction(jobs[REFRESH_JOB])
            self._schedule("Refresh", "Publishes a state of the newest snapshot", hours=refresh_hours, target=refresh)

    def _schedule(self, construct_id: str, description: str, *, hours: int, target: events.IRuleTarget) -> None:
        schedule = events.Schedule.rate(cdk.Duration.hours(hours))
        events.Rule(self, construct_id, description=description, schedule=schedule, targets=[target])
