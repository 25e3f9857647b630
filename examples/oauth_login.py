"""Sign in to a server with the browser and say what it offers: `python oauth_login.py https://example.com/mcp`.

The token is kept in a file that only you can read, so the second time no browser opens. `--no-browser` shows the
address to visit instead, for a machine without a screen: open it on any other, and paste where you are sent back to.
"""

import argparse
import sys

from minimcp import AuthorizationError, Client, ClientError, FileStore, OAuth


def paste(url: str) -> str:
    """Let the user visit a page elsewhere."""
    print(f"Visit\n\n  {url}\n\nand sign in. The last page will not load; copy its address.", file=sys.stderr)
    return input("Address: ")


def main() -> None:
    """Sign in and list the tools."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("url")
    parser.add_argument("--scope", help="scopes to ask for beside those that the server names")
    parser.add_argument("--tokens", default="~/.config/minimcp/tokens.json", help="where to keep what was agreed on")
    parser.add_argument("--no-browser", action="store_true")
    args = parser.parse_args()

    auth = OAuth(
        "minimcp example",
        scope=args.scope,
        store=FileStore(args.tokens),
        login=paste if args.no_browser else None,
    )
    try:
        with Client(args.url, auth=auth, timeout=None, max_timeout=None) as client:
            for tool in client.list_tools():
                print(f"{tool['name']}: {tool.get('description', '')}")
    except AuthorizationError as error:
        sys.exit(f"Not signed in: {error}")
    except ClientError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
