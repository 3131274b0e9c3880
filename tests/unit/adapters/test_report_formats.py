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


def test_the_gravest_of_several_results_of_one_test_counts_and_disabled_ones_are_skipped() -> None:
    told = junit.read(
        b"<testsuites><testsuite><testcase name='a'><skipped/><failure message='f'/><error message='e'/></testcase>"
        b"<testcase name='b'><skipped/><failure message='f'/></testcase><testcase name='c' status='disabled'/></testsuite></testsuites>"
    )

    assert [(c["name"], c["status"], c["message"]) for c in told["cases"]] == [
        ("a", "error", "e"),
        ("b", "failed", "f"),
        ("c", "skipped", ""),
    ]


def test_what_does_not_begin_as_a_test_report_is_none() -> None:
    with pytest.raises(junit.ReportMistake, match="begins with <suites>"):
        junit.read(b"<suites><suite><case name='a'/></suite></suites>")


def test_lines_that_a_class_and_its_methods_both_tell_count_as_the_class_says() -> None:
    told = cobertura.read(
        b"<coverage><packages><package><classes><class filename='a.py'><methods><method><lines><line number='1' hits='9'/><line number='7' hits='1'/></lines>"
        b"</method></methods><lines><line number='1' hits='0'/><line number='2' hits='1'/></lines></class>"
        b"<class filename='b.py'><methods><method><lines><line number='1' hits='1'/></lines></method></methods><lines/></class>"
        b"</classes></package></packages></coverage>"
    )

    assert told["files"] == [{"file": "a.py", "covered": 1, "lines": 2}, {"file": "b.py", "covered": 1, "lines": 1}]
