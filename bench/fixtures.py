"""The repositories that the benchmarks run in: the same work as .gitlab-ci.yml and as a workflow."""

import subprocess
from pathlib import Path


def repository(folder: Path, gitlab: str, workflow: str = "", files: dict[str, str] | None = None) -> Path:
    """Make a repository once."""
    if (folder / ".git").exists():
        return folder
    everything = {".gitlab-ci.yml": gitlab, ".gitignore": ".gitlab-ci-local/\nbig.bin\n.venv/\n", **(files or {})}
    if workflow:
        everything[".github/workflows/ci.yml"] = workflow
    for name, text in everything.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    git = ["git", "-C", str(folder), "-c", "user.name=b", "-c", "user.email=b@example.com"]
    for words in (
        ["init", "-q", "-b", "main"],
        ["add", "-A"],
        ["commit", "-qm", "bench"],
        ["remote", "add", "origin", "git@git.example.invalid:g/p.git"],
    ):
        subprocess.run([*git, *words], check=True)
    return folder


def flat(folder: Path, count: int, command: str = "true", files: dict[str, str] | None = None, checkout: bool = False) -> Path:
    """Jobs side by side."""
    gitlab = "".join(f'j{i}:\n  script:\n    - "{command}"\n' for i in range(count))
    step = "      - uses: actions/checkout@v4\n" if checkout else ""
    jobs = "".join(f'  j{i}:\n    runs-on: ubuntu-latest\n    steps:\n{step}      - run: "{command}"\n' for i in range(count))
    return repository(folder, gitlab, "on: push\njobs:\n" + jobs, files)


def critical_path(folder: Path) -> Path:
    """One job of 3 s beside a chain of five half seconds: 3 s on two slots, unless jobs run in waves."""
    names = [("long", 3.0, ""), ("c0", 0.5, ""), *((f"c{i}", 0.5, f"c{i - 1}") for i in range(1, 5))]
    gitlab = "".join(f"{n}:\n  needs: [{need}]\n  script: [sleep {t}]\n" for n, t, need in names)
    jobs = "".join(
        f"  {n}:\n    runs-on: ubuntu-latest\n" + (f"    needs: {need}\n" if need else "") + f"    steps:\n      - run: sleep {t}\n"
        for n, t, need in names
    )
    return repository(folder, gitlab, "on: push\njobs:\n" + jobs)


def artifact(folder: Path) -> Path:
    """200 MB from one job to the next."""
    make = "head -c 209715200 /dev/urandom > big.bin"
    gitlab = f"stages: [a, b]\nmake: {{stage: a, script: ['{make}'], artifacts: {{paths: [big.bin]}}}}\nuse: {{stage: b, script: ['test -s big.bin']}}\n"
    return repository(folder, gitlab)


def many_files(folder: Path) -> Path:
    """20,000 files."""
    files = {f"src/d{i // 100}/f{i}.py": f"# file {i}\n" + "x = 1\n" * (i % 200) for i in range(20_000)}
    return flat(folder, 1, "test -s src/d0/f1.py", files)


def big(folder: Path, jobs: int = 300) -> Path:
    """Jobs in three includes, with extends two deep, needs, rules and variables."""
    files = {}
    for k in range(3):
        parts = []
        for i in range(20):
            rule = f"  rules:\n    - if: '$CI_COMMIT_BRANCH == \"main\" || $FORCE_{i} =~ /^yes/'\n    - when: never\n"
            parts.append(f".base{k}_{i}:\n  variables: {{V{k}_{i}: 'x{i}'}}\n  before_script: [echo before {i}]\n{rule}")
            parts.append(f".mid{k}_{i}:\n  extends: .base{k}_{i}\n  tags: [linux]\n  variables: {{M: 'm{i}'}}\n")
        files[f"ci/base{k}.yml"] = "".join(parts)
    text = "include:\n" + "".join(f"  - local: ci/base{k}.yml\n" for k in range(3)) + "stages: [build, test, deploy]\n"
    for i in range(jobs // 3):
        head = f"  extends: .mid{i % 3}_{i % 20}\n"
        text += f"build{i}:\n  stage: build\n{head}  script: [echo build {i}]\n"
        text += f"test{i}:\n  stage: test\n{head}  needs: [build{i}]\n  script: [echo test {i}]\n"
        text += f"deploy{i}:\n  stage: deploy\n{head}  needs: [test{i}, build{i}]\n  script: [echo deploy {i}]\n"
    return repository(folder, text, files=files)


def combinations(folder: Path) -> Path:
    """Two hundred jobs out of one matrix, with rules."""
    rule = "  rules:\n    - if: '$CI_COMMIT_BRANCH =~ /^main$/ && $CI_PIPELINE_SOURCE == \"push\"'\n    - changes: ['src/**/*']\n"
    axes = ", ".join(f"{name}: [{', '.join(map(str, range(count)))}]" for name, count in (("A", 10), ("B", 5), ("C", 4)))
    return repository(folder, f"all:\n  parallel: {{matrix: [{{{axes}}}]}}\n{rule}  script: ['echo $A $B $C']\n")


def python_job(folder: Path) -> Path:
    """flask, sqlalchemy, pytest and 50 tests."""
    job = "python3 -m venv .venv && .venv/bin/pip install -q -r requirements.txt && .venv/bin/python -m pytest -q"
    app = (
        "from flask import Flask, jsonify\nfrom sqlalchemy import create_engine, text\n\n\ndef make():\n    app = Flask(__name__)\n    engine = create_engine('sqlite://')\n\n"
        "    @app.get('/add/<int:a>/<int:b>')\n    def add(a, b):\n        with engine.connect() as c:\n            return jsonify(sum=c.execute(text('select :a + :b'), {'a': a, 'b': b}).scalar())\n\n    return app\n"
    )
    head = "import os\nimport sys\n\nsys.path.insert(0, os.path.dirname(os.path.dirname(__file__)))\nfrom app import make\n"
    tests = {
        f"tests/test_{k}.py": head
        + "".join(
            f"\n\ndef test_{i}():\n    assert make().test_client().get('/add/{i}/{k}').json == {{'sum': {i + k}}}\n" for i in range(10)
        )
        for k in range(5)
    }
    return repository(
        folder, f"test:\n  script:\n    - {job}\n", files={"requirements.txt": "flask\nsqlalchemy\npytest\n", "app.py": app, **tests}
    )


def workflow_matrix(folder: Path) -> Path:
    """A matrix of 200 jobs."""
    axes = "        a: [" + ", ".join(map(str, range(20))) + "]\n        b: [" + ", ".join(map(str, range(10))) + "]\n"
    steps = "    steps:\n      - run: echo ${{ matrix.a }} ${{ matrix.b }}\n"
    workflow = f"on: push\njobs:\n  m:\n    runs-on: ubuntu-latest\n    strategy:\n      matrix:\n{axes}{steps}"
    return repository(folder, "unused: {script: ['true']}\n", workflow)


def only_github(folder: Path) -> Path:
    """Leave the workflow alone in a repository."""
    if (folder / ".gitlab-ci.yml").exists():
        subprocess.run(["git", "-C", str(folder), "rm", "-q", ".gitlab-ci.yml"], check=True)
        git = ["git", "-C", str(folder), "-c", "user.name=b", "-c", "user.email=b@example.com"]
        subprocess.run([*git, "commit", "-qm", "only the workflow"], check=True)
    return folder
