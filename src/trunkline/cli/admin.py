"""`trunkline admin`: passwords and tokens, straight in the server's data, for whoever may read that folder."""

import argparse
import getpass
import os
import sys

from trunkline.model.errors import ConfigError


def parser() -> argparse.ArgumentParser:
    """Return the options of `trunkline admin`."""
    p = argparse.ArgumentParser(
        prog="trunkline admin", description="Manage people. Works on the data folder; the server may run meanwhile."
    )
    p.add_argument(
        "what",
        choices=["password", "token"],
        help="password: set one (from stdin if it is no terminal); token: make an API token and print it",
    )
    p.add_argument("--user", default="admin", help="whose (default: admin)")
    p.add_argument("--member", action="store_true", help="with password: a user who may push and retry, but not create projects")
    p.add_argument("--name", default="cli", help="with token: what it is for")
    p.add_argument(
        "--data",
        default=os.environ.get("TRUNKLINE_DATA", "trunkline-data"),
        metavar="DIR",
        help="the server's data folder (default: trunkline-data)",
    )
    p.add_argument(
        "--database",
        default=os.environ.get("TRUNKLINE_DATABASE", ""),
        metavar="URL",
        help="the server's database, where it is not in that folder",
    )
    return p


def main(arguments: list[str]) -> int:
    """Run the command."""
    options = parser().parse_args(arguments)
    from trunkline.adapters.stores.sql import SqlStore
    from trunkline.server.auth import Doorkeeper

    os.makedirs(options.data, mode=0o700, exist_ok=True)
    store = SqlStore(options.database or f"sqlite:///{os.path.abspath(options.data)}/state.sqlite")
    try:
        doorkeeper = Doorkeeper(store)
        if options.what == "password":
            doorkeeper.set_password(options.user, _asked_password(), is_admin=not options.member)
            print(f"{options.user} can sign in now")
            return 0
        found = store.read(lambda tx: tx.user(options.user))
        if found is None:
            raise ConfigError(f"there is no user {options.user}", "set a password first: trunkline admin password")
        print(doorkeeper.new_token(found[0], options.name))
        return 0
    finally:
        store.close()


def _asked_password() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    first = getpass.getpass("New password: ")
    if getpass.getpass("Once more: ") != first:
        raise ConfigError("the two passwords differ")
    return first
