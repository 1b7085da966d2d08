"""Invokes the deployed redrive, and changes its schedule."""

import json

import boto3


class Redrive:
    """One redrive function and its schedule."""

    def __init__(self, function_name: str):
        self._lambda = boto3.client("lambda")
        self._scheduler = boto3.client("scheduler")
        self._function = self._lambda.get_function(FunctionName=function_name)["Configuration"]["FunctionArn"]

    def run(self) -> dict:
        """Runs the redrive once, and returns its report."""
        answer = self._lambda.invoke(FunctionName=self._function)
        report = json.load(answer["Payload"])
        if "FunctionError" in answer:
            raise RuntimeError(report)
        return report

    def pause(self) -> None:
        """Disables the schedule."""
        self._set("DISABLED")

    def resume(self) -> None:
        """Enables the schedule again."""
        self._set("ENABLED")

    def _set(self, state):
        for found in self._scheduler.list_schedules()["Schedules"]:
            schedule = self._scheduler.get_schedule(Name=found["Name"], GroupName=found["GroupName"])
            if schedule["Target"]["Arn"] == self._function:
                wanted = ("Name", "GroupName", "ScheduleExpression", "FlexibleTimeWindow", "Target")
                self._scheduler.update_schedule(State=state, **{name: schedule[name] for name in wanted})
                return
        raise LookupError(f"nothing invokes {self._function}")
