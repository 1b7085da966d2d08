"""Invokes a deployed function that has a schedule, and changes the schedule."""

import json

import boto3


class FunctionFailed(Exception):
    """The error that a function returned: an object with `errorType` and `errorMessage`."""

    def __init__(self, error: dict):
        super().__init__(f"{error.get('errorType')}: {error.get('errorMessage')}")
        self.error = error


class ScheduledFunction:
    """The redrive or the reconciliation, with its schedule."""

    def __init__(self, name: str):
        self._lambda = boto3.client("lambda")
        self._scheduler = boto3.client("scheduler")
        self.name = name
        self._arn = self._lambda.get_function(FunctionName=name)["Configuration"]["FunctionArn"]

    def run(self, payload: dict | None = None) -> dict:
        """Invokes the function, and returns its report.

        Raises FunctionFailed if the run fails.
        """
        answer = self._lambda.invoke(FunctionName=self._arn, Payload=json.dumps(payload or {}))
        report = json.load(answer["Payload"])
        if "FunctionError" in answer:
            raise FunctionFailed(report)
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
            if schedule["Target"]["Arn"] == self._arn:
                wanted = ("Name", "GroupName", "ScheduleExpression", "FlexibleTimeWindow", "Target")
                self._scheduler.update_schedule(State=state, **{name: schedule[name] for name in wanted})
                return
        raise LookupError(f"nothing invokes {self._arn}")
