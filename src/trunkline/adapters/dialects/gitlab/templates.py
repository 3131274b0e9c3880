"""Our own versions of the templates that Python teams include by name: the same jobs and rules, with what runs here."""

BRANCHES = """
workflow:
  rules:
    - if: $CI_COMMIT_TAG
    - if: $CI_COMMIT_BRANCH
"""

REQUESTS = """
workflow:
  rules:
    - if: $CI_MERGE_REQUEST_IID
    - if: $CI_COMMIT_TAG
    - if: $CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH
"""

PYTHON = """
# Lints, tests and builds a Python project; everything can be overridden by a job of the same name.
variables:
  PIP_DISABLE_PIP_VERSION_CHECK: "1"

lint:
  stage: test
  script:
    - pip install ruff
    - ruff check .

test:
  stage: test
  script:
    - pip install pytest pytest-cov
    - test ! -f requirements.txt || pip install -r requirements.txt
    - test ! -f pyproject.toml -a ! -f setup.py || pip install .
    - pytest --junitxml=report.xml --cov=. --cov-report=term --cov-report=xml:coverage.xml
  coverage: '/TOTAL.*? (\\d+)%/'
  artifacts:
    when: always
    reports:
      junit: report.xml
      coverage_report: {coverage_format: cobertura, path: coverage.xml}

package:
  stage: deploy
  rules:
    - if: $CI_COMMIT_TAG
  script:
    - pip install build
    - python -m build
  artifacts:
    paths: [dist/]
"""

SAST = """
# Static analysis of Python code with bandit.
bandit-sast:
  stage: test
  allow_failure: true
  script:
    - pip install bandit
    - bandit -r . -f json -o gl-sast-report.json
  rules:
    - if: $SAST_DISABLED == 'true' || $SAST_DISABLED == '1'
      when: never
    - exists: ['**/*.py']
  artifacts:
    when: always
    paths: [gl-sast-report.json]
"""

TEMPLATES = {
    "Python.gitlab-ci.yml": PYTHON,
    "Workflows/Branch-Pipelines.gitlab-ci.yml": BRANCHES,
    "Workflows/MergeRequest-Pipelines.gitlab-ci.yml": REQUESTS,
    "Jobs/SAST.gitlab-ci.yml": SAST,
    "Security/SAST.gitlab-ci.yml": SAST,
}
