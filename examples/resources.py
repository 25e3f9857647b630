"""Resources: one at a fixed URI, a template, a folder of files, and what completes their variables."""

from pathlib import Path
from typing import Optional

from minimcp import Server, safe_join

server = Server("resources", "1.0", ttl_ms=60_000)

CAPITALS = {"norway": "Oslo", "peru": "Lima", "kenya": "Nairobi"}
FOLDER = Path(__file__).resolve().parent


@server.resource("atlas://countries", mime_type="application/json", cache_scope="public")
def countries() -> list[str]:
    """The countries of the atlas."""
    return sorted(CAPITALS)


@server.resource("atlas://countries/{country}/capital", mime_type="text/plain")
def capital(country: str) -> Optional[str]:
    """The capital of a country; None says that there is no such resource."""
    return CAPITALS.get(country)


@server.completion("atlas://countries/{country}/capital", "country")
def complete_country(value: str, arguments: dict[str, str]) -> list[str]:
    return [country for country in sorted(CAPITALS) if country.startswith(value)]


@server.resource("files://{+path}")
def source(path: str) -> Optional[bytes]:
    """A file of this folder. Paths from outside go through `safe_join`, which never leaves the folder."""
    try:
        file = Path(safe_join(FOLDER, path))
    except ValueError:
        return None
    return file.read_bytes() if file.is_file() else None


if __name__ == "__main__":
    server.run()
