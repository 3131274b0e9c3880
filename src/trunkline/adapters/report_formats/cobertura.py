"""Cobertura XML: which lines tests have reached."""

import xml.etree.ElementTree as ET
from io import BytesIO
from typing import Any

from trunkline.adapters.report_formats.junit import MAX_BYTES, ReportMistake


def read(data: bytes) -> dict[str, Any]:
    """Return covered and all lines, the percentage, and the same for each file."""
    if len(data) > MAX_BYTES:
        raise ReportMistake(f"the report has {len(data) >> 20} MB, more than {MAX_BYTES >> 20} MB")
    if b"<!ENTITY" in data:
        raise ReportMistake("the report declares entities, which a coverage report does not need")
    files: dict[str, dict[int, int]] = {}
    current: dict[int, int] = {}
    own: dict[int, int] = {}  # what the class says of its lines; its methods say the same once more, or are all there is
    of_methods: dict[int, int] = {}
    depth = 0
    try:
        for event, element in ET.iterparse(BytesIO(data), events=("start", "end")):
            tag = element.tag.rsplit("}", 1)[-1]
            if event == "start" and tag == "class":
                current = files.setdefault(element.get("filename", ""), {})
                own, of_methods = {}, {}
            elif tag == "method":
                depth += 1 if event == "start" else -1
            elif event == "end" and tag == "line" and (element.get("number") or "").isdigit():
                number, told = int(element.get("number", "0")), of_methods if depth else own
                told[number] = max(told.get(number, 0), int(element.get("hits") or 0))
            elif event == "end" and tag == "class":
                for number, hits in (own or of_methods).items():
                    current[number] = max(current.get(number, 0), hits)
                element.clear()
    except (ET.ParseError, ValueError) as mistake:
        raise ReportMistake(f"the report is no Cobertura XML: {mistake}") from None
    hit = {name: sum(hits > 0 for hits in found.values()) for name, found in sorted(files.items())}
    rows = [{"file": name, "covered": hit[name], "lines": len(files[name])} for name in hit]
    covered, lines = sum(hit.values()), sum(len(found) for found in files.values())
    return {"covered": covered, "lines": lines, "percent": round(100 * covered / lines, 2) if lines else None, "files": rows}
