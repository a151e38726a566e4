"""The alarms and the dashboard: whether each watches metrics that exist, and whom the alarms notify.

The tests in functions/refresh show that trouble sets off the right alarm, with the metrics that the
function really emits."""

import json
import re

import pytest

from stack import ROOT, Stack

PAGE = (ROOT / "docs/operations.md").read_text()

# What the refresh function emits, as docs/operations.md lists it: name -> unit, dimensions besides FunctionName.
EMITTED = {
    name: (unit, frozenset(re.findall("`([A-Za-z]+)`", by)))
    for name, unit, by in re.findall(r"^\| `([A-Z][A-Za-z]+)` \| (\w+) \|([^|]*)\|", PAGE, re.MULTILINE)
}
ANCHORS = {re.sub("[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in re.findall("^#+ (.*)$", PAGE, re.MULTILINE)}
ALARMS = Stack().of_type("AWS::CloudWatch::Alarm")
# What AWS emits.
OTHERS = [
    ("AWS/SQS", "ApproximateNumberOfMessagesVisible", {"QueueName": "<FailedSweeps.QueueName>"}),
    ("AWS/Scheduler", "TargetErrorCount", {"ScheduleGroup": "<ScheduleGroup>"}),
    ("AWS/Lambda", "Throttles", {"FunctionName": "<RefreshFunction>"}),
    ("AWS/ApiGateway", "5xx", {"ApiId": "<Api>"}),
]


def metric_of(alarm):
    """Namespace, name, dimensions, statistic and period of the metric that an alarm watches."""
    if "Metrics" in alarm:
        (stat,) = (m["MetricStat"] for m in alarm["Metrics"] if "MetricStat" in m)
        alarm = stat["Metric"] | {"Statistic": stat["Stat"], "Period": stat["Period"]}
    dimensions = {d["Name"]: d["Value"] for d in alarm["Dimensions"]}
    return alarm["Namespace"], alarm["MetricName"], dimensions, alarm["Statistic"], alarm["Period"]


def test_the_table_of_metrics_was_found():
    assert len(EMITTED) == 14


@pytest.mark.parametrize("name", ALARMS)
class TestEachAlarm:
    def test_watches_a_metric_that_exists(self, name):
        namespace, metric, dimensions, _, period = metric_of(ALARMS[name])
        if namespace != "EntraConnector":
            assert (namespace, metric, dimensions) in OTHERS
        else:
            assert metric in EMITTED
            assert dimensions == {"FunctionName": "<RefreshFunction>"}
        assert period == 60

    def test_notifies_the_topic_or_the_address_that_was_given(self, name):
        topic = "arn:aws:sns:eu-west-1:123456789012:alarms"
        for parameters, told in [
            ({}, []),
            ({"AlarmTopicArn": topic}, [topic]),
            ({"AlarmEmail": "someone@contoso.example"}, ["<AlarmTopic>"]),
            ({"AlarmTopicArn": topic, "AlarmEmail": "someone@contoso.example"}, [topic, "<AlarmTopic>"]),
        ]:
            stack = Stack(**parameters)
            alarm = stack.resources[name]["Properties"]
            assert alarm["AlarmActions"] == told
            # That there is no new refusal does not mean that anything was solved.
            assert alarm.get("OKActions", []) == ([] if name == "ConnectionRefused" else told)
            assert alarm.get("ActionsEnabled", True)
            assert ("AlarmTopic" in stack.resources) == ("AlarmEmail" in parameters)

    def test_says_what_to_do_and_links_to_its_section(self, name):
        description = ALARMS[name]["AlarmDescription"]
        anchor = re.fullmatch(r".{60,}: docs/operations\.md#([a-z-]+)", description)[1]
        assert anchor in ANCHORS
        assert ALARMS[name]["AlarmName"] == f"entra-connector-{anchor}"

    def test_looks_back_far_enough(self, name):
        alarm = Stack(SilenceMinutes=45).resources[name]["Properties"]
        at_once = {"SweepFailed": 1, "ScheduleFailed": 1, "SweepThrottled": 1, "ApiFailed": 5}
        assert alarm["EvaluationPeriods"] == at_once.get(name, 45)


def test_the_topic_sends_mail_to_the_address():
    topic = Stack(AlarmEmail="someone@contoso.example").the("AWS::SNS::Topic")
    assert topic["Subscription"] == [{"Protocol": "email", "Endpoint": "someone@contoso.example"}]


PAGE = set(re.findall(r'^\t\w+ += "(\w+)"$', (ROOT / "internal/signals/connect.go").read_text(), re.MULTILINE))


class TestDashboard:
    body = json.loads(Stack().the("AWS::CloudWatch::Dashboard")["DashboardBody"])
    widgets = body["widgets"]

    def test_shows_every_alarm(self):
        (alarms,) = (w["properties"]["alarms"] for w in self.widgets if w["type"] == "alarm")
        assert sorted(alarms) == sorted(f"<{name}.Arn>" for name in ALARMS)

    def test_shows_metrics_that_exist(self):
        shown = set()
        for widget in (w["properties"] for w in self.widgets if w["type"] == "metric"):
            assert widget["region"] == "eu-west-1" and widget["title"]
            before = []
            for entry in widget["metrics"]:
                if isinstance(entry[0], dict):
                    search = re.fullmatch(
                        r"""SEARCH\('\{EntraConnector,FunctionName,(\w+)} MetricName="(\w+)" FunctionName="<RefreshFunction>"', '\w+', 300\)""",
                        entry[0]["expression"],
                    )
                    assert search[1] in EMITTED[search[2]][1]
                    continue
                entry = [x for x in entry if not isinstance(x, dict)]
                namespace, name, dimension, value = before = [
                    old if x == "." else x for x, old in zip(entry, before or entry)
                ]
                shown.add(name)
                if name in PAGE:
                    assert (dimension, value) == ("FunctionName", "none")  # without the page
                    continue
                assert (
                    namespace != "EntraConnector"
                    or (dimension, value) == ("FunctionName", "<RefreshFunction>")
                    and name in EMITTED
                )
        assert shown >= PAGE | {
            "ShortestLife",
            "SweepsSucceeded",
            "Due",
            "Refreshed",
            "Failed",
            "Deferred",
            "Refused",
            "SweepDuration",
            "ApproximateNumberOfMessagesVisible",
        }

    def test_draws_the_limits(self):
        lines = {
            w["properties"]["title"]: w["properties"]["annotations"]["horizontal"][0]["value"]
            for w in self.widgets
            if "annotations" in w["properties"]
        }
        timeout = Stack().resources["RefreshFunction"]["Properties"]["Timeout"]
        assert lines == {
            "Shortest life of a token": ALARMS["TokenAboutToExpire"]["Threshold"],
            "Duration of a sweep": timeout * 1000,
        }

    def test_queries_fields_that_are_logged(self):
        (query,) = (w["properties"]["query"] for w in self.widgets if w["type"] == "log")
        assert query.startswith("SOURCE '<RefreshLogGroup>' | ")
        logged = re.search(r'"refresh failed",(.*?)\)\n', (ROOT / "internal/connector/refresh.go").read_text(), re.DOTALL)[1]
        asked = re.search(r"fields @timestamp, (.*?) \|", query)[1].split(", ") + ["status"]
        assert set(asked) <= set(re.findall(r'"([a-z_]+)"', logged))

    def test_widgets_fill_rows_and_do_not_overlap(self):
        cells = [
            (x, y)
            for w in self.widgets
            for x in range(w["x"], w["x"] + w["width"])
            for y in range(w["y"], w["y"] + w["height"])
        ]
        assert len(cells) == len(set(cells)) == 24 * (1 + max(y for _, y in cells))
