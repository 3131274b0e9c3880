"""Find the command, run it, turn errors into sentences and exit codes."""

import importlib
import os
import sys
import warnings

from trunkline import __version__

COMMANDS = {
    "run": ("trunkline.cli.run", "run the pipeline of this checkout here, without a server"),
    "lint": ("trunkline.cli.lint", "check pipeline files and say everything that is wrong, with places"),
    "why": ("trunkline.cli.why", "explain why a job runs, does not run, or waits"),
    "plan": ("trunkline.cli.plan", "say what would run for an event, and why"),
    "serve": ("trunkline.cli.serve", "start the server: git over HTTP, pages, API, runner"),
    "deploy": ("trunkline.cli.deploy", "roll a release out to an environment, and watch it"),
    "rollback": ("trunkline.cli.deploy", "take the last rollout back"),
    "promote": ("trunkline.cli.deploy", "give a rollout all traffic now"),
    "abort": ("trunkline.cli.deploy", "stop a rollout: all traffic goes back"),
    "pause": ("trunkline.cli.deploy", "hold a rollout"),
    "resume": ("trunkline.cli.deploy", "let a paused rollout go on"),
    "approve": ("trunkline.cli.deploy", "approve a rollout that waits for it"),
    "stop": ("trunkline.cli.deploy", "stop an environment"),
    "env": ("trunkline.cli.deploy", "show what serves where"),
    "start": ("trunkline.cli.start", "start a run on the server"),
    "actions": ("trunkline.cli.actions", "which commits the actions of workflows are pinned to"),
    "mirror": ("trunkline.cli.mirror", "projects that live at GitHub, GitLab, Gitea or Bitbucket"),
    "runner": ("trunkline.cli.runner", "machines that work jobs for a server"),
    "terminal": ("trunkline.cli.terminal", "a terminal in a job that a runner works"),
    "variable": ("trunkline.cli.variable", "CI/CD variables and secrets of a project"),
    "image": ("trunkline.cli.image", "container images of a project in the server's registry"),
    "trigger": ("trunkline.cli.trigger", "tokens with which other programs start runs"),
    "request": ("trunkline.cli.request", "propose a branch for another; approve and merge"),
    "schedule": ("trunkline.cli.schedule", "runs that begin by the clock"),
    "monitoring": ("trunkline.cli.monitoring", "write what Prometheus and Grafana need"),
    "admin": ("trunkline.cli.admin", "set the administrator's password, make API tokens"),
    "demo": ("trunkline.cli.demo", "start a server, push a sample project, watch it turn green"),
}


def usage() -> str:
    """Return the help of `trunkline` itself."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {about}" for name, (_, about) in COMMANDS.items()]
    return (
        "usage: trunkline COMMAND [ARGUMENTS]\n\n" + "\n".join(lines) + "\n\n"
        "`trunkline COMMAND --help` tells more.\n"
        "Exit status: 0 passed, 1 the pipeline failed, 2 wrong input, 3 something outside failed, 4 refused, 70 a bug, 130 interrupted.\n"
    )


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage(), end="")
        return 0 if words else 2
    if words[0] in ("-V", "--version"):
        print(f"trunkline {__version__}")
        return 0
    if words[0] not in COMMANDS:
        from trunkline.kit.words import did_you_mean

        hint = did_you_mean(words[0], COMMANDS) or "see trunkline --help"
        print(f"trunkline: no command named {words[0]!r}\n  hint: {hint}", file=sys.stderr)
        return 2
    warnings.simplefilter("ignore", FutureWarning)  # re's thoughts about patterns in somebody's pipeline
    try:
        if words[0] == "run" and "--list" in words and _recalled(words[1:]):
            return 0
        module = COMMANDS[words[0]][0]
        verb = (words[0],) if module == "trunkline.cli.deploy" else ()
        code = importlib.import_module(module).main(words[1:], *verb)
        sys.stdout.flush()
        return int(code)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except Exception as problem:  # noqa: BLE001 - the one place that turns whatever happened into a sentence
        return _told(problem)


def _recalled(words: list[str]) -> bool:
    """Print the list of jobs that was kept, if there is one."""
    from trunkline.cli import listed

    told = listed.recall(words)
    if told is not None:
        listed.show(told)
    return told is not None


def _told(problem: Exception) -> int:
    from trunkline.model.errors import TrunklineError

    if isinstance(problem, TrunklineError):
        print(f"trunkline: {problem.message}" + (f"\n  hint: {problem.hint}" if problem.hint else ""), file=sys.stderr)
        return problem.exit_code
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix="trunkline-bug-", suffix=".txt", delete=False) as f:
        f.write(f"trunkline {__version__}, Python {sys.version}\n{' '.join(sys.argv)}\n\n{traceback.format_exc()}")
    print(
        f"trunkline: this is a bug in Trunkline ({type(problem).__name__}: {problem})\n  hint: please report it with {f.name}",
        file=sys.stderr,
    )
    return 70
