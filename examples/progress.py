"""Progress, log messages and cancellation: a tool that takes its time and can be stopped."""

from minimcp import Context, Server

server = Server("progress", "1.0")


@server.tool
def find_primes(below: int, ctx: Context) -> list[int]:
    """Find all prime numbers below a limit."""
    ctx.log("info", f"sieving {below} numbers")
    sieve = bytearray([1]) * below
    for number in range(2, below):
        # Returns at once, unless the client has cancelled: then it ends the call.
        ctx.check()
        if sieve[number]:
            sieve[number * number :: number] = bytes(len(range(number * number, below, number)))
        if number % max(below // 10, 1) == 0:
            ctx.progress(number, below, f"looked at {number}")
    return [number for number in range(2, below) if sieve[number]]


@server.tool
def sleep(seconds: float, ctx: Context) -> str:
    """Sleep until the time is over or the client has had enough."""
    ctx.progress(0, seconds, "falling asleep")
    if ctx.cancelled.wait(seconds):
        server_log.append("woken early")
        ctx.check()
    return f"slept for {seconds} seconds"


@server.tool
def woken() -> list[str]:
    """List the sleeps that were cancelled."""
    return server_log


server_log: list[str] = []

if __name__ == "__main__":
    server.run()
