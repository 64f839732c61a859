"""A gate as JUnit XML, which every CI server reads: one test case for each budget and figure.

The shape is the one Jenkins and GitLab take (jenkinsci/xunit-plugin, junit-10.xsd): a failure is a budget that is broken, an
error one that could not be decided, skipped what decides nothing.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree as Xml

from ..gate.budget_verdict import BudgetVerdict
from ..gate.gate import Gate

# What XML 1.0 §2.2 cannot hold, escaped or not.
NO_CHARACTER = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit_of(found: Gate, inconclusive: str | None = None) -> str:
    """The document; what is unknown is skipped where it counts as a pass."""
    cases = [case_of(decided, inconclusive) for decided in found.verdicts]

    def count(tag: str) -> str:
        return str(sum(case.find(tag) is not None for case in cases))

    tally = {"tests": str(len(cases)), "failures": count("failure"), "errors": count("error"), "time": "0"}
    suites = Xml.Element("testsuites", {"name": "farwrite gate", **tally})
    suite = Xml.SubElement(suites, "testsuite", {"name": clean(found.title or "farwrite gate"), **tally,
                                                 "skipped": count("skipped"), "timestamp": found.started_utc[:19]})  # fmt: skip
    properties = Xml.SubElement(suite, "properties")
    for name, value in {
        "report": found.report, "baseline": found.baseline or "", "budgets": found.budgets, "verdict": found.verdict,
        "alpha": f"{found.alpha:g}", "measured tests": str(found.tests), "look": f"{found.look} of {found.looks}",
        "warnings": "; ".join(found.warnings),
    }.items():  # fmt: skip
        Xml.SubElement(properties, "property", {"name": name, "value": clean(value)})
    suite.extend(cases)
    Xml.indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + Xml.tostring(suites, encoding="unicode") + "\n"


def case_of(decided: BudgetVerdict, inconclusive: str | None) -> Xml.Element:
    """One test case."""
    case = Xml.Element(
        "testcase", {"classname": clean(f"farwrite.{decided.metric}"), "name": clean(f"{decided.budget}: {decided.figure}"),
                     "time": "0"},
    )  # fmt: skip
    text = clean(decided.sentence)
    if not decided.gating:
        Xml.SubElement(case, "skipped", {"message": f"reported only, {decided.verdict}: {text}"})
    elif decided.verdict == "fail":
        failure = Xml.SubElement(case, "failure", {"message": text, "type": "lost" if decided.lost else "budget"})
        failure.text = clean(f"{decided.sentence}\npromised because: {decided.reason or 'no reason is given'}")
    elif decided.verdict == "unknown" and inconclusive == "pass":
        Xml.SubElement(case, "skipped", {"message": f"unknown: {text}"})
    elif decided.verdict == "unknown":
        Xml.SubElement(case, "error", {"message": text, "type": "inconclusive"}).text = text
    else:
        Xml.SubElement(case, "system-out").text = text
    return case


def clean(text: str) -> str:
    """Text that XML can hold."""
    return NO_CHARACTER.sub("\ufffd", text)
