"""Tasks extension: calls of tools that outlive their request, and the process that ran them.

Spec: EXT-014 to EXT-066
"""

from .background import Tasks as Tasks
from .celery_carrier import CeleryCarrier as CeleryCarrier
from .redis_store import RedisStore as RedisStore
from .rq_carrier import RqCarrier as RqCarrier
from .sqlite_store import SqliteStore as SqliteStore
from .task_records import Carrier as Carrier
from .task_records import TaskRecord as TaskRecord
from .task_records import TaskStore as TaskStore
from .task_records import UnusableStore as UnusableStore
