"""JUnit XML: tests with their outcome, time and message. Reads streams of any size with little memory; refuses DTDs and absurd sizes."""

import xml.etree.ElementTree as ET
from io import BytesIO
from typing import Any

MAX_BYTES = 100 << 20
MAX_TEXT = 20_000
MAX_CASES = 200_000


class ReportMistake(ValueError):
    """The file is no usable report."""


def read(data: bytes) -> dict[str, Any]:
    """Return counts, the seconds of all cases, and the cases: name, class, file, status, seconds, message."""
    if len(data) > MAX_BYTES:
        raise ReportMistake(f"the report has {len(data) >> 20} MB, more than {MAX_BYTES >> 20} MB")
    if b"<!DOCTYPE" in data[:10_000] or b"<!ENTITY" in data:
        raise ReportMistake("the report declares a document type, which a test report does not need")
    cases: list[dict[str, Any]] = []
    try:
        for _, element in ET.iterparse(BytesIO(data), events=("end",)):
            if element.tag.rsplit("}", 1)[-1] == "testcase":
                cases.append(_case(element))
                if len(cases) > MAX_CASES:
                    raise ReportMistake(f"the report has more than {MAX_CASES} tests")
                element.clear()
    except ET.ParseError as mistake:
        raise ReportMistake(f"the report is no XML: {mistake}") from None
    counts = {status: sum(c["status"] == status for c in cases) for status in ("passed", "failed", "error", "skipped")}
    return {"total": len(cases), **counts, "seconds": round(sum(c["seconds"] for c in cases), 3), "cases": cases}


def _case(element: ET.Element) -> dict[str, Any]:
    status, message = "passed", ""
    for child in element:
        tag = child.tag.rsplit("}", 1)[-1]
        if tag in ("failure", "error", "skipped"):
            status = {"failure": "failed", "error": "error", "skipped": "skipped"}[tag]
            message = "\n".join(p for p in (child.get("message", ""), child.text or "") if p).strip()[:MAX_TEXT]
            break
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
