"""The Celery app: queues, limits, schedule, task names. Run: `celery -A worker.celery worker`.

Messages are hints: "this tenant has work". The ledger is the truth: a hint that Celery loses costs seconds, and a
doubled one finds nothing to claim. Each odd setting has its reason beside it.
"""

import atexit
import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import celery
import structlog
from celery import signals
from kombu import Exchange, Queue

from worker import celery_broker, sentry, telemetry
from worker.errors import ConfigurationError
from worker.ledger.client import UNAVAILABLE, Scripts, connect, connect_recorder
from worker.ledger.durability import check_redis
from worker.ledger.identity import load_identity
from worker.ledger.processes import Presence, Process, at_host, ended
from worker.ledger.sealed import Sealer
from worker.ledger.sentinel import FROZEN_SECONDS
from worker.queues import HINT_QUEUE, RECEIVE, RECEIVE_QUEUE, SWEEP, SWEEP_QUEUE
from worker.settings import Settings, load_settings, remove_variables

_LOG = structlog.get_logger()


def _queue(name: str) -> Queue:
    return Queue(name, Exchange(name, type="direct"), routing_key=name)


def make_app(settings: Settings) -> celery.Celery:
    """The app, not yet connected."""
    remove_variables(_NOT_OURS)
    app = celery.Celery("examrelay", broker=settings.redis.url, include=_TASK_MODULES)
    app.conf.update(_CONFIG)
    if settings.redis.sentinels:
        _follow_sentinels(app, settings)
    # Without options kombu does not verify; Flower's broker page takes these too.
    app.conf.broker_use_ssl = settings.redis.tls or False
    app.conf.beat_schedule = {
        "retry-sweep": {
            "task": SWEEP,
            "schedule": settings.sweep_seconds,
            # Sweeps must not pile up while no sweeper runs. The next one does the work of all before it.
            "options": {"queue": SWEEP_QUEUE, "expires": settings.sweep_seconds},
        }
    }
    return app


def _follow_sentinels(app: celery.Celery, settings: Settings) -> None:
    """Let Celery and Flower ask the sentinels for the primary as all parts do."""
    celery_broker.install(settings.sealing_keys)
    app.conf.broker_transport_options = app.conf.broker_transport_options | {
        "address": settings.redis,
        "master_name": settings.redis.master_name,  # Flower wants one
        "socket_timeout": FROZEN_SECONDS,
        "health_check_interval": FROZEN_SECONDS,
    }
    # Flower's broker page would ask the first sentinel only, and count the messages of database 0.
    if flower := sys.modules.get("flower.utils.broker"):
        flower.RedisSentinel._get_redis_client = lambda *_: connect_recorder(settings)


#: Celery prefers these to the URL that it is given, and their Redis would never be checked.
_NOT_OURS: Final = ("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL", "CELERY_RESULT_BACKEND")
_TASK_MODULES: Final = ["tasks.process", "tasks.sweep", "tasks.receive"]
_CONFIG: Final[dict[str, Any]] = {
    # Queues. A misspelt name is an error, not a queue that nobody reads.
    "task_queues": [_queue(name) for name in (HINT_QUEUE, RECEIVE_QUEUE, SWEEP_QUEUE)],
    "task_default_queue": HINT_QUEUE,
    "task_default_exchange": HINT_QUEUE,
    "task_default_routing_key": HINT_QUEUE,
    "task_create_missing_queues": False,
    "task_routes": {SWEEP: {"queue": SWEEP_QUEUE}, RECEIVE: {"queue": RECEIVE_QUEUE}},
    "task_serializer": "json",
    "accept_content": ["json"],
    # No results: nobody reads them, and each would cost a key and a publish.
    "task_ignore_result": True,
    "result_backend": None,
    # Acknowledge after the work: a dead child's hint comes back at once. The ledger retries failures, not Celery.
    "task_acks_late": True,
    "task_reject_on_worker_lost": True,
    "task_acks_on_failure": True,
    "task_acks_on_timeout": True,
    # One hint a slot: an idle worker cannot take a hint that waits inside a busy one.
    "worker_prefetch_multiplier": 1,
    # When Redis goes away a running task finishes its calls; its hint comes twice and finds nothing to claim.
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    "worker_consumer": "worker.celery_broker:SteadyConsumer",
    "worker_hijack_root_logger": False,
    "worker_max_tasks_per_child": 10_000,
    "worker_soft_shutdown_timeout": 20,
    # Never give up on the broker (the default ends the worker after 100 tries, about 48 minutes), nor on OOM.
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    "broker_channel_error_retry": True,
    "broker_pool_acquire_timeout": 10,
    "broker_transport_options": {
        # Longer than any task may run (worker/queues.py), or a second copy starts beside the first.
        "visibility_timeout": 300,
        # Look every 10 s for what a dead worker left; the default looks every 100 s.
        "unacked_restore_interval": 10,
        "unacked_restore_throttle": 1,
        # A worker killed while it looks holds the others off for so long; the default is 300 s.
        "unacked_mutex_expire": 20,
        # Without these a publish on a dead connection waits for ever.
        "socket_timeout": 15,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "health_check_interval": 10,
        # One list a queue: priorities starve what is below them, and BRPOP names every list.
        "priority_steps": [0],
        # kombu's default of 10 makes acks fail under load ("Too many connections").
        "max_connections": 50,
        "client_name": "examrelay-celery",
    },
    "beat_max_loop_interval": 1,
    # One entry every few seconds: nothing to remember between starts, so no file.
    "beat_scheduler": "celery.beat:Scheduler",
    "enable_utc": True,
}


def _app() -> celery.Celery:
    try:
        return make_app(load_settings())
    except ConfigurationError as error:
        sys.exit(f"examrelay: {error}")  # the celery command would show a traceback


app = _app()


@signals.setup_logging.connect
def _set_up_logs(**_: object) -> None:
    telemetry.set_up_logs(load_settings())


signals.worker_process_shutdown.connect(sentry.flush)  # a child does not run what is registered with `atexit`


@signals.celeryd_init.connect
def _start_worker(sender: str, **_: object) -> None:
    name = sender.partition("@")[0]
    celery_broker.install(load_settings().sealing_keys)
    settings = _check(name)
    kind = "sweeper" if name == "sweeper" else "worker"
    signals.heartbeat_sent.connect(_sign_of_life(settings, kind, sender), weak=False)
    signals.worker_shutdown.connect(lambda **_: _say_goodbye(settings, sender), weak=False)


@signals.beat_init.connect
def _start_beat(**_: object) -> None:
    settings = _check("beat")
    # Beat has no heartbeat; that it publishes a sweep every few seconds says more.
    signals.after_task_publish.connect(_sign_of_life(settings, "beat", at_host("beat")), weak=False)
    atexit.register(_say_goodbye, settings, at_host("beat"))


def _say_goodbye(settings: Settings, name: str) -> None:
    with suppress(*UNAVAILABLE):
        ended(connect(settings, patient=False), name)


def _sign_of_life(settings: Settings, kind: str, name: str) -> Callable[..., None]:
    """What a signal calls to keep this process in the register. Never fails: work does not depend on it."""
    presence = Presence(Process(kind, name, settings.tenants.digest))
    scripts = Scripts(connect(settings, patient=False))

    def report(**_: object) -> None:
        if presence.due():
            try:
                scripts("seen", *presence.arguments())
            except UNAVAILABLE as error:
                _LOG.info("presence.failed", error=type(error).__name__)

    return report


def _check(process: str) -> Settings:
    """Check the configuration before anything starts. Exits with one message when it cannot work.

    Also when anything else fails: Celery logs what a signal's receiver raises, and would go on with a process that is
    half set up.
    """
    try:
        settings = load_settings()
        assert settings.tenants
        client = connect(settings, patient=False)
        check_redis(client, settings)
        load_identity(client, settings.identity_key, Sealer(settings.sealing_keys))
        client.close()
    except ConfigurationError as error:
        sys.exit(f"examrelay {process}: {error}")
    except Exception as error:
        raise SystemExit(f"examrelay {process}: could not be set up, start it again: {type(error).__name__}") from error
    telemetry.set_up(settings, process)
    logging.getLogger("celery").setLevel(logging.INFO)
    return settings
