from __future__ import annotations

from grover_dist.doctor.compare import compare_clocks, compare_facts, compare_marks
from grover_dist.doctor.findings import Finding, NodeReport, within
from grover_dist.doctor.table import merge_nodes, print_table, remedies


def report(node, **facts):
    return NodeReport(node, [], {name.replace("_", " "): value for name, value in facts.items()})


def test_a_wrong_version_on_one_node():
    head = report("head", python="3.11.7", product="abc", package_torch="2.9.0")
    same, other = (
        report("one", **{k: v for k, v in (("python", "3.11.7"), ("product", "abc"), ("package_torch", "2.9.0"))}),
        report("two", python="3.12.1", product="xyz", package_torch="2.8.0"),
    )
    assert [finding.state for finding in compare_facts([head, same])] == ["ok"]
    found = list(compare_facts([head, same, other]))
    assert {finding.node for finding in found} == {"two"} and len(found) == 3
    words = " ".join(finding.remedy for finding in found)
    assert "pip install 'torch==2.9.0'" in words and "Python 3.11.7" in words and "the same wheel on every node" in words
    assert any(finding.found == "package torch: 2.8.0 here, 2.9.0 on head" for finding in found)
    assert list(compare_facts([head])) == []


def test_a_folder_that_is_not_shared():
    (found,) = compare_marks("/shared", {"head": [], "one": ["head"]})
    assert (found.state, found.node) == ("failed", "one") and "head wrote is not seen" in found.found
    assert "same path on every node" in found.remedy
    assert next(compare_marks("/shared", {"head": [], "one": []})).state == "ok"


def test_clocks():
    found = list(compare_clocks({"a": 0.01, "b": -5.0, "c": 300.0}, "head"))
    assert [(finding.node, finding.state) for finding in found] == [("b", "warning"), ("c", "failed")]
    assert "chronyc" in found[0].remedy and "5.0 s from head's" in found[0].found
    assert [finding.state for finding in compare_clocks({"a": 0.01}, "head")] == ["ok"]


def test_a_check_that_hangs_or_breaks_is_a_finding():
    import threading

    def breaks():
        raise ValueError("odd")

    hung = threading.Event()
    found = within(0.2, {"hangs": lambda: [hung.wait()], "breaks": breaks, "works": lambda: [Finding("works", "ok", "fine")]})
    hung.set()
    assert [(finding.check, finding.state) for finding in found] == [("hangs", "failed"), ("breaks", "failed"), ("works", "ok")]
    assert "no answer within" in found[0].found and found[0].remedy and "odd" in found[1].found


def test_many_nodes_make_a_short_table(capsys):
    nodes = [f"node{number}" for number in range(20)]
    findings = [Finding("disk", "ok", f"{number} MB/s", node=node) for number, node in enumerate(nodes)]
    findings += [Finding("token", "failed", "none", "set it", node) for node in nodes[:2]]
    assert [finding.node for finding in merge_nodes(findings)] == ["20 nodes", "node0", "node1"]
    assert remedies(findings) == {("token", "set it"): ["node0", "node1"]}
    print_table(findings)
    said = capsys.readouterr().out
    assert "[1] token on node0, node1: set it" in said and said.count("[1]") == 3
