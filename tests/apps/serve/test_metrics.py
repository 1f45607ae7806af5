"""The page of figures, read by Prometheus's own parser."""

from __future__ import annotations

import pytest

from asterisk.apps.serve.service import Metrics

parser = pytest.importorskip("prometheus_client.parser")


def families(page: bytes):
    return {it.name: it for it in parser.text_string_to_metric_families(page.decode())}


def test_what_a_server_says_of_itself(server):
    before = families(server.call("GET", "/metrics")[2])
    assert server.embed(["a text", "a"])[0] == 200
    assert server.embed("")[0] == 400
    assert server.embed("a", unknown=1, user="me")[0] == 200
    status, headers, page = server.call("GET", "/metrics")
    assert (status, headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    after = families(page)

    def grown(family: str, sample: str, **labels: str) -> float:
        def value(page) -> float:
            return sum(
                it.value
                for it in page[family].samples
                if it.name == sample and it.labels.items() >= labels.items()
            )

        return value(after) - value(before)

    path = "/v1/embeddings"
    assert grown("asterisk_requests", "asterisk_requests_total", path=path, status="200") == 2
    assert grown("asterisk_requests", "asterisk_requests_total", path=path, status="400") == 1
    assert grown("asterisk_ignored_fields", "asterisk_ignored_fields_total") == 1
    assert grown("asterisk_texts", "asterisk_texts_total") == 3
    assert grown("asterisk_tokens", "asterisk_tokens_total") == 4
    assert grown("asterisk_request_seconds", "asterisk_request_seconds_count") == 2
    assert grown("asterisk_request_seconds", "asterisk_request_seconds_sum") > 0
    assert grown("asterisk_request_seconds", "asterisk_request_seconds_bucket", le="+Inf") == 2
    for gauge in ("process_resident_memory_bytes", "asterisk_pss_bytes"):
        assert 10e6 < after[gauge].samples[0].value < 200e6
    assert after["asterisk_connections"].samples[0].value >= 1
    assert after["asterisk_info"].samples[0].labels["format"] == "tflite"
    assert {family.type for family in after.values()} == {"counter", "gauge", "histogram"}
    assert all(family.documentation for family in after.values())


def test_names_can_hold_anything():
    name = 'a "name" \\ with\na line \ud800'
    read = families(Metrics({"model": name}).render())["asterisk_info"].samples[0]
    assert read.labels["model"] == name.replace("\ud800", "?")
