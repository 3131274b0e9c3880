"""Report files, good and hostile."""

import pytest

from trunkline.adapters.report_formats import cobertura, junit
from trunkline.adapters.report_formats.junit import ReportMistake

JUNIT = b"""<testsuites><testsuite><testcase classname="t.A" name="one" time="0.5"/>
<testcase classname="t.A" name="two" time="1,000.5"><failure message="boom">trace</failure></testcase>
<testcase name="three"><skipped/></testcase><testcase name="four"><error>x</error></testcase></testsuite></testsuites>"""

COBERTURA = b"""<coverage><packages><package><classes><class filename="a.py"><lines><line number="1" hits="1"/><line number="2" hits="0"/></lines></class>
<class filename="a.py"><lines><line number="2" hits="3"/></lines></class></classes></package></packages></coverage>"""


def test_junit_counts_and_messages() -> None:
    found = junit.read(JUNIT)

    assert (found["total"], found["passed"], found["failed"], found["error"], found["skipped"], found["seconds"]) == (4, 1, 1, 1, 1, 1001.0)
    assert found["cases"][1]["message"] == "boom\ntrace"


def test_cobertura_merges_lines_of_one_file() -> None:
    assert cobertura.read(COBERTURA) == {"covered": 2, "lines": 2, "percent": 100.0, "files": [{"file": "a.py", "covered": 2, "lines": 2}]}


@pytest.mark.parametrize("data", [b"", b"<a>", b"not xml", b'<!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>'])
@pytest.mark.parametrize("read", [junit.read, cobertura.read])
def test_what_is_no_report_is_refused_with_a_sentence(read: object, data: bytes) -> None:
    with pytest.raises(ReportMistake, match="report"):
        read(data)  # type: ignore[operator]
