"""`trunkline image`: the images of a project in the server's registry."""

import argparse
import json
import time

from trunkline.cli.remote import Remote, add_server_options
from trunkline.kit.words import size
from trunkline.model.errors import ConfigError


def parser() -> argparse.ArgumentParser:
    """Return the options of `trunkline image`."""
    p = argparse.ArgumentParser(
        prog="trunkline image",
        description="List and remove the container images of a project in the server's registry.",
        epilog="Example: trunkline image remove team/shop/api:1.0. Exit status: 0 done, 2 wrong input, 3 the server can't be reached, 4 refused.",
    )
    p.add_argument("what", nargs="?", default="list", choices=["list", "remove"], help="default: list")
    p.add_argument("which", nargs="?", default="", metavar="NAME:TAG", help="with remove: which one")
    add_server_options(p)
    return p


def main(arguments: list[str]) -> int:
    """Run the command."""
    options = parser().parse_args(arguments)
    remote = Remote(options)
    if options.what == "remove":
        name, colon, tag = options.which.rpartition(":")
        if not colon or "/" in tag:
            raise ConfigError("which image?", "trunkline image remove NAME:TAG; trunkline image lists them")
        told = remote.ask(f"images/{name}/tags/{tag}", method="DELETE")
        print(json.dumps(told, indent=1) if options.json else f"removed {name}:{tag}; its room is free within the hour")
        return 0
    told = remote.ask("images")
    if options.json:
        print(json.dumps(told, indent=1))
    elif not told["images"]:
        print(f"no images: docker push {told['host']}/{remote.project.lower()}:TAG makes one")
    for image in () if options.json else told["images"]:
        at = time.strftime("%Y-%m-%d %H:%M", time.localtime(image["pushed_at"]))
        print(f"{image['pull']:60}  {size(image['size']):>10}  {at}  {image['digest'][7:19]}")
    return 0
