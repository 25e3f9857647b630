"""Tasks extension: calls of tools that outlive their request, and the process that ran them.

Spec: EXT-014 to EXT-066
"""

from .background import Tasks as Tasks
from .redis_store import RedisStore as RedisStore
from .sqlite_store import SqliteStore as SqliteStore
from .task_records import Carrier as Carrier
from .task_records import TaskRecord as TaskRecord
from .task_records import TaskStore as TaskStore
from .task_records import UnusableStore as UnusableStore
