"""The clients under measurement, one file each; each runs alone in its own environment and in its own idiom.

``FILE JOB COUNT TARGET...``, where the target is a URL or a command that serves stdio. What the job found is printed
as one line of JSON:

- ``first``: connect and call once.
- ``calls``: COUNT calls, one after the other; ``ms`` for each, and ``peak_kib`` of this process.
- ``shared``: COUNT calls on each of eight threads or tasks that share one client; ``rate`` and ``errors``.
- ``huge``: one call whose answer is an event of 2 MiB; ``size`` of its text, or ``error``.
"""
