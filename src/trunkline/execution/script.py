"""Lists of commands -> one bash script that echoes each command before it runs it, as the GitLab runner does."""

from trunkline.execution.trace import GREEN, RESET


def bash_script(commands: tuple[str, ...], stop_at_failure: bool = True) -> str:
    """Return a script that runs the commands in one shell; a failing command ends it, unless told otherwise."""
    lines = ["set -eo pipefail" if stop_at_failure else "set +e", "set +C"]
    for command in commands:
        first, _, rest = command.partition("\n")
        shown = f"$ {first}" + (" # collapsed multi-line command" if rest.strip() else "")
        lines.append(f"printf '%s\\n' {quoted(GREEN + shown + RESET)}")
        lines.append(command)
    return "\n".join(lines) + "\n"


def quoted(text: str) -> str:
    """Return a text as one word that means itself, for any POSIX shell."""
    return "'" + text.replace("'", "'\\''") + "'"
