"""The deployed redrive: its schedule, and runs by hand."""

import json

import boto3


class Redrive:
    """One function, and the one schedule that invokes it."""

    def __init__(self, function_name):
        self._lambda = boto3.client("lambda")
        self._scheduler = boto3.client("scheduler")
        self._function = self._lambda.get_function(FunctionName=function_name)["Configuration"]["FunctionArn"]

    def run(self):
        """One run, now. Returns its report."""
        answer = self._lambda.invoke(FunctionName=self._function)
        report = json.load(answer["Payload"])
        if "FunctionError" in answer:
            raise RuntimeError(report)
        return report

    def pause(self):
        """From here on, it runs only when it is told to."""
        self._set("DISABLED")

    def resume(self):
        """From here on, it runs every minute, as it was deployed to."""
        self._set("ENABLED")

    def _set(self, state):
        for found in self._scheduler.list_schedules()["Schedules"]:
            schedule = self._scheduler.get_schedule(Name=found["Name"], GroupName=found["GroupName"])
            if schedule["Target"]["Arn"] == self._function:
                wanted = ("Name", "GroupName", "ScheduleExpression", "FlexibleTimeWindow", "Target")
                self._scheduler.update_schedule(State=state, **{name: schedule[name] for name in wanted})
                return
        raise LookupError(f"nothing invokes {self._function}")
