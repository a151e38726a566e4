"""The alarms and the dashboard: that each watches a metric that there is, and that trouble trips the alarm meant for it and
no other."""

import json
import re

import pytest

from stack import ROOT, Stack

PAGE = (ROOT / "docs/operations.md").read_text()

# What the refresh function emits, by the table that people read: name, unit, dimensions besides FunctionName.
EMITTED = {
    name: (unit, frozenset(re.findall("`([A-Za-z]+)`", by)))
    for name, unit, by in re.findall(r"^\| `([A-Z][A-Za-z]+)` \| (\w+) \|([^|]*)\|", PAGE, re.MULTILINE)
}
ANCHORS = {re.sub("[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in re.findall("^#+ (.*)$", PAGE, re.MULTILINE)}
ALARMS = Stack().of_type("AWS::CloudWatch::Alarm")


def metric_of(alarm):
    """Namespace, name, dimensions, statistic and period of what an alarm watches."""
    if "Metrics" in alarm:
        (stat,) = (m["MetricStat"] for m in alarm["Metrics"] if "MetricStat" in m)
        alarm = stat["Metric"] | {"Statistic": stat["Stat"], "Period": stat["Period"]}
    dimensions = {d["Name"]: d["Value"] for d in alarm["Dimensions"]}
    return alarm["Namespace"], alarm["MetricName"], dimensions, alarm["Statistic"], alarm["Period"]


def test_the_table_of_metrics_is_found():
    assert len(EMITTED) == 13


@pytest.mark.parametrize("name", ALARMS)
class TestEachAlarm:
    def test_watches_a_metric_that_there_is(self, name):
        namespace, metric, dimensions, _, period = metric_of(ALARMS[name])
        if namespace == "AWS/SQS":
            assert (metric, dimensions) == ("ApproximateNumberOfMessagesVisible", {"QueueName": "<FailedSweeps.QueueName>"})
        else:
            assert namespace == "EntraConnector" and metric in EMITTED
            assert dimensions == {"FunctionName": "<RefreshFunction>"}
        assert period == 60

    def test_tells_whoever_was_named(self, name):
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
            # That nothing new is refused does not mean that anything was mended.
            assert alarm.get("OKActions", []) == ([] if name == "ConnectionRefused" else told)
            assert alarm.get("ActionsEnabled", True)
            assert ("AlarmTopic" in stack.resources) == ("AlarmEmail" in parameters)

    def test_says_what_to_do_and_where_it_is_explained(self, name):
        description = ALARMS[name]["AlarmDescription"]
        anchor = re.fullmatch(r".{60,}: docs/operations\.md#([a-z-]+)", description)[1]
        assert anchor in ANCHORS
        assert ALARMS[name]["AlarmName"] == f"entra-connector-{anchor}"

    def test_looks_back_over_some_sweeps(self, name):
        alarm = Stack(SilenceMinutes=45).resources[name]["Properties"]
        assert alarm["EvaluationPeriods"] == (1 if name == "SweepFailed" else 45)


def test_the_address_gets_the_mails():
    topic = Stack(AlarmEmail="someone@contoso.example").the("AWS::SNS::Topic")
    assert topic["Subscription"] == [{"Protocol": "email", "Endpoint": "someone@contoso.example"}]


# What a sweep leaves when all is well, every five minutes; other metrics come with other dimensions.
WELL = {name: 0 for name, (_, by) in EMITTED.items() if not by} | {
    "SweepsSucceeded": 1,
    "Failed": 0,
    "Refused": 0,
    "ShortestLife": 1600,
}
QUEUE = "ApproximateNumberOfMessagesVisible"


def minutes(change=lambda minute, sweep: sweep, length=120, every=5, queue=lambda minute: 0):
    """What CloudWatch holds for each minute, of sweeps that change may alter, or take away with None."""
    swept = [change(m, dict(WELL)) if m % every == 0 else None for m in range(length)]
    return [(sweep or {}) | {QUEUE: queue(m)} for m, sweep in enumerate(swept)]


def breaches(alarm, history, further):
    """Whether an alarm is in ALARM after this history, as CloudWatch documents the evaluation of missing data: it looks
    further back than the evaluation periods, and takes real data points before it fills in missing ones. How much further
    depends; an alarm that means what it says does not."""
    _, metric, _, _, _ = metric_of(alarm)
    n, m = alarm["EvaluationPeriods"], alarm.get("DatapointsToAlarm", alarm["EvaluationPeriods"])
    below = alarm["ComparisonOperator"] == "LessThanThreshold"
    points = [minute.get(metric) for minute in history[-n - further :]]
    if "Metrics" in alarm:
        (expression,) = (x["Expression"] for x in alarm["Metrics"] if "Expression" in x)
        assert re.fullmatch(r"FILL\(\w+, 0\)", expression)
        if any(p is not None for p in points):  # it may take more than nothing to fill
            points = [0 if p is None else p for p in points]
    real = [p < alarm["Threshold"] if below else p > alarm["Threshold"] for p in points if p is not None][-n:]
    if alarm["TreatMissingData"] == "missing" and not real:
        return False  # INSUFFICIENT_DATA
    assert alarm["TreatMissingData"] in ("missing", "breaching", "notBreaching")
    missing = max(0, n - len(real))
    return sum(real) + (missing if alarm["TreatMissingData"] == "breaching" else 0) >= m


def tripped(history, **parameters):
    """The alarms that go off at some time after the first hour of the history, with the minute of each."""
    alarms = Stack(**parameters).of_type("AWS::CloudWatch::Alarm")
    first = {}
    for further in (0, 5):
        for end in range(61, len(history) + 1):
            for name, alarm in alarms.items():
                if breaches(alarm, history[:end], further):
                    first.setdefault((name, further), end - 1)
    names = {name for name, _ in first}
    assert len(first) == 2 * len(names), "an alarm that depends on how far CloudWatch looks back"
    return {name: first[name, 5] for name in names}


def from_minute(start, **values):
    return lambda minute, sweep: sweep | values if minute >= start else sweep


def at_minute(*when, **values):
    return lambda minute, sweep: sweep | values if minute in when else sweep


def killed(*when):
    return lambda minute, sweep: None if minute in when else sweep


class TestTroubleTripsTheAlarmMeantForIt:
    def test_none_when_all_is_well(self):
        assert tripped(minutes()) == {}

    def test_a_killed_sweep(self):
        history = minutes(killed(65), queue=lambda minute: int(minute >= 70))
        assert tripped(history) == {"SweepFailed": 70}

    def test_a_killed_sweep_between_two_that_take_all_their_time(self):
        # Sweeps end up to five minutes after they began: one at once, the next not at all, the last at the very end.
        history = minutes(killed(65, 70), queue=lambda minute: int(minute >= 70))
        history[74] |= WELL
        assert tripped(history) == {"SweepFailed": 70}

    def test_a_schedule_that_stopped(self):
        history = minutes(lambda minute, sweep: sweep if minute <= 65 else None)
        assert tripped(history) == {"NoSweepSucceeded": 80}

    def test_sweeps_that_are_all_killed(self):
        history = minutes(
            lambda minute, sweep: sweep if minute <= 65 else None, queue=lambda minute: max(0, minute - 70) // 5
        )
        assert tripped(history).keys() == {"NoSweepSucceeded", "SweepFailed"}

    def test_a_refused_connection(self):
        change = lambda minute, sweep: sweep | {"NewRefusals": int(minute == 65), "Refused": int(minute >= 65)}
        assert tripped(minutes(change)) == {"ConnectionRefused": 65}

    def test_an_expiring_credential(self):
        assert tripped(minutes(from_minute(65, ExpiringCredentials=1))) == {"CredentialExpires": 65}

    def test_a_token_that_nobody_could_refresh(self):
        def change(minute, sweep):
            life = 1600 if minute < 65 else 1600 - 60 * (minute - 65)
            return sweep | {"ShortestLife": life, "Failed": int(minute >= 65)}

        assert tripped(minutes(change)) == {"TokenAboutToExpire": 80}

    def test_a_short_life_is_a_matter_of_quarter_hours_and_no_less(self):
        assert tripped(minutes(from_minute(65, ShortestLife=900))) == {}
        assert tripped(minutes(from_minute(65, ShortestLife=899))) == {"TokenAboutToExpire": 65}

    def test_no_connection_at_all(self):
        def change(minute, sweep):
            del sweep["ShortestLife"]
            return sweep

        assert tripped(minutes(change)) == {}

    def test_work_that_is_deferred_once_and_again(self):
        assert tripped(minutes(at_minute(65, Deferred=100))) == {}
        assert tripped(minutes(at_minute(65, 70, Deferred=100))) == {"WorkDeferred": 70}

    def test_failures_that_pass(self):
        assert tripped(minutes(from_minute(65, Failed=3, Due=3, Waiting=2))) == {}

    def test_another_schedule(self):
        slow = {"every": 15, "length": 240}
        assert tripped(minutes(killed(75), queue=lambda minute: int(minute >= 80), **slow), SilenceMinutes=45) == {
            "SweepFailed": 80
        }
        stopped = minutes(lambda minute, sweep: sweep if minute <= 75 else None, **slow)
        assert tripped(stopped, SilenceMinutes=45) == {"NoSweepSucceeded": 120}
        assert tripped(minutes(at_minute(75, 90, Deferred=1), **slow), SilenceMinutes=45) == {"WorkDeferred": 90}

    def test_alarms_end(self):
        alarms = Stack().of_type("AWS::CloudWatch::Alarm")
        history = minutes(at_minute(65, NewRefusals=1, ShortestLife=1, ExpiringCredentials=1))
        assert not any(breaches(alarm, history[:90], further) for alarm in alarms.values() for further in (0, 5))


class TestDashboard:
    body = json.loads(Stack().the("AWS::CloudWatch::Dashboard")["DashboardBody"])
    widgets = body["widgets"]

    def test_shows_every_alarm(self):
        (alarms,) = (w["properties"]["alarms"] for w in self.widgets if w["type"] == "alarm")
        assert sorted(alarms) == sorted(f"<{name}.Arn>" for name in ALARMS)

    def test_shows_metrics_that_there_are(self):
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
                assert (
                    namespace != "EntraConnector"
                    or (dimension, value) == ("FunctionName", "<RefreshFunction>")
                    and name in EMITTED
                )
        assert shown >= {
            "ShortestLife",
            "SweepsSucceeded",
            "Due",
            "Refreshed",
            "Failed",
            "Deferred",
            "Refused",
            "SweepDuration",
            QUEUE,
        }

    def test_draws_the_lines_that_matter(self):
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

    def test_asks_the_log_for_what_is_logged(self):
        (query,) = (w["properties"]["query"] for w in self.widgets if w["type"] == "log")
        assert query.startswith("SOURCE '<RefreshLogGroup>' | ")
        logged = re.search(r'"refresh failed",(.*?)\)\n', (ROOT / "pkg/entra/refresh.go").read_text(), re.DOTALL)[1]
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
