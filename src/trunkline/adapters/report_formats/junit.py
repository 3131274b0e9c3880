"""JUnit XML: tests with their outcome, time and message. Reads streams of any size with little memory; refuses DTDs and absurd sizes."""

import xml.etree.ElementTree as ET
from io import BytesIO
from typing import Any

MAX_BYTES = 100 << 20
MAX_TEXT = 20_000
MAX_CASES = 200_000
ROOTS = ("testsuites", "testsuite", "testrun")


class ReportMistake(ValueError):
    """The file is no usable report."""


def read(data: bytes) -> dict[str, Any]:
    """Return counts, the seconds of all cases, and the cases: name, class, file, status, seconds, message."""
    if len(data) > MAX_BYTES:
        raise ReportMistake(f"the report has {len(data) >> 20} MB, more than {MAX_BYTES >> 20} MB")
    if b"<!DOCTYPE" in data[:10_000] or b"<!ENTITY" in data:
        raise ReportMistake("the report declares a document type, which a test report does not need")
    cases: list[dict[str, Any]] = []
    root = ""
    try:
        for event, element in ET.iterparse(BytesIO(data), events=("start", "end")):
            tag = element.tag.rsplit("}", 1)[-1]
            root = root or tag
            if root not in ROOTS:
                raise ReportMistake(f"the report begins with <{root}>, a test report begins with <testsuites> or <testsuite>")
            if event == "end" and tag == "testcase":
                cases.append(_case(element))
                if len(cases) > MAX_CASES:
                    raise ReportMistake(f"the report has more than {MAX_CASES} tests")
                element.clear()
    except ET.ParseError as mistake:
        raise ReportMistake(f"the report is no XML: {mistake}") from None
    counts = {status: sum(c["status"] == status for c in cases) for status in ("passed", "failed", "error", "skipped")}
    return {"total": len(cases), **counts, "seconds": round(sum(c["seconds"] for c in cases), 3), "cases": cases}


_SAID = {"failure": "failed", "error": "error", "skipped": "skipped", "disabled": "skipped"}
_GRAVITY = ("passed", "skipped", "failed", "error")


def _case(element: ET.Element) -> dict[str, Any]:
    status, message = ("skipped", "") if element.get("status", "").lower() in ("disabled", "notrun", "skipped") else ("passed", "")
    for child in element:
        told = _SAID.get(child.tag.rsplit("}", 1)[-1], "")
        if told and _GRAVITY.index(told) > _GRAVITY.index(status):  # several are told of one test: the gravest counts
            status = told
            message = "\n".join(p for p in (child.get("message", ""), child.text or "") if p).strip()[:MAX_TEXT]
    try:
        seconds = float((element.get("time") or "0").replace(",", ""))
    except ValueError:
        seconds = 0.0
    return {
        "name": element.get("name", ""),
        "class": element.get("classname", ""),
        "file": element.get("file", ""),
        "status": status,
        "seconds": seconds,
        "message": message,
    }
